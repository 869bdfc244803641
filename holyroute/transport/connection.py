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
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from urllib3 import connectionpool as stock
from urllib3.connection import _ResponseOptions
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family

from holyroute.transport import wire
from holyroute.transport.listeners import BOTTOM, nobody_listens
from holyroute.transport.response import Answer, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holyroute.core.cancel import CancelToken


class _UnderWay(threading.local):
    """What this thread is doing."""

    token: CancelToken | None = None
    on_resend: Callable[[], None] | None = None
    reused: bool = False  # whether the connection that it took last had been used before
    whole: bool = False  # whether the body of the answer is to be read at once
    broken: Any = None  # a connection that has failed on the short way, for urllib3 to deal with


UNDER_WAY = _UnderWay()


class owned_by:  # noqa: N801 - used as a function; a generator would cost more than what it does
    """Connections that this thread takes out of a pool in the block belong to the token."""

    __slots__ = ("_before", "_now")

    def __init__(self, token: CancelToken, on_resend: Callable[[], None] | None = None) -> None:
        self._now = token, on_resend

    def __enter__(self) -> None:
        self._before = UNDER_WAY.token, UNDER_WAY.on_resend
        UNDER_WAY.token, UNDER_WAY.on_resend = self._now

    def __exit__(self, *exc: object) -> None:
        UNDER_WAY.token, UNDER_WAY.on_resend = self._before


class Cuttable:
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
        self._owner = token  # without the lock: nobody else has it now, and a late cut finds another owner
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


IDLE, SENT = "Idle", "Request-sent"  # what http.client calls the states of a connection
OPENINGS = 64  # request lines that a connection remembers
Line = tuple[str, str, bool, bool]  # method, target, and whether the headers have a `Host` and an `Accept-Encoding`


class Quick:
    """Mixed into urllib3's connections: a plain request goes out in one piece, and a plain head is read in one.

    Everything else, and everything as long as somebody listens, goes the long way of urllib3 and http.client. Their
    states, checks and audit events are the same on both ways.
    """

    failure: BaseException | None = None  # what a request met on the short way
    _rest: wire.Rest | None = None  # what follows the request line that is being written
    _line: Line | None = None  # the request line that is being written
    _is_short = False  # the way of the request under way
    _reply: Reply | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._openings: dict[Line, bytes] = {}  # what http.client wrote on this connection
        super().__init__(*args, **kwargs)

    def opening(self, method: str, url: str, rest: wire.Rest) -> bytes | None:
        """How a request like this one began before; None: there was none, or the connection is not free.

        None as well where http.client is to print what goes on: it prints more on the long way.
        """
        conn: Any = self
        before, state = conn._HTTPConnection__response, conn._HTTPConnection__state  # noqa: SLF001 - as http.client does
        if conn.debuglevel or conn.sock is None or state != IDLE or not (before is None or before.isclosed()):
            return None
        return self._openings.get((method, url, rest.with_host, rest.with_encodings))

    def say(self, opening: bytes, method: str, rest: wire.Rest, options: _ResponseOptions) -> None:
        """Send a request that has been sent before, with other headers and another body."""
        conn: Any = self
        self._keep_time()
        self._is_short = True
        conn._response_options = options  # noqa: SLF001 - where urllib3 keeps them as well
        conn._method, conn._HTTPConnection__state = method, SENT  # noqa: SLF001 - as http.client leaves them
        conn._HTTPConnection__response = None  # noqa: SLF001
        BOTTOM.send(conn, opening + rest.data)

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, Any] | None = None,
        *,
        chunked: bool = False,
        preload_content: bool = True,
        **options: Any,
    ) -> None:
        """Send a request."""
        conn: Any = self
        rest = None
        if not (chunked or preload_content or method == "HEAD" or conn.proxy or conn.debuglevel) and nobody_listens():
            rest = wire.rest_of_request(headers or {}, body)
        self._rest, self._is_short = rest, rest is not None
        if rest is None:
            options |= {"chunked": chunked, "preload_content": preload_content}
            super().request(method, url, body, headers, **options)  # type: ignore[misc]
            return
        self._keep_time()
        conn._response_options = _ResponseOptions(  # noqa: SLF001 - where urllib3 keeps them as well
            request_method=method, request_url=url, preload_content=preload_content, **options
        )
        self._line = method, url, rest.with_host, rest.with_encodings
        conn.putrequest(method, url, skip_host=rest.with_host, skip_accept_encoding=rest.with_encodings)
        conn.endheaders()

    def send(self, data: Any) -> None:
        """Send bytes; to a request line, its rest is added."""
        rest, self._rest = self._rest, None
        if rest is None:
            super().send(data)  # type: ignore[misc]
            return
        opening = data[:-2]
        if self._line is not None and len(self._openings) < OPENINGS:
            self._openings[self._line] = opening
        super().send(opening + rest.data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        """Wait for the answer's head."""
        conn: Any = self
        unread = conn._HTTPConnection__response  # noqa: SLF001 - http.client refuses to go on over it
        if not self._is_short or unread is not None:
            return super().getresponse()  # type: ignore[misc]
        self._keep_time()
        if not self._look():
            return super().getresponse()  # type: ignore[misc]
        options, conn._response_options = conn._response_options, None  # noqa: SLF001 - as in `request`
        shutdown = conn.sock.shutdown
        return Answer.to(options, BOTTOM.getresponse(conn), sock_shutdown=shutdown)

    def _keep_time(self) -> None:
        conn: Any = self
        if conn.sock is not None and conn.sock.gettimeout() != conn.timeout:
            conn.sock.settimeout(conn.timeout)

    def _look(self) -> bool:
        conn: Any = self
        reply = Reply(conn.sock, method=conn._method)  # noqa: SLF001 - as http.client makes it
        try:
            is_plain = reply.look()
        except BaseException:
            reply.close()
            raise
        self._reply = reply
        return is_plain

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        """What http.client makes answers of: the one that was looked at already, if there is one."""
        reply, self._reply = self._reply, None
        return reply or super().response_class(sock, *args, **kwargs)  # type: ignore[misc]


# Named like urllib3's own, because their names stand in messages that people look for in logs.
class HTTPConnection(Cuttable, Quick, stock.HTTPConnection):  # type: ignore[name-defined,misc]
    """An http connection that its owner can cut."""


class HTTPSConnection(Cuttable, Quick, stock.HTTPSConnection):  # type: ignore[name-defined,misc]
    """An https connection that its owner can cut."""
