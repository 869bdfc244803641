"""Faults of the connection: silence, drips, and every way to end it too early."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from holyroute.simulator import answers
from holyroute.simulator.exchange import Exchange, Fault

if TYPE_CHECKING:
    import threading


def reset() -> Fault:
    """RST before any byte of an answer."""
    return Fault("reset", lambda exchange: exchange.reset())


def no_reply() -> Fault:
    """FIN before any byte of an answer, as when an idle connection was just closed."""
    return Fault("no-reply", lambda exchange: exchange.hang_up())


def cut_headers() -> Fault:
    """FIN inside the headers."""

    def play(exchange: Exchange) -> None:
        head, _ = exchange.wire(exchange.answer)
        exchange.hang_up(head[: len(head) // 2])

    return Fault("cut-headers", play)


def cut_body() -> Fault:
    """FIN in the middle of the body: shorter than its Content-Length, or, for a stream, without its last chunk."""

    def play(exchange: Exchange) -> None:
        head, body = exchange.wire(exchange.answer)
        exchange.hang_up(head + body[: len(body) // 2])

    return Fault("cut-body", play)


def reset_body() -> Fault:
    """RST in the middle of the body."""

    def play(exchange: Exchange) -> None:
        head, body = exchange.wire(exchange.answer)
        exchange.reset(head + body[: len(body) // 2])

    return Fault("reset-body", play)


def cut_unframed() -> Fault:
    """A body that ends with the connection, cut in the middle: HTTP shows a complete 200, the JSON is half a one."""

    def play(exchange: Exchange) -> None:
        exchange.connection.keep_alive = False
        body = exchange.completion(exchange.answer)
        exchange.hang_up(exchange.head(200, "application/json") + body[: len(body) // 2])

    return Fault("cut-unframed", play)


def bad_chunk() -> Fault:
    """A chunked body with a chunk whose size is no number."""

    def play(exchange: Exchange) -> None:
        body = exchange.completion(exchange.answer)
        head = exchange.head(200, "application/json", headers=[("Transfer-Encoding", "chunked")])
        exchange.hang_up(head + answers.chunk(body[: len(body) // 2]) + b"no-size\r\n" + body[len(body) // 2 :])

    return Fault("bad-chunk", play)


def cut_gzip() -> Fault:
    """A gzip body cut in the middle, with the Content-Length of what is left: only the decoder can notice."""

    def play(exchange: Exchange) -> None:
        packed = gzip.compress(exchange.completion(exchange.answer), mtime=0)
        half = packed[: len(packed) // 2]
        exchange.reply(200, half, headers=[("Content-Encoding", "gzip")])

    return Fault("cut-gzip", play)


def silent(seconds: float | None = None) -> Fault:
    """Reads the request and says nothing; closes after so many seconds, or when the client gives up."""

    def play(exchange: Exchange) -> None:
        if seconds is None:
            exchange.connection.wait_for_client()
        else:
            exchange.wait(seconds)
        exchange.hang_up()

    return Fault("silent" if seconds is None else f"silent:{seconds:g}", play)


def drip(interval: float = 1.0) -> Fault:
    """A good answer whose body comes byte by byte, one in `interval` seconds: no single read ever times out."""

    def play(exchange: Exchange) -> None:
        head, body = exchange.wire(exchange.answer)
        exchange.send(head)
        _drip(exchange, body, interval)

    return Fault(f"drip:{interval:g}", play)


def drip_headers(interval: float = 1.0) -> Fault:
    """A good answer of which every byte, from the status line on, comes `interval` seconds after the last."""

    def play(exchange: Exchange) -> None:
        _drip(exchange, b"".join(exchange.wire(exchange.answer)), interval)

    return Fault(f"drip-headers:{interval:g}", play)


def held(event: threading.Event, then: Fault | None = None) -> Fault:
    """Another step (a good answer by default) once an event is set: for tests which need a call to be in flight."""

    def play(exchange: Exchange) -> None:
        exchange.connection.wait_for(event)
        if then is None:
            exchange.deliver(exchange.answer)
        else:
            then.play(exchange)

    return Fault("held", play)


def late(seconds: float = 1.0, then: Fault | None = None) -> Fault:
    """Another step (a good answer by default), so many seconds later."""

    def play(exchange: Exchange) -> None:
        exchange.wait(seconds)
        if then is None:
            exchange.deliver(exchange.answer)
        else:
            then.play(exchange)

    return Fault(f"late:{seconds:g}", play)


def close_after(*, announced: bool = True) -> Fault:
    """A good answer after which the server closes the connection.

    Announced by `Connection: close`, or not: then the client keeps the connection in its pool and finds it dead.
    """

    def play(exchange: Exchange) -> None:
        if announced:
            exchange.connection.keep_alive = False
        exchange.deliver(exchange.answer)
        exchange.connection.hang_up()

    return Fault("close-after" if announced else "close-after-unannounced", play)


def close_on_reuse() -> Fault:
    """A good answer; then the connection is reset the moment the client sends its next request on it.

    The race which every pool of idle connections meets: no look at the socket beforehand can tell. The next request
    counts as never arrived.
    """

    def play(exchange: Exchange) -> None:
        exchange.deliver(exchange.answer)
        exchange.connection.wait_for_more()
        exchange.connection.reset()

    return Fault("close-on-reuse", play)


def _drip(exchange: Exchange, data: bytes, interval: float) -> None:
    for index in range(len(data) - 1):
        exchange.send(data[index : index + 1])
        exchange.wait(interval)
    exchange.finish(data[-1:], complete=True)
