"""OpenAI's chat completions, spoken by nearly every provider and by Azure's deployments."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

from requests import PreparedRequest
from requests.exceptions import InvalidJSONError
from requests.structures import CaseInsensitiveDict

from holyroute.core import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.config.credentials import Credential
    from holyroute.core.target import Target

PATH = "/chat/completions"
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/chat/completions$")

# What may travel to a host that the caller did not write; everything else may hold a credential or a name.
_PORTABLE_HEADERS = ("Content-Type", "Accept", "User-Agent")
_SHOWN_HEADERS = frozenset({*_PORTABLE_HEADERS, "Content-Length"})

TEMPLATES = 256  # requests that are remembered without body and key


def read(request: PreparedRequest) -> tuple[str, dict[str, Any]] | None:
    """Model and decoded body, if a request is a chat completion; None for everything else.

    The body may be bytes or str, with or without a Content-Type; a file or generator is not ours, because reading it
    would use it up. What a strict parser would refuse is left to the provider it was written for.
    """
    if request.method != "POST" or not isinstance(request.body, (bytes, str)):
        return None
    try:
        path = urlsplit(request.url or "").path
        body = json.loads(request.body, parse_constant=_refuse) if path.endswith(PATH) else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return None
    model = body.get("model")
    if isinstance(model, str) and model:
        return model, body
    deployment = _DEPLOYMENT.search(path)
    return (unquote(deployment.group(1)), body) if deployment else None


def base_url(request: PreparedRequest) -> str:
    """The URL up to, and without, the dialect's path; without user and password, for it is shown."""
    parts = urlsplit(request.url or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.removesuffix(PATH)}"


def prepare(
    target: Target,
    body: Mapping[str, Any],
    credential: Credential | None,
    headers: Mapping[str, Any] | None = None,
) -> PreparedRequest:
    """A new request to a target; of the caller's headers only those travel that name no one."""
    chosen = tuple((name, headers[name]) for name in _PORTABLE_HEADERS if name in headers) if headers else ()
    request = _copy(_template(target.provider.base_url + PATH, chosen))
    request.body = data = _encode(body, target)
    request.headers["Content-Length"] = str(len(data))
    if credential is not None:
        request.headers["Authorization"] = credential.header
    return request


@lru_cache(TEMPLATES)
def _template(url: str, headers: tuple[tuple[str, str], ...]) -> PreparedRequest:
    """URL and static headers, checked and prepared by requests itself."""
    request = PreparedRequest()
    request.prepare(
        method="POST", url=url, headers={"Accept": "application/json", "User-Agent": "holyroute", **dict(headers)}
    )
    request.headers["Content-Type"] = "application/json"
    return request


def _copy(template: PreparedRequest) -> PreparedRequest:
    """As `PreparedRequest.copy`, without checking the headers again."""
    request = PreparedRequest()
    request.__dict__.update(template.__dict__, hooks=request.hooks)
    request.headers = CaseInsensitiveDict()
    request.headers._store = template.headers._store.copy()  # noqa: SLF001
    return request


def renamed(request: PreparedRequest, target: Target, body: Mapping[str, Any]) -> PreparedRequest:
    """The caller's own request, asking the same host for another model."""
    request.prepare_body(_encode(body, target), None)
    return request


def without_credentials(request: PreparedRequest) -> PreparedRequest:
    """A copy that may be shown: every header that could hold a credential is masked."""
    shown = _copy(request)
    for name in request.headers:
        if name not in _SHOWN_HEADERS:
            shown.headers[name] = "***"
    return shown


def _encode(body: Mapping[str, Any], target: Target) -> bytes:
    try:
        return codec.dumps({**body, "model": target.model})
    except ValueError as error:
        raise InvalidJSONError(error) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
