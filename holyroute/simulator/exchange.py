"""One request and what is sent back for it: the tools of which faults are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from holyroute.simulator import answers
from holyroute.simulator.answers import Answer, Events
from holyroute.simulator.forms import OPENAI

if TYPE_CHECKING:
    from holyroute.core.clock import Clock
    from holyroute.simulator.wire import Connection, Request

REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Site is overloaded"}

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to answer a request, good or bad.

    Attributes:
        name: as shown in `Seen.fault`; for the built-in faults also the name after `sim:` which selects it.
        play: sends the answer. It runs in the connection's own thread; `OSError` means that the client is gone.
    """

    name: str
    play: Callable[[Exchange], None]


@dataclass(frozen=True, slots=True)
class Framing:
    """How an answer is put on the wire: more headers, and whether the body is gzipped or chunked."""

    headers: Pairs = ()
    gzip: bool = False
    chunked: bool = False


PLAIN = Framing()

_BLINK = 0.02
"""Seconds between some bytes and a reset: on some systems a reset destroys what the client has not read yet."""


class Exchange:
    """A request being answered.

    A fault sends what it likes with `send()` and calls `finish()` with its last bytes: the exchange is booked before
    they leave, so that a client which holds the answer finds it in `Simulator.seen`.

    Attributes:
        request, connection: what arrived, and where.
        form: of the answer, as the path asks for it.
        answer: the good answer to it.
        number: counts the requests of one simulator from 1.
        model: the model asked for; None when the request named none.
        fault: name of the fault that answers.
        latency: seconds which the model's profile takes for a good answer.
        billed: book the tokens whatever becomes of the answer.
        arrived, finished: monotonic seconds of the simulator's clock.
        status: of the answer; None when no status line was sent.
        complete: a whole, well-formed completion was sent.
    """

    def __init__(
        self, connection: Connection, request: Request, clock: Clock, book: Callable[[Exchange], None]
    ) -> None:
        self.connection = connection
        self.request = request
        self.clock = clock
        self.form = OPENAI
        self.answer = Answer()
        self.number = 0
        self.model: str | None = None
        self.fault = ""
        self.latency = 0.0
        self.billed = False
        self.arrived = clock.now()
        self.finished: float | None = None
        self.status: int | None = None
        self.complete = False
        self._book = book

    @property
    def include_usage(self) -> bool:
        """Whether a stream shall end with the usage."""
        options = self.request.json.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True

    def events(self, answer: Answer) -> Events:
        """The events of a stream that carries this answer."""
        return self.form.events(answer, self.include_usage)

    def completion(self, answer: Answer) -> bytes:
        """The body of this answer."""
        return self.form.completion(answer)

    def head(self, status: int, content_type: str | None, *, length: int | None = None, headers: Pairs = ()) -> bytes:
        """Status line and headers. `length` None: the body is not framed by a length; say how in `headers`."""
        self.status = status
        if not self.request.keep_alive:
            self.connection.keep_alive = False
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, '')}", f"x-request-id: req-{self.number}"]
        if content_type is not None:
            lines.append(f"Content-Type: {content_type}")
        if length is not None:
            lines.append(f"Content-Length: {length}")
        lines += [f"{name}: {value}" for name, value in headers]
        if not self.connection.keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1", "replace")

    def stream_head(self, headers: Pairs = ()) -> bytes:
        """Status line and headers of a stream of events."""
        return self.head(200, "text/event-stream; charset=utf-8", headers=[("Transfer-Encoding", "chunked"), *headers])

    def wire(self, answer: Answer, framing: Framing = PLAIN) -> tuple[bytes, bytes]:
        """Head and body of a good answer, as a stream when one was asked for."""
        if self.request.stream:
            body = b"".join(map(answers.chunk, self.events(answer).all())) + answers.END
            return self.stream_head(framing.headers), body
        body, headers = self.completion(answer), list(framing.headers)
        if framing.gzip:
            import gzip

            body = gzip.compress(body, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        if not framing.chunked:
            return self.head(200, "application/json", length=len(body), headers=headers), body
        pieces = [body[start : start + 64] for start in range(0, len(body), 64)]
        head = self.head(200, "application/json", headers=[*headers, ("Transfer-Encoding", "chunked")])
        return head, b"".join(map(answers.chunk, pieces)) + answers.END

    def deliver(self, answer: Answer, framing: Framing = PLAIN) -> None:
        """Take the model's time, then send a whole answer."""
        self.answer = answer
        self.wait(self.latency)
        head, body = self.wire(answer, framing)
        self.finish(head + body, complete=True)

    def reply(self, status: int, body: bytes, *, content_type: str = "application/json", headers: Pairs = ()) -> None:
        """Send a body which is no completion."""
        self.finish(self.head(status, content_type, length=len(body), headers=headers) + body)

    def send(self, data: bytes) -> None:
        """Send some bytes; more will follow."""
        self.connection.send(data)

    def send_event(self, event: bytes) -> None:
        """Send one event of a stream as a chunk of its own."""
        self.connection.send(answers.chunk(event))

    def wait(self, seconds: float) -> None:
        """Let time pass between bytes."""
        if seconds > 0:
            self.connection.wait(seconds)

    def finish(self, last: bytes = b"", *, complete: bool = False) -> None:
        """Book the exchange, then send its last bytes. `complete`: with them, a whole completion was sent."""
        if self.finished is None:
            self.finished = self.clock.now()
            self.complete = complete
            self._book(self)
        if last:
            self.connection.send(last)

    def hang_up(self, last: bytes = b"") -> None:
        """Send some last bytes and close the connection (FIN)."""
        self.finish(last)
        self.connection.hang_up()

    def reset(self, last: bytes = b"") -> None:
        """Send some last bytes and reset the connection (RST), when the client has had time to read them."""
        self.finish(last)
        if last:
            self.wait(_BLINK)
        self.connection.reset()
