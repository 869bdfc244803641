"""Connections that can be cut from another thread.

Closing a session, a connection or its socket does not wake a thread that is blocked on it; `shutdown` on a duplicate
of the socket does, in every phase after name resolution and under TLS. The duplicate is made before TLS is wrapped
around the socket, because a wrapped one cannot be duplicated, and before `connect`, so that connecting can be cut too.

Who may cut is settled by ownership: a connection belongs to a token from the moment it is taken out of the pool until
just before it goes back. A cancel that comes late finds that it is no longer the owner, and kills nobody else's call.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from urllib3 import connection as stock
from urllib3 import connectionpool as stock_pools
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ProtocolError
from urllib3.util.connection import allowed_gai_family
from urllib3.util.retry import Retry

from holyroute.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.core.cancel import CancelToken

_STOCK_HTTP = stock.HTTPConnection
_STOCK_HTTPS = stock.HTTPSConnection
_under_way = threading.local()

IDLE_MAX = 30.0  # seconds; shorter than what servers and NATs grant an idle connection (AWS: 350 s)


@contextmanager
def owned_by(token: CancelToken, on_resend: Callable[[], None] | None = None) -> Iterator[None]:
    """Connections that this thread takes out of a pool in the block belong to the token."""
    before = getattr(_under_way, "token", None), getattr(_under_way, "on_resend", None)
    _under_way.token, _under_way.on_resend = token, on_resend
    try:
        yield
    finally:
        _under_way.token, _under_way.on_resend = before


class _Cuttable:
    """Mixed into urllib3's connections."""

    _owner: CancelToken | None = None
    _duplicate: socket.socket | None = None
    _handing_over = False
    idle_since: float = float("inf")  # monotonic seconds; it has not been idle yet

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._ownership = threading.RLock()  # a signal handler may cancel while it is held
        super().__init__(*args, **kwargs)

    def take(self, token: CancelToken | None) -> None:
        """Belong to a token; if it is cancelled already, the connection is cut as soon as there is one."""
        with self._ownership:
            self._owner = token
        if token is not None:
            token.on_cancel(self._cut)

    def release(self) -> None:
        """Belong to nobody, before anybody else can see the connection."""
        with self._ownership:
            token, self._owner = self._owner, None
            if self.sock is None:  # type: ignore[attr-defined]
                self._close_duplicate()
        if token is not None:
            token.forget(self._cut)

    def _cut(self) -> None:
        with self._ownership:
            if self._owner is not None and self._owner.cancelled and self._duplicate is not None:
                with suppress(OSError):
                    self._duplicate.shutdown(socket.SHUT_RDWR)

    def _register(self, sock: socket.socket) -> None:
        with self._ownership:
            self._close_duplicate()
            self._duplicate = sock.dup()
        self._cut()

    def _close_duplicate(self) -> None:
        duplicate, self._duplicate = self._duplicate, None
        if duplicate is not None:
            duplicate.close()

    def close(self) -> None:
        """Close the connection and the duplicate of its socket."""
        super().close()  # type: ignore[misc]
        if not self._handing_over:
            with self._ownership:
                self._close_duplicate()

    def getresponse(self) -> Any:
        """After `Connection: close` http.client closes the connection here, while the body is still to be read."""
        self._handing_over = True
        try:
            return super().getresponse()  # type: ignore[misc]
        finally:
            self._handing_over = False

    def _new_conn(self) -> socket.socket:
        """As urllib3's own, with the socket registered before it connects."""
        conn: Any = self
        try:
            sock = self._connect(conn._dns_host, conn.port)  # noqa: SLF001 - our own base class
        except (socket.gaierror, UnicodeError) as error:  # UnicodeError: no name of any host
            raise NameResolutionError(conn.host, conn, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            text = f"Connection to {conn.host} timed out. (connect timeout={conn.timeout})"
            raise ConnectTimeoutError(conn, text) from error
        except OSError as error:
            raise NewConnectionError(conn, f"Failed to establish a new connection: {error}") from error
        sys.audit("http.client.connect", conn, conn.host, conn.port)
        return sock

    def _connect(self, host: str, port: int) -> socket.socket:
        """Try one address after the other, each with the whole connect timeout, as urllib3 does."""
        failure: OSError = OSError("getaddrinfo returns an empty list")
        for address in socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM):
            sock: socket.socket | None = None
            try:
                sock = socket.socket(*address[:3])
                self._prepare(sock)
                self._register(sock)
                sock.connect(address[4])
            except OSError as error:
                if sock is not None:
                    sock.close()
                failure = error
                if self._owner is not None and self._owner.cancelled:
                    break
            else:
                return sock
        raise failure

    def _prepare(self, sock: socket.socket) -> None:
        conn: Any = self
        for option in conn.socket_options or ():
            sock.setsockopt(*option)
        if conn.timeout is None or isinstance(
            conn.timeout, (int, float)
        ):  # else urllib3's mark for the system's default
            sock.settimeout(conn.timeout)
        if conn.source_address:
            sock.bind(conn.source_address)


