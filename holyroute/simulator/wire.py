"""HTTP/1.1 on one raw socket: reading requests, and full control over every byte and every way to end a connection."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from holyroute.core.clock import Clock

_RECEIVE = 65_536
_LONGEST_HEAD = 65_536
_GLANCE = 0.02
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class GoneError(ConnectionError):
    """The connection was ended while somebody was still answering on it."""


class MalformedRequestError(ValueError):
    """What arrived is no HTTP request."""


class Headers(Mapping[str, str]):
    """Header lines as they arrived: a case-insensitive mapping to the first value of a name; `pairs` has them all."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: tuple[tuple[str, str], ...] = ()) -> None:
        self.pairs = pairs

    def __getitem__(self, name: str) -> str:
        wanted = name.lower()
        for key, value in self.pairs:
            if key.lower() == wanted:
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.lower() for key, _ in self.pairs))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Headers({self.pairs!r})"


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole. `path` keeps its query; `json` is None when the body is no JSON."""

    method: str
    path: str
    headers: Headers
    body: bytes
    json: Any
    keep_alive: bool

    @property
    def stream(self) -> bool:
        """Whether a stream of events is asked for."""
        return isinstance(self.json, dict) and self.json.get("stream") is True


class Connection:
    """One accepted connection, used by one thread; only `interrupt()` may be called from others.

    `open` turns false when the connection was ended from this side; `keep_alive` says whether another request may
    follow the current answer.
    """

    def __init__(self, sock: socket.socket, number: int, clock: Clock) -> None:
        self.number = number
        self.open = True
        self.keep_alive = True
        self._socket = sock
        self._clock = clock
        self._buffer = bytearray()
        self._interrupted = threading.Event()

    def read_request(self) -> Request | None:
        """The next request, or None when the client is done.

        Raises:
            MalformedRequestError: when the bytes are no HTTP request.
        """
        end = self._receive_until(b"\r\n\r\n")
        if end is None:
            return None
        lines = self._take(end + 4)[:-4].decode("latin-1").split("\r\n")
        method, target, version = _request_line(lines[0])
        headers = Headers(tuple(_header(line) for line in lines[1:]))
        body = self._read_body(headers)
        if body is None:
            return None
        asked = headers.get("Connection", "").lower()
        keep_alive = asked == "keep-alive" if version == "HTTP/1.0" else asked != "close"
        return Request(method, _origin_form(target), headers, body, _json(body), keep_alive)

    def send(self, data: bytes) -> None:
        """Send all bytes; raises OSError when the client is gone."""
        self._socket.sendall(data)

    def wait(self, seconds: float) -> None:
        """Let time pass; raises GoneError at once when the connection is interrupted meanwhile.

        Real time is waited for here, so that it can be cut short; a clock with a `sleep()` of its own is left to it.
        """
        if type(self._clock).sleep is not Clock.sleep:
            self._clock.sleep(seconds)
        elif seconds > 0:
            self._interrupted.wait(seconds)
        if self._interrupted.is_set():
            raise GoneError("interrupted")

    def wait_for(self, event: threading.Event) -> None:
        """Wait until an event is set; raises GoneError when the connection is interrupted meanwhile."""
        while not event.wait(_GLANCE):
            self.wait(0)
        self.wait(0)

    def wait_for_more(self) -> None:
        """Return when the client sends something, or leaves."""
        if not self._buffer:
            self._receive()

    def wait_for_client(self) -> None:
        """Return when the client gives up, or when the connection is interrupted; whatever it still sends is lost."""
        with suppress(OSError):
            while self._socket.recv(_RECEIVE):
                pass

    def hang_up(self) -> None:
        """End the connection in the ordinary way (FIN)."""
        self.open = False
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def reset(self) -> None:
        """End the connection as a crashing server does (RST)."""
        self.open = False
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()

    def interrupt(self) -> None:
        """End the connection from another thread: the client sees FIN, the answering thread wakes up."""
        self._interrupted.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _receive_until(self, mark: bytes) -> int | None:
        """Where `mark` starts in the buffer; None when the client left first."""
        while (found := self._buffer.find(mark)) < 0:
            if len(self._buffer) > _LONGEST_HEAD:
                raise MalformedRequestError("the header is too long")
            if not self._receive():
                return None
        return found

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(_RECEIVE)
        except OSError:
            return False
        self._buffer += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _read_body(self, headers: Headers) -> bytes | None:
        if headers.get("Expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("Transfer-Encoding", "").lower():
            return self._read_chunks()
        return self._read_exactly(_number(headers.get("Content-Length", "0"), 10))

    def _read_exactly(self, size: int) -> bytes | None:
        while len(self._buffer) < size:
            if not self._receive():
                return None
        return self._take(size)

    def _read_chunks(self) -> bytes | None:
        body = bytearray()
        while (end := self._receive_until(b"\r\n")) is not None:
            size = _number(self._take(end + 2).split(b";")[0].decode("latin-1"), 16)
            chunk = self._read_exactly(size + 2)
            if chunk is None or size == 0:
                return None if chunk is None else bytes(body)
            body += chunk[:-2]
        return None


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise MalformedRequestError(f"no request line: {line[:80]!r}")
    return parts[0], parts[1], parts[2]


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()


def _origin_form(target: str) -> str:
    """The path and query, also of the absolute form which a client sends to a proxy (RFC 9112 §3.2.2)."""
    if target.startswith("/"):
        return target
    parts = urlsplit(target)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def _number(text: str, base: int) -> int:
    try:
        number = int(text.strip(), base)
    except ValueError:
        number = -1
    if number < 0:
        raise MalformedRequestError(f"no length: {text[:80]!r}")
    return number


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except (ValueError, RecursionError):
        return None
