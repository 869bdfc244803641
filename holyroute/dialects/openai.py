"""OpenAI's chat completions, spoken by nearly every provider and by Azure's deployments."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
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
_SHOWN_HEADERS = frozenset({"content-length", *map(str.lower, _PORTABLE_HEADERS)})

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
    template = _template(target.provider.base_url + PATH, chosen)
    data = _encode(body, target)
    headers = {**template.headers._store, "content-length": ("Content-Length", str(len(data)))}  # noqa: SLF001
    if credential is not None:
        headers["authorization"] = ("Authorization", credential.header)
    request = _copy(template, headers)
    request.body = data
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


def _copy(template: PreparedRequest, headers: dict[str, Any]) -> PreparedRequest:
    """A copy with other headers, by their names in lower case: without the walk that requests makes for each."""
    request = PreparedRequest()
    request.__dict__.update(template.__dict__, hooks=request.hooks)
    request.headers = CaseInsensitiveDict.__new__(CaseInsensitiveDict)
    request.headers._store = OrderedDict(headers)  # noqa: SLF001
    return request


def renamed(request: PreparedRequest, target: Target, body: Mapping[str, Any]) -> PreparedRequest:
    """The caller's own request, asking the same host for another model."""
    request.prepare_body(_encode(body, target), None)
    return request


def without_credentials(request: PreparedRequest) -> PreparedRequest:
    """A copy that may be shown: every header that could hold a credential is masked."""
    headers = {
        low: (name, value if low in _SHOWN_HEADERS else "***")
        for low, (name, value) in request.headers._store.items()  # noqa: SLF001
    }
    return _copy(request, headers)


def _encode(body: Mapping[str, Any], target: Target) -> bytes:
    try:
        return codec.dumps({**body, "model": target.model})
    except ValueError as error:
        raise InvalidJSONError(error) from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