# Named like urllib3's own, because their names stand in messages that people look for in logs.
class HTTPConnection(_Cuttable, stock.HTTPConnection):
    """An http connection that its owner can cut."""


class HTTPSConnection(_Cuttable, stock.HTTPSConnection):
    """An https connection that its owner can cut."""


class _Lending:
    """Mixed into urllib3's pools: connections belong to a token while they are out."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)  # type: ignore[misc]
        if isinstance(conn, _Cuttable):
            if SYSTEM_CLOCK.now() - conn.idle_since > IDLE_MAX:
                conn.close()
            _under_way.reused = conn.sock is not None  # type: ignore[attr-defined]
            conn.take(getattr(_under_way, "token", None))
        return conn

    def _put_conn(self, conn: Any) -> None:
        if isinstance(conn, _Cuttable):
            conn.release()
            conn.idle_since = SYSTEM_CLOCK.now()
        super()._put_conn(conn)  # type: ignore[misc]


class ResendOnce(Retry):
    """Retries of a routed attempt: none, but for a keep-alive connection that the server had closed already.

    Servers and NATs drop idle connections; whoever uses one next gets a reset, or an end without a byte, and the
    request was never seen. urllib3 does not send a POST again; here it goes out once more, on another connection,
    unseen by the circuit breaker (gRPC calls this a transparent retry), but not by the trace and the ledger: a provider
    that did see it may bill both. A fresh connection that dies is a fault, and is not retried.
    """

    def __init__(self, total: int = 1, **kwargs: Any) -> None:
        super().__init__(total=total, **{**kwargs, "read": False, "respect_retry_after_header": False})

    def increment(self, *args: Any, **kwargs: Any) -> Any:
        """Count a failure: raises it, unless the request may go out once more."""
        error = kwargs.get("error")
        token = getattr(_under_way, "token", None)
        cut = token is not None and token.cancelled
        if self.total and not cut and getattr(_under_way, "reused", False) and _was_closed(error):
            if (tell := getattr(_under_way, "on_resend", None)) is not None:
                tell()
            return ResendOnce(total=0)
        return Retry(0, read=False).increment(*args, **kwargs)


def _was_closed(error: Any) -> bool:
    """Whether a connection ended before a byte came back."""
    return isinstance(error, ProtocolError) and any(
        isinstance(cause, (ConnectionResetError, BrokenPipeError)) for cause in error.args
    )


class HTTPConnectionPool(_Lending, stock_pools.HTTPConnectionPool):
    """A pool of connections that can be cut."""

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - urllib3's name
        """Ours; or what somebody put in the place of urllib3's, as vcrpy does."""
        current = stock_pools.HTTPConnectionPool.ConnectionCls
        return HTTPConnection if current is _STOCK_HTTP else current


class HTTPSConnectionPool(_Lending, stock_pools.HTTPSConnectionPool):
    """The same over TLS."""

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802
        """Ours; or what somebody put in the place of urllib3's, as vcrpy does."""
        current = stock_pools.HTTPSConnectionPool.ConnectionCls
        return HTTPSConnection if current is _STOCK_HTTPS else current
