"""Heads of requests and answers: written and read in one go where they are plain.

What is unusual in any way is `None` here, and left to urllib3 and http.client: they judge it, refuse it or read it, and
their exceptions are the ones that people know. So nothing is accepted here that they would not accept.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from urllib3.util.request import SKIP_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES = re.compile("[!-9;-~]+(?::[!-9;-~]+)*").fullmatch  # visible ASCII without the colon
_NEEDED = frozenset({"content-length", "user-agent"})  # urllib3 adds what is missing
_UNUSUAL = frozenset({"transfer-encoding", "expect"})

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([2-9][0-9]{2})(?: ([^\r\n]*))?\r\n").match
_FIELDS = re.compile(r"^([!-9;-~]+):[ \t]*([^\r\n]*)\r$", re.MULTILINE).findall
_LENGTH = re.compile("[0-9]{1,15}").fullmatch
_COMPOUND = re.compile("multipart|message", re.IGNORECASE).search  # the parser of e-mail looks for parts in these
_MOST_FIELDS = 90  # http.client takes a hundred lines
_NO_BODY = frozenset({204, 304})
CHUNKED = -1


class Rest(NamedTuple):
    """What follows the request line. A tuple: one is made for every request."""

    data: bytes  # headers and body
    with_host: bool  # it has a `Host` of its own
    with_encodings: bool  # and an `Accept-Encoding`


class Head(NamedTuple):
    """The head of an answer that has a body of known framing. A tuple: one is made for every answer."""

    size: int  # bytes, with the empty line
    status: int
    reason: str
    pairs: list[tuple[str, str]]
    fields: dict[str, list[str]]  # by lower-case name: the name as it came first, then each value
    length: int  # of the body, in bytes; or CHUNKED
    will_close: bool


def rest_of_request(headers: Mapping[str, Any], body: Any) -> Rest | None:
    """Headers and body of a request as they go out, if they are plain: all text, one line each, length given."""
    if body is not None and not isinstance(body, (bytes, str)):
        return None
    try:
        names = _checked(":".join(headers), len(headers))
        text = "\r\n".join(map(": ".join, headers.items()))
        data = text.encode("latin-1")
        content = body.encode() if isinstance(body, str) else body or b""
    except (TypeError, UnicodeEncodeError):
        return None
    breaks = len(headers) - 1
    if names is None or text.count("\r") != breaks or text.count("\n") != breaks:
        return None
    if SKIP_HEADER in text:
        return None
    return Rest(b"%b\r\n\r\n%b" % (data, content), "host" in names, "accept-encoding" in names)


@lru_cache(maxsize=64)
def _checked(joined: str, count: int) -> frozenset[str] | None:
    """Lower-case names of headers joined with colons, if each is plain; a script sends the same ones often."""
    if not _NAMES(joined) or joined.count(":") != count - 1:
        return None
    names = frozenset(joined.lower().split(":"))
    return names if names >= _NEEDED and not names & _UNUSUAL else None


def head_of_answer(data: bytes) -> Head | None:
    """The head that bytes begin with, if it is whole and plain: HTTP/1.1, one line per header, one way of framing."""
    end = data.find(b"\r\n\r\n") + 2
    text = data[:end].decode("latin-1")
    start = _STATUS_LINE(text)
    if start is None:
        return None
    pairs = _FIELDS(text, start.end())
    if len(pairs) != text.count("\n") - 1 or len(pairs) > _MOST_FIELDS:
        return None
    fields = {name.lower(): [name, value] for name, value in pairs}
    if len(fields) < len(pairs):
        fields = _merged(pairs)
    status = int(start[1])
    length = _length(fields)
    if length is None or status in _NO_BODY or _COMPOUND(fields.get("content-type", ("", ""))[1]):
        return None
    will_close = "close" in fields.get("connection", ("", ""))[1].lower()
    return Head(end + 2, status, (start[2] or "").strip(), pairs, fields, length, will_close)


def _merged(pairs: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Headers of which some came more than once."""
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name.lower(), [name]).append(value)
    return fields


def _length(fields: dict[str, list[str]]) -> int | None:
    """Bytes of the body, or CHUNKED; None where the headers do not say one thing once."""
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if coding is not None:
        return CHUNKED if length is None and len(coding) == 2 and coding[1].lower() == "chunked" else None
    if length is None or len(length) != 2 or not _LENGTH(length[1]):
        return None
    return int(length[1])
