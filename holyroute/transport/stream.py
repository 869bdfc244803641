"""A streamed body that is read along with: held back until something was said, watched until its end."""

from __future__ import annotations

import io
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from requests.exceptions import ChunkedEncodingError, ConnectionError, ContentDecodingError  # noqa: A004 - requests' name
from urllib3.exceptions import DecodeError, HTTPError, ProtocolError, ReadTimeoutError

from holyroute.core.cancel import LATE
from holyroute.core.classify import is_stream
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.core.stream import BrokenStream, How
from holyroute.transport.adapter import cutting
from holyroute.transport.watchdog import WATCHDOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests import Response

    from holyroute.core.cancel import CancelToken
    from holyroute.core.stream import StreamReader

TRAILING = 5.0  # seconds that a finished stream may take to say what it cost, and that it is over
PIECE = 65_536  # bytes at most of one read
MASK = b"***"  # in the place of a key


class Patience(Protocol):
    """How long an attempt may take. Seconds from its start."""

    @property
    def first_byte(self) -> float:
        """Until anything comes behind the headers of a stream, be it a comment."""

    @property
    def limit(self) -> float:
        """Until the last byte; of a stream, until something of the answer has come."""

    @property
    def until(self) -> float:
        """Until the end of a stream."""


class Attempt(Protocol):
    """What is to be known of an attempt here."""

    @property
    def token(self) -> CancelToken:
        """Ends it from another thread."""

    @property
    def patience(self) -> Patience:
        """Its time."""

    @property
    def reader(self) -> StreamReader | None:
        """Reads along, if the caller wants a stream."""

    @property
    def secret(self) -> bytes:
        """What the answer may not repeat to the caller; empty for nothing."""

    def note_resend(self) -> None:
        """The request went out twice."""


def timed(attempt: Attempt, send: Callable[[], Response]) -> Response:
    """Send, within the time of an attempt; a stream comes back when it has begun to say something, or is over.

    Everything else that answers a call for a stream is read to its end, so that the connection serves the next attempt.

    Raises:
        RequestException: as requests does.
    """
    patience, reader, sent = attempt.patience, attempt.reader, SYSTEM_CLOCK.now()
    limit = patience.limit if reader is None else min(patience.limit, patience.first_byte)
    with cutting(attempt.token, limit, attempt.note_resend):
        response = send()
        if reader is None or not _streams(response):
            _ = response.content
            return response
    body = StreamBody(response.raw, reader, attempt.token, sent + patience.until, attempt.secret)
    response.raw = body
    try:
        body.hold(sent + patience.first_byte, sent + patience.limit)
    except ProtocolError as error:
        raise ChunkedEncodingError(error, request=response.request) from error
    except DecodeError as error:
        raise ContentDecodingError(error, request=response.request) from error
    except HTTPError as error:
        raise ConnectionError(error, request=response.request) from error
    return response


def _streams(response: Response) -> bool:
    """Whether there is a stream to read along with: none where a session of the user's has read it already."""
    is_read = response._content_consumed  # noqa: SLF001 - as requests itself asks
    return response.status_code == 200 and is_stream(response) and hasattr(response.raw, "read1") and not is_read


