"""What all dialects share on the wire: JSON bodies over POST, and headers that may travel."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.exceptions import InvalidJSONError
from requests.hooks import default_hooks
from requests.structures import CaseInsensitiveDict

from holyroute.core import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.target import Target

# What may travel to a host that the caller did not write, and what is said where the caller says nothing; everything
# else may hold a credential or a name.
PORTABLE_HEADERS = {"Accept": "application/json", "User-Agent": "holyroute"}
_SHOWN_HEADERS = frozenset({"content-type", "content-length", *map(str.lower, PORTABLE_HEADERS)})

TEMPLATES = 256  # requests that are remembered without body and key


def path_of(request: PreparedRequest) -> str:
    """The path of a request, without its query; empty where its URL is none."""
    try:
        return urlsplit(request.url or "").path
    except ValueError:
        return ""


def body_of(request: PreparedRequest) -> dict[str, Any] | None:
    """The decoded body of a POST, if it is JSON that holds messages.

    The body may be bytes or str, with or without a Content-Type; a file or generator is not ours, because reading it
    would use it up. What a strict parser would refuse is left to the provider it was written for.
    """
    if request.method != "POST" or not isinstance(request.body, (bytes, str)):
        return None
    try:
        body = codec.loads(request.body, strict=True)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) and isinstance(body.get("messages"), list) else None


def named_in(body: Mapping[str, Any]) -> str | None:
    """The model that a body names."""
    model = body.get("model")
    return model if isinstance(model, str) and model else None


def base_url(request: PreparedRequest, path: str) -> str:
    """The URL up to a path; without user and password, for it is shown."""
    parts = urlsplit(request.url or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"


def post(
    url: str,
    data: bytes,
    key: tuple[str, str] | None,
    headers: Mapping[str, Any] | None,
    portable: Mapping[str, str] = PORTABLE_HEADERS,
) -> PreparedRequest:
    """A new request, with a key's header where there is one; of the caller's headers only the portable ones travel."""
    given = portable if headers is None else {name: headers.get(name, usual) for name, usual in portable.items()}
    template = _template(url, tuple(given.items()))
    sent = {**template.headers._store, "content-length": ("Content-Length", str(len(data)))}  # noqa: SLF001
    if key is not None:
        sent[key[0].lower()] = key
    request = _copy(template, sent)
    request.body = data
    return request


@lru_cache(TEMPLATES)
def _template(url: str, headers: tuple[tuple[str, str], ...]) -> PreparedRequest:
    """URL and static headers, checked and prepared by requests itself."""
    request = PreparedRequest()
    request.prepare(method="POST", url=url, headers={name: value for name, value in headers if value})
    request.headers["Content-Type"] = "application/json"
    return request


def _copy(template: PreparedRequest, headers: dict[str, Any]) -> PreparedRequest:
    """A copy with other headers, by their names in lower case: without the walk that requests makes for each."""
    request = PreparedRequest.__new__(PreparedRequest)
    request.__dict__.update(template.__dict__, hooks=default_hooks())
    request.headers = CaseInsensitiveDict.__new__(CaseInsensitiveDict)
    request.headers._store = OrderedDict(headers)  # noqa: SLF001
    return request


def copied(request: PreparedRequest) -> PreparedRequest:
    """A copy to send: headers, hooks and body may be changed on it; the cookies, which nobody changes, are shared."""
    if type(request.headers) is not CaseInsensitiveDict:  # a script may put in its place what it likes
        return request.copy()
    copy = _copy(request, request.headers._store)  # noqa: SLF001
    copy.hooks = request.hooks
    return copy


def without_credentials(request: PreparedRequest) -> PreparedRequest:
    """A copy that may be shown: every header that could hold a credential is masked."""
    headers = dict(request.headers._store)  # noqa: SLF001
    for low in headers.keys() - _SHOWN_HEADERS:
        headers[low] = (headers[low][0], "***")
    return _copy(request, headers)


def encode(body: Mapping[str, Any], target: Target) -> bytes:
    """A body as it is sent, naming the target's model.

    Raises:
        InvalidJSONError: It holds NaN or an infinity, which JSON does not know.
    """
    try:
        return codec.dumps({**body, "model": target.model})
    except ValueError as error:
        raise InvalidJSONError(error) from None
