"""Answers with status 200: the good ones in all their forms, and those which are none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holyroute.simulator import answers
from holyroute.simulator.exchange import PLAIN, Exchange, Fault, Framing, Pairs
from holyroute.simulator.faults.statuses import error_body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holyroute.simulator.answers import Answer

_REFUSAL = "I'm sorry, but I cannot help with that."
_PAGE = b"<!DOCTYPE html><html><body><h1>Welcome to the gateway</h1></body></html>"
_FILLER = "lorem ipsum "


def _good(name: str, change: Callable[[Answer], Answer] | None = None, framing: Framing = PLAIN) -> Fault:
    def play(exchange: Exchange) -> None:
        exchange.deliver(exchange.answer if change is None else change(exchange.answer), framing)

    return Fault(name, play)


def ok(content: str | None = None, *, headers: Pairs = ()) -> Fault:
    """The good answer, or one with this content and its number of words as `completion_tokens`."""
    framing = Framing(headers=headers)
    if content is None:
        return _good("ok", framing=framing)
    words = len(content.split())
    return _good("ok", lambda answer: replace(answer, content=content, completion_tokens=words), framing)


def large(size: int = 1_000_000) -> Fault:
    """A good answer whose content has so many bytes."""

    def change(answer: Answer) -> Answer:
        start = (answer.content or "").encode("utf-8", "replace")[:size].decode("utf-8", "ignore") + " "
        missing = size - len(start.encode())
        content = (start + _FILLER * (missing // len(_FILLER) + 1))[: len(start) + missing]
        return replace(answer, content=content, completion_tokens=len(content.split()))

    return _good(f"large:{size}", change)


def gzipped() -> Fault:
    """A good answer with `Content-Encoding: gzip`; a stream stays as it is."""
    return _good("gzip", framing=Framing(gzip=True))


def chunked() -> Fault:
    """A good answer in the chunked transfer coding."""
    return _good("chunked", framing=Framing(chunked=True))


def cookies(*lines: str) -> Fault:
    """A good answer which sets cookies."""
    headers = [("Set-Cookie", line) for line in lines or ("session=simulated; Path=/",)]
    return _good("cookies", framing=Framing(headers=headers))


def empty() -> Fault:
    """Empty content, `finish_reason` "stop"."""
    return _good("empty", lambda answer: replace(answer, content="", completion_tokens=0))


def empty_length() -> Fault:
    """Empty content, `finish_reason` "length": the model spent all its tokens on thinking."""
    return _good("empty-length", lambda answer: replace(answer, content="", finish_reason="length"))


def truncated() -> Fault:
    """Half of the content, `finish_reason` "length": `max_tokens` was reached."""

    def change(answer: Answer) -> Answer:
        tokens = answers.tokens_of(answer.content or "")
        half = "".join(tokens[: len(tokens) // 2])
        return replace(answer, content=half, completion_tokens=len(half.split()), finish_reason="length")

    return _good("truncated", change)


def no_choices() -> Fault:
    """`choices` is an empty list."""
    return _good("no-choices", lambda answer: replace(answer, content="", completion_tokens=0, choices=False))


def content_filter() -> Fault:
    """The provider's filter held the answer back: empty content, `finish_reason` "content_filter"."""
    return _good(
        "content-filter",
        lambda answer: replace(answer, content="", completion_tokens=0, finish_reason="content_filter"),
    )


def refusal(text: str = _REFUSAL) -> Fault:
    """The model itself declines: no content, a `refusal`."""
    words = len(text.split())
    return _good(
        "refusal", lambda answer: replace(answer, content=None, completion_tokens=words, message={"refusal": text})
    )


def tool_call(name: str = "lookup", arguments: Mapping[str, Any] | None = None) -> Fault:
    """The model calls a tool: no content, `finish_reason` "tool_calls"."""
    call = {"name": name, "arguments": json.dumps(dict(arguments or {"query": "simulated"}))}
    message = {"tool_calls": [{"id": "call_1", "type": "function", "function": call}]}
    return _good(
        "tool-call",
        lambda answer: replace(answer, content=None, message=message, finish_reason="tool_calls"),
    )


def no_usage() -> Fault:
    """A good answer which does not say how many tokens it took."""
    return _good("no-usage", lambda answer: replace(answer, report_usage=False))


def absurd_usage() -> Fault:
    """A good answer with impossible figures in `usage`; the bill keeps to the true ones."""
    figures = {"prompt_tokens": -5, "completion_tokens": 10**15, "total_tokens": 3}
    return _good("absurd-usage", lambda answer: replace(answer, usage=figures))


def error_in_200(code: int = 500) -> Fault:
    """Status 200, but the body is the error object which belongs to another status."""
    return Fault("error-in-200", lambda exchange: exchange.reply(200, error_body(exchange, code)))


def invalid_json() -> Fault:
    """Status 200 and a body which says it is JSON and is none."""
    return Fault("invalid-json", lambda exchange: exchange.reply(200, b'{"id": "chatcmpl-1", "choices": [{"message"'))


def html() -> Fault:
    """Status 200 and an HTML page, as from a captive portal or a wrong base URL."""
    return Fault("html", lambda exchange: exchange.reply(200, _PAGE, content_type="text/html; charset=utf-8"))
