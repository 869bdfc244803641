"""Faults of streams. Each answers with a stream, also when none was asked for; so ask with `"stream": true`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from holyroute.simulator import answers
from holyroute.simulator.exchange import Exchange, Fault
from holyroute.simulator.forms import Told

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.simulator.answers import Answer, Events

_MALFORMED = b'data: {"id": "chatcmpl-1", "object": "chat.comp\n\n'
_COMMENT = b": keep-alive\n\n"


def first_token_late(seconds: float = 20.0) -> Fault:
    """The headers at once, the first event after so many seconds."""

    def play(exchange: Exchange) -> None:
        exchange.send(exchange.stream_head())
        exchange.wait(seconds)
        _complete(exchange, exchange.events(exchange.answer).all())

    return Fault(f"first-token-late:{seconds:g}", play)


def comments(count: int = 3, interval: float = 0.0) -> Fault:
    """Comments, `interval` seconds apart, before the first token: a sign of life, not of progress."""

    def play(exchange: Exchange) -> None:
        exchange.send(exchange.stream_head())
        for _ in range(count):
            exchange.send_event(_COMMENT)
            exchange.wait(interval)
        _complete(exchange, exchange.events(exchange.answer).all())

    return Fault(f"comments:{count}", play)


def slow_stream(interval: float = 0.1) -> Fault:
    """A good stream with `interval` seconds before each event."""

    def play(exchange: Exchange) -> None:
        exchange.send(exchange.stream_head())
        *first, last = exchange.events(exchange.answer).all()
        for event in first:
            exchange.wait(interval)
            exchange.send_event(event)
        _complete(exchange, [last])

    return Fault(f"slow-stream:{interval:g}", play)


def cut_stream(after: int = 40, *, reset: bool = False) -> Fault:
    """The connection ends (FIN, or RST) after so many tokens, at two thirds of the answer."""

    def play(exchange: Exchange) -> None:
        beginning = _beginning(exchange, after)
        if reset:
            exchange.reset(beginning)
        else:
            exchange.hang_up(beginning)

    return Fault(f"{'reset' if reset else 'cut'}-stream:{after}", play)


def stall(after: int = 20, seconds: float | None = None) -> Fault:
    """Nothing more comes after so many tokens; closed after so many seconds, or when the client gives up."""

    def play(exchange: Exchange) -> None:
        exchange.send(_beginning(exchange, after))
        if seconds is None:
            exchange.connection.wait_for_client()
        else:
            exchange.wait(seconds)
        exchange.hang_up()

    return Fault(f"stall:{after}", play)


def malformed_event(after: int = 1) -> Fault:
    """One event which is no JSON stands after so many tokens of an otherwise good stream."""

    def change(events: Events) -> list[bytes]:
        return [*events.first, *events.tokens[:after], _MALFORMED, *events.tokens[after:], *events.last]

    return _changed(f"malformed-event:{after}", change)


def error_event(after: int = 1) -> Fault:
    """An error object comes as an event after so many tokens, then the stream ends in good order."""
    told = Told("The server had an error while processing your request.", "server_error")

    def play(exchange: Exchange) -> None:
        exchange.send(_beginning(exchange, after))
        exchange.finish(answers.chunk(exchange.form.error_event(500, told)) + answers.END)

    return Fault(f"error-event:{after}", play)


def no_done() -> Fault:
    """A complete stream without `[DONE]`."""
    return _changed("no-done", lambda events: events.all()[:-1])


def no_finish_reason() -> Fault:
    """A complete stream in which no event has a `finish_reason`."""

    def play(exchange: Exchange) -> None:
        exchange.deliver(replace(exchange.answer, finish_reason=None))

    return Fault("no-finish-reason", play)


def _changed(name: str, change: Callable[[Events], list[bytes]]) -> Fault:
    def play(exchange: Exchange) -> None:
        exchange.wait(exchange.latency)
        exchange.send(exchange.stream_head())
        _complete(exchange, change(exchange.events(exchange.answer)))

    return Fault(name, play)


def _beginning(exchange: Exchange, tokens: int) -> bytes:
    """The head and so many tokens of an answer that is half as long again."""
    exchange.answer = _longer(exchange, tokens * 3 // 2)
    events = exchange.events(exchange.answer)
    beginning = [*events.first, *events.tokens[:tokens]]
    return exchange.stream_head() + b"".join(map(answers.chunk, beginning))


def _longer(exchange: Exchange, words: int) -> Answer:
    content = answers.text_for(exchange.request.json["messages"], words)
    return replace(exchange.answer, content=content, completion_tokens=len(content.split()))


def _complete(exchange: Exchange, events: list[bytes]) -> None:
    exchange.finish(b"".join(map(answers.chunk, events)) + answers.END, complete=True)
