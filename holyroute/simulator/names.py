"""Invented host names inside this process, and their disappearance."""

from __future__ import annotations

import socket
import threading
from typing import Any, Self

from holyroute.simulator.server import HOST


class Names:
    """Makes invented host names resolve to 127.0.0.1 inside this process, until the block ends.

    >>> with Names("gateway.example-a.test") as names:
    ...     names.fail("gateway.example-a.test")      # now it raises what the system resolver raises for unknown names
    ...     names.restore("gateway.example-a.test")

    It wraps `socket.getaddrinfo`, through which requests and urllib3 resolve; all other names go to the resolver which
    was there before. May be nested, and used from several threads.
    """

    def __init__(self, *hosts: str) -> None:
        self._lock = threading.Lock()
        self._resolves = {_key(host): True for host in hosts}
        self._before: Any = None
        self._mine: Any = None

    def add(self, host: str) -> None:
        """Make a name resolve to 127.0.0.1."""
        with self._lock:
            self._resolves[_key(host)] = True

    restore = add

    def fail(self, host: str) -> None:
        """Make a name fail to resolve."""
        with self._lock:
            self._resolves[_key(host)] = False

    def __enter__(self) -> Self:
        if self._mine is not None:
            raise RuntimeError("these names are in force already")
        self._before = before = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            known = self._lookup(host)
            if known is False:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return before(HOST if known else host, *args, **kwargs)

        self._mine = socket.getaddrinfo = getaddrinfo
        return self

    def __exit__(self, *_: object) -> None:
        # Somebody may have wrapped the resolver after us: then ours stays in the chain and hands every name on.
        if socket.getaddrinfo is self._mine:
            socket.getaddrinfo = self._before
        self._mine = None

    def _lookup(self, host: object) -> bool | None:
        if self._mine is None or not isinstance(host, str | bytes):
            return None
        with self._lock:
            return self._resolves.get(_key(host))


def _key(host: str | bytes) -> str:
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    return text.lower().rstrip(".")
