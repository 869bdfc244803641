"""Responses that came over no connection of their own."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest, Response

_OF_THE_WIRE = {"connection", "content-encoding", "content-length", "transfer-encoding"}


def build(request: PreparedRequest, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> Response:
    """A real `requests.Response` to a request, with its body read, as requests reads it without `stream=True`."""
    raw = HTTPResponse(body=BytesIO(body), headers=headers, status=status, reason=reason, preload_content=False)
    response = HTTPAdapter().build_response(request, raw)
    _ = response.content
    return response


def replace_body(response: Response, body: bytes) -> None:
    """Put another JSON body into a response that was read."""
    for name in _OF_THE_WIRE & {name.lower() for name in response.headers}:
        del response.headers[name]
    response.headers.update({"Content-Type": "application/json", "Content-Length": str(len(body))})
    response.encoding = "utf-8"
    response._content = body  # noqa: SLF001 - as mocks of requests set it


class _Body(BytesIO):
    """Closed when all was read, as the body of a connection is: urllib3 reads until then."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.tell() >= len(self.getbuffer()):
            self.close()
        return data

    read1 = read


def rewind(response: Response) -> None:
    """Let a body that was read be read once more, in any way, as if it were still to come."""
    headers = {name: value for name, value in response.headers.items() if name.lower() not in _OF_THE_WIRE}
    response.raw = HTTPResponse(
        body=_Body(response.content or b""),
        headers=headers,
        status=response.status_code,
        reason=response.reason,
        preload_content=False,
    )
    response._content = False  # noqa: SLF001 - as requests has it before it reads
    response._content_consumed = False  # noqa: SLF001
