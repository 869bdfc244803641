"""Whether somebody listens in on http.client or urllib3.

Sentry, ddtrace, New Relic and others replace methods of their connections. A request that takes a shortcut past such a
method would be missed, so as long as one of them is replaced every request goes the long way.
"""

from __future__ import annotations

import http.client
from operator import attrgetter, is_
from types import FunctionType
from typing import Any

from urllib3 import connection, connectionpool, response

# Not by way of their own modules, into which vcrpy puts others while it plays.
from urllib3.connectionpool import HTTPConnection, HTTPSConnection  # type: ignore[attr-defined]

HTTPConnectionPool, HTTPSConnectionPool = connectionpool.HTTPConnectionPool, connectionpool.HTTPSConnectionPool

BOTTOM: Any = HTTPConnection.__base__  # http.client's

_METHODS = attrgetter("putrequest", "putheader", "endheaders", "request", "send", "getresponse")
_OF_POOLS = attrgetter("urlopen", "_make_request")
_HOMES = [vars(module) for module in (http.client, connection, connectionpool, response)]

_judged: tuple[tuple[Any, ...], bool] = ((None,), False)  # the methods that were looked at last, and the verdict


def nobody_listens() -> bool:
    """Whether the methods that a shortcut passes by are those that their modules came with; asked for every request."""
    global _judged  # noqa: PLW0603 - a pair, exchanged as a whole
    methods = (
        *_METHODS(BOTTOM),
        *_METHODS(HTTPSConnection),  # its own, or inherited from urllib3's HTTPConnection
        *_OF_POOLS(HTTPConnectionPool),
        *_OF_POOLS(HTTPSConnectionPool),
        http.client.HTTPResponse.begin,
        http.client.parse_headers,
        response.HTTPResponse.read,
    )
    seen, verdict = _judged
    if not all(map(is_, methods, seen)):  # not by `==`: a wrapper of wrapt's is equal to what it wraps
        verdict = all(map(_is_original, methods))
        _judged = methods, verdict
    return verdict


def _is_original(method: Any) -> bool:
    """Where a function was written: right also if it was replaced before this module was imported.

    The type comes first, because wrapt's wrappers show the attributes of what they wrap.
    """
    return type(method) is FunctionType and any(method.__globals__ is home for home in _HOMES)
