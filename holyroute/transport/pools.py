"""Pools that lend their connections to whoever is calling, and when a request may go out twice."""

from __future__ import annotations

from typing import Any

from requests.structures import CaseInsensitiveDict
from urllib3 import connectionpool as stock
from urllib3.exceptions import ProtocolError
from urllib3.util.retry import Retry

from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.transport.connection import UNDER_WAY, Cuttable, HTTPConnection, HTTPSConnection

IDLE_MAX = 30.0  # seconds; shorter than what servers and NATs grant an idle connection (AWS: 350 s)


class _Lending:
    """Mixed into urllib3's pools: connections belong to a token while they are out."""

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        """urllib3's; it copies the headers, which takes far less time for a plain dict than for that of requests."""
        headers = kwargs.get("headers")
        if isinstance(headers, CaseInsensitiveDict) and self.proxy is None:  # type: ignore[attr-defined]
            kwargs["headers"] = dict(headers.items())
        return super().urlopen(*args, **kwargs)  # type: ignore[misc]

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)  # type: ignore[misc]
        if isinstance(conn, Cuttable):
            if SYSTEM_CLOCK.now() - conn.idle_since > IDLE_MAX:
                conn.close()
            UNDER_WAY.reused = conn.sock is not None  # type: ignore[attr-defined]
            conn.take(UNDER_WAY.token)
        return conn

    def _put_conn(self, conn: Any) -> None:
        if isinstance(conn, Cuttable):
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
        token = UNDER_WAY.token
        cut = token is not None and token.cancelled
        if self.total and not cut and UNDER_WAY.reused and _was_closed(error):
            if (tell := UNDER_WAY.on_resend) is not None:
                tell()
            return ResendOnce(total=0)
        return Retry(0, read=False).increment(*args, **kwargs)


def _was_closed(error: Any) -> bool:
    """Whether a connection ended before a byte came back."""
    return isinstance(error, ProtocolError) and any(
        isinstance(cause, (ConnectionResetError, BrokenPipeError)) for cause in error.args
    )


class HTTPConnectionPool(_Lending, stock.HTTPConnectionPool):
    """A pool of connections that can be cut."""

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802 - urllib3's name
        """Ours; or what somebody put in the place of urllib3's, as vcrpy does."""
        current = stock.HTTPConnectionPool.ConnectionCls
        return HTTPConnection if current in HTTPConnection.__mro__ else current


class HTTPSConnectionPool(_Lending, stock.HTTPSConnectionPool):
    """The same over TLS."""

    @property
    def ConnectionCls(self) -> Any:  # type: ignore[override]  # noqa: N802
        """Ours; or what somebody put in the place of urllib3's, as vcrpy does."""
        current = stock.HTTPSConnectionPool.ConnectionCls
        return HTTPSConnection if current in HTTPSConnection.__mro__ else current
