"""Pools that lend their connections to whoever is calling, and when a request may go out twice."""

from __future__ import annotations

import errno
import queue
from typing import Any

from requests.structures import CaseInsensitiveDict
from urllib3 import connectionpool as stock
from urllib3.connection import _ResponseOptions
from urllib3.exceptions import ProtocolError
from urllib3.util.retry import Retry
from urllib3.util.timeout import Timeout

from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.transport import wire
from holyroute.transport.connection import UNDER_WAY, Cuttable, HTTPConnection, HTTPSConnection, Quick
from holyroute.transport.listeners import nobody_listens

IDLE_MAX = 30.0  # seconds; shorter than what servers and NATs grant an idle connection (AWS: 350 s)

_TAKEN = {errno.EPROTOTYPE, errno.ECONNRESET}  # while sending: the server may have answered before it closed

# What requests' adapter asks for, beside what differs from request to request.
_USUAL = {
    "redirect": False,
    "assert_same_host": False,
    "preload_content": False,
    "decode_content": False,
    "chunked": False,
}
_OTHERS = {"method", "url", "body", "headers", "retries", "timeout"}


class _Stack(queue.LifoQueue[Any]):
    """A pool that nobody waits for: taking and putting back are one step each, which needs no lock in CPython."""

    def get(self, block: bool = False, timeout: float | None = None) -> Any:
        """What was put there last."""
        del block, timeout
        try:
            return self.queue.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, item: Any, block: bool = False, timeout: float | None = None) -> None:
        """Keep something, if there is room."""
        del block, timeout
        if len(self.queue) >= self.maxsize > 0:
            raise queue.Full
        self.queue.append(item)


class _Lending:
    """Mixed into urllib3's pools: connections belong to a token while they are out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if len(args) < 5 and not kwargs.get("block"):  # the fifth is `block`: somebody may wait then
            self.QueueCls = _Stack
        super().__init__(*args, **kwargs)

    def urlopen(self, *args: Any, **kwargs: Any) -> Any:
        """urllib3's; what requests asks over a connection that was used before takes a shortcut."""
        UNDER_WAY.broken = None  # an interrupt may have left one
        headers = kwargs.get("headers")
        if isinstance(headers, CaseInsensitiveDict) and self.proxy is None:  # type: ignore[attr-defined]
            # urllib3 copies the headers, which takes far less time for a plain dict than for that of requests
            plain = type(headers) is CaseInsensitiveDict
            kwargs["headers"] = dict(headers._store.values() if plain else headers.items())  # noqa: SLF001
            if not args and kwargs.keys() == _OTHERS | _USUAL.keys() and (answer := self._ask(kwargs)) is not None:
                return answer
        return super().urlopen(*args, **kwargs)  # type: ignore[misc]

    def _ask(self, asked: dict[str, Any]) -> Any:
        """The answer to a plain request; None for the long way, where urllib3 also deals with what has failed here."""
        pool: Any = self
        if not (asked.items() >= _USUAL.items() and type(asked["retries"]) is ResendOnce and nobody_listens()):
            return None
        rest = wire.rest_of_request(asked["headers"], asked["body"])
        if rest is None or pool.block or asked["timeout"].total is not None:
            return None
        conn = self._get_conn()
        opening = conn.opening(asked["method"], asked["url"], rest) if isinstance(conn, Quick) else None
        if opening is None:
            self._put_conn(conn)
            return None
        pool.num_requests += 1
        try:
            return self._exchange(conn, opening, rest, asked)
        except BaseException as failure:  # noqa: BLE001 - raised again by `_make_request`
            conn.failure, UNDER_WAY.broken = failure, conn
            return None

    def _exchange(self, conn: Any, opening: bytes, rest: wire.Rest, asked: dict[str, Any]) -> Any:
        """Send and wait for the head of the answer, as urllib3's `_make_request` does."""
        pool: Any = self
        method, url, timeout = asked["method"], asked["url"], asked["timeout"]
        pool._validate_conn(conn)  # noqa: SLF001 - warns where certificates are not verified
        conn.timeout = Timeout.resolve_default_timeout(timeout.connect_timeout)
        try:
            conn.say(opening, method, rest, _ResponseOptions(method, url, False, False, True))
        except OSError as error:
            if not isinstance(error, BrokenPipeError) and error.errno not in _TAKEN:
                raise
        conn.timeout = timeout.read_timeout
        try:
            answer = conn.getresponse()
        except OSError as error:  # of TLS, too
            pool._raise_timeout(error, url, conn.timeout)  # noqa: SLF001
            raise
        answer.retries, answer._connection, answer._pool = asked["retries"], conn, self  # noqa: SLF001
        told = (pool.scheme, pool.host, pool.port, method, url, answer.version_string, answer.status)
        stock.log.debug('%s://%s:%s "%s %s %s" %s %s', *told, answer.length_remaining)
        return answer

    def _make_request(self, conn: Any, *args: Any, **kwargs: Any) -> Any:
        failure = getattr(conn, "failure", None)
        if failure is not None:
            conn.failure = None
            raise failure
        return super()._make_request(conn, *args, **kwargs)  # type: ignore[misc]

    def _get_conn(self, timeout: float | None = None) -> Any:
        broken, UNDER_WAY.broken = UNDER_WAY.broken, None
        if broken is not None:
            return broken
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