class StreamBody(io.RawIOBase):
    """Stands in the place of `Response.raw`.

    Whatever reads it gets what the server sent, as it comes. An end before the end is a `ProtocolError`, as a broken
    connection is, so that requests raises what it raises for one. A compressed body is decoded however it is read.

    Args:
        raw: urllib3's response, of which nothing was read.
        reader: knows what has come.
        token: cuts the connection when it is cancelled.
        until: when the stream has to be over, on the monotonic clock.
        secret: a key of ours, which some providers repeat when they complain: the reader gets a mask in its place.
    """

    auto_close = True

    def __init__(self, raw: Any, reader: StreamReader, token: CancelToken, until: float, secret: bytes = b"") -> None:
        super().__init__()
        self._raw = raw
        self._reader = reader
        reader.followed = True
        self._token = token
        self._until = until
        self._watch = WATCHDOG.watching(token, until)
        self._watch.__enter__()
        self._pieces = _pieces(raw)
        self._ahead: deque[bytes] = deque()  # taken from the server, and not yet by the caller
        self._over = False
        self._error: Exception | None = None
        self._left = False
        self._data: bytes | None = None
        self._secret = secret
        self._tail = b""  # what may be the beginning of the secret waits for the next piece

    def hold(self, first_byte: float, limit: float) -> None:
        """Read until something of the answer has come, or all of it; times are monotonic.

        Raises:
            HTTPError: urllib3's, for whatever ended the stream before.
        """
        self._watch_until(min(first_byte, limit, self._until))
        while not self._over and not self._reader.begun:
            if piece := self._pull():
                self._ahead.append(piece)
            if not self._reader.finished:
                self._watch_until(min(limit, self._until))
        if self._error is not None and self._reader.fault is None:
            raise self._error
        if not self._over and not self._reader.finished:
            self._watch_until(self._until)

    def _pull(self) -> bytes:
        """The next bytes for the caller; may be empty. Sets `_over` at the end, and `_error` if it came too early."""
        data = b""
        try:
            data = next(self._pieces, b"")
            piece = self._masked(self._reader.feed(data) if data else self._reader.end(), last=not data)
        except (HTTPError, OSError, ValueError) as error:
            self._broken(error)
            return self._masked(b"", last=True)
        if self._reader.fault is not None:  # the caller may see what broke it, and then that it broke
            piece += self._masked(b"", last=True)
            self._broken(BrokenStream(self._reader.fault.reason))  # the provider's own words may repeat a key
        elif not data:
            self._finish(None)
        elif self._reader.finished:
            self._watch_until(min(self._watch.at, SYSTEM_CLOCK.now() + TRAILING))
        return piece

    def _masked(self, piece: bytes, *, last: bool) -> bytes:
        if not self._secret:
            return piece
        piece = (self._tail + piece).replace(self._secret, MASK)
        begun = 0 if last else next(n for n in range(len(self._secret) - 1, -1, -1) if piece.endswith(self._secret[:n]))
        whole = len(piece) - begun
        self._tail = piece[whole:]
        return piece[:whole]

    def _broken(self, error: Exception) -> None:
        """The stream ended by itself, by us, or by a fault."""
        if self._reader.finished:  # all was said; what is missing is only the farewell
            self._finish(None)
        elif self._token.cancelled and self._token.reason == LATE:
            self._finish(ReadTimeoutError(None, "", "Read timed out."))  # type: ignore[arg-type]
        elif isinstance(error, HTTPError):
            self._finish(error)
        else:
            self._finish(ProtocolError(f"Connection broken: {error}", error))

    def _finish(self, error: Exception | None, how: How = How.READ) -> None:
        """Over, once; the connection is back in its pool if the body was read to its end, else it is closed."""
        if self._over:
            self._error = self._error or error  # another thread has left, and this one was still reading
            return
        self._over, self._error = True, error
        self._reader.over = True
        self._watch.__exit__()
        with suppress(HTTPError, OSError):
            self._raw.close()
            self._raw.release_conn()
        if self._reader.on_end is not None:
            self._reader.on_end(error, how)

    def _watch_until(self, at: float) -> None:
        if self._watch.at != at:
            self._watch.__exit__()
            self._watch = WATCHDOG.watching(self._token, at)
            self._watch.__enter__()

    def _next(self, size: int | None) -> bytes:
        """At most `size` bytes, as soon as there are any; empty at the end, which may be an error."""
        if self._left:
            return b""
        while not self._ahead and not self._over:
            if piece := self._pull():
                self._ahead.append(piece)
        if not self._ahead:
            if self._error is not None:
                raise self._error
            return b""
        piece = self._ahead.popleft()
        if size is not None and len(piece) > size:
            self._ahead.appendleft(piece[size:])
            piece = piece[:size]
        return piece

    def stream(self, amt: int | None = PIECE, decode_content: bool | None = None) -> Iterator[bytes]:
        """Piece after piece, of at most `amt` bytes."""
        del decode_content
        while piece := self._next(amt):
            yield piece

    read_chunked = stream

    @property
    def data(self) -> bytes:
        """All that is left; the same however often it is asked for."""
        if self._data is None:
            self._data = self.read()
        return self._data

    def read(self, amt: int | None = None, decode_content: bool | None = None, **_: Any) -> bytes:
        """All that is left, or exactly `amt` bytes unless it ends before."""
        del decode_content
        wanted = None if amt is None or amt < 0 else amt
        found = bytearray()
        while (wanted is None or len(found) < wanted) and (
            piece := self._next(None if wanted is None else wanted - len(found))
        ):
            found += piece
        return bytes(found)

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """What has come, at most `amt` bytes."""
        del decode_content
        return self._next(amt)

    def readinto(self, buffer: Any) -> int:
        """As `read1`, into a buffer."""
        piece = self._next(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def fileno(self) -> int:
        """Of the connection."""
        return int(self._raw.fileno())

    def tell(self) -> int:
        """Bytes that came over the wire so far."""
        return int(self._raw.tell())

    def __iter__(self) -> Iterator[bytes]:
        """Line after line; nothing once all was read, where a file would say that it is closed."""
        while line := b"" if self.closed else self.readline():
            yield line

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    @property
    def closed(self) -> bool:
        """As urllib3 has it: also when all was read, unless `auto_close` is off."""
        return self._left or (self.auto_close and self._over and not self._ahead)

    def close(self) -> None:
        """Leave the rest; the connection is closed unless all was read."""
        self._left = True
        self._finish(None, How.LEFT)

    def __del__(self) -> None:
        if not self._over:  # called at any moment, also while this thread holds a lock: nothing may be settled here
            self._over = True
            self._watch.token = None
            if self._reader.on_end is not None:
                self._reader.on_end(None, How.FORGOTTEN)

    def drain_conn(self) -> None:
        """Read and forget the rest."""
        with suppress(HTTPError):
            self.read()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name != "_original_response":
            raise AttributeError(name)
        return getattr(self._raw, name)


def _pieces(raw: Any) -> Iterator[bytes]:
    """What has come, however little: a stream should not wait for its next piece.

    Knows nothing of the body that reads it: one that is lost is to end at once, not when cycles are collected.
    """
    if getattr(raw, "chunked", False) and raw.supports_chunked_reads():
        yield from raw.read_chunked(PIECE, decode_content=True)
    else:
        while piece := raw.read1(PIECE, decode_content=True):
            yield piece
