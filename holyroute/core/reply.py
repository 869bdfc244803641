"""Responses that came over no connection of their own."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest, Response


def build(request: PreparedRequest, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> Response:
    """A real `requests.Response` to a request, with its body read, as requests reads it without `stream=True`."""
    raw = HTTPResponse(body=BytesIO(body), headers=headers, status=status, reason=reason, preload_content=False)
    response = HTTPAdapter().build_response(request, raw)
    _ = response.content
    return response
