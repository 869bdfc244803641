"""Streams of events: Anthropic's blocks and OpenAI's chunks.

Neither translator ever ends a stream that did not end: without a reason to stop there is no `finish_reason` and no
`message_delta`, without the last event there is no `[DONE]` and no `message_stop`, and an error is handed on as one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from holyroute.core.sse import Event
from holyroute.dialects.anthropic import answers, tables
from holyroute.dialects.anthropic.failures import error_from_openai, error_to_openai, is_error
from holyroute.dialects.errors import error_body, is_openai_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.dialects.base import Json, StreamTranslator

DONE = "[DONE]"
_MALFORMED = error_body("an event of the stream was malformed", "server_error", None)


def stream_to_openai(*, usage: bool) -> StreamTranslator:
    """A translator into chunks; `usage`: with the usage in a chunk of its own before `[DONE]`."""
    return _ToOpenAI(usage=usage)


def stream_from_openai() -> StreamTranslator:
    """A translator into Anthropic's events."""
    return _FromOpenAI()


class _ToOpenAI:
    """Anthropic's events as chat completion chunks."""

    def __init__(self, *, usage: bool) -> None:
        self._wants_usage = usage
        self._usage: Json = {}
        self._frame: Json = {"id": None, "object": "chat.completion.chunk", "created": 0, "model": None}
        self._calls = 0
        self._call: Json | None = None  # whose block is open
        self._ended = False  # the reason to stop was told
        self._over = False
        self._handlers: dict[Any, Callable[[Json], list[Event]]] = {
            "message_start": self._start,
            "content_block_start": self._start_block,
            "content_block_delta": self._delta,
            "content_block_stop": self._stop_block,
            "message_delta": self._end,
            "message_stop": self._stop,
        }

    def feed(self, event: Event) -> list[Event]:
        """The chunks that one event becomes; events of unknown types are passed over, as Anthropic asks for."""
        if self._over:
            return []
        given = _decoded(event)
        if given is None:
            return self._fail(_MALFORMED)
        kind = given.get("type") or event.name
        if kind == "error" or is_error(given):
            return self._fail(error_to_openai(500, given)[1])
        handle = self._handlers.get(kind) if isinstance(kind, str) else None
        return handle(given) if handle is not None else []

    def finish(self) -> list[Event]:
        """Nothing: whatever was to say has been said, or the stream broke off."""
        return []

    def _start(self, given: Json) -> list[Event]:
        message = _table(given.get("message"))
        self._frame |= {"id": message.get("id"), "model": message.get("model")}
        self._usage |= _table(message.get("usage"))
        return [self._chunk({"role": "assistant", "content": "", "refusal": None})]

    def _start_block(self, given: Json) -> list[Event]:
        block = _table(given.get("content_block"))
        kind = block.get("type")
        self._call = None
        if kind == "text":
            return self._text(block.get("text"))
        if kind == "tool_use":
            self._call = {"index": self._calls, "input": block.get("input") or {}, "begun": False}
            self._calls += 1
            function = {"name": block.get("name"), "arguments": ""}
            call = {"index": self._call["index"], "id": block.get("id"), "type": "function", "function": function}
            return [self._chunk({"tool_calls": [call]})]
        if kind in tables.THOUGHTS:
            return []
        return self._fail(_MALFORMED)

    def _delta(self, given: Json) -> list[Event]:
        delta = _table(given.get("delta"))
        if delta.get("type") == "text_delta":
            return self._text(delta.get("text"))
        if delta.get("type") == "input_json_delta" and self._call is not None:
            return self._arguments(delta.get("partial_json"))
        return []

    def _stop_block(self, _: Json) -> list[Event]:
        """A call without arguments has none to stream, and its arguments are an object all the same."""
        call = self._call
        late = self._arguments(_dump(call["input"])) if call is not None and not call["begun"] else []
        self._call = None
        return late

    def _end(self, given: Json) -> list[Event]:
        self._usage |= {key: value for key, value in _table(given.get("usage")).items() if value is not None}
        delta = _table(given.get("delta"))
        reason = answers.finish_reason_of(delta.get("stop_reason"))
        if reason is None:
            return []
        self._ended = True
        refusal = answers.refusal_of(delta)
        told = [self._chunk({"refusal": refusal})] if refusal else []
        return [*told, self._chunk({}, reason)]

    def _stop(self, _: Json) -> list[Event]:
        self._over = True
        if not self._ended:
            return []
        usage = {**self._frame, "choices": [], "usage": answers.usage_to_openai(self._usage)}
        return [*([_event(usage)] if self._wants_usage else []), Event(DONE)]

    def _text(self, text: Any) -> list[Event]:
        return [self._chunk({"content": text})] if isinstance(text, str) and text else []

    def _arguments(self, text: Any) -> list[Event]:
        if not isinstance(text, str) or not text or self._call is None:
            return []
        self._call["begun"] = True
        return [self._chunk({"tool_calls": [{"index": self._call["index"], "function": {"arguments": text}}]})]

    def _chunk(self, delta: Json, finish_reason: Any = None) -> Event:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _event({**self._frame, "choices": [choice], **({"usage": None} if self._wants_usage else {})})

    def _fail(self, error: Json) -> list[Event]:
        self._over = True
        return [_event(error)]


class _FromOpenAI:
    """Chat completion chunks as Anthropic's events.

    Blocks follow one another at Anthropic: a provider whose calls are interleaved is handed on as an error. The end is
    told when the stream has ended, for the usage comes behind the reason to stop.
    """

    def __init__(self) -> None:
        self._id: Any = None
        self._blocks = 0  # begun so far
        self._open: str | None = None  # the block that is: "text", or "call" and its id
        self._calls: dict[Any, str] = {}  # index of a call → its id
        self._reason: Any = None
        self._refusal = ""
        self._usage: Any = None
        self._started = False
        self._over = False

    def feed(self, event: Event) -> list[Event]:
        """The events that one chunk becomes."""
        if self._over:
            return []
        if event.data.strip() == DONE:
            return self.finish()
        given = _decoded(event)
        if given is None:
            return self._fail(_MALFORMED)
        if is_openai_error(given):
            return self._fail(given)
        self._usage = given.get("usage") or self._usage
        choices = given.get("choices")
        choice = _table(choices[0]) if isinstance(choices, list) and choices else None
        if choice is None:  # the usage, or what Azure says of filters
            return []
        return [*self._start(given), *self._choice(choice)]

    def finish(self) -> list[Event]:
        """The end, where the stream told why it stopped."""
        if self._over or self._reason is None:
            self._over = True
            return []
        self._over = True
        reason = answers.stop_reason_of(self._reason, calls=bool(self._calls))
        delta = answers.stopped("refusal" if self._refusal else reason, self._refusal or None)
        usage = answers.usage_from_openai(self._usage)
        return [
            *self._close(),
            _named("message_delta", delta=delta, usage=usage),
            _named("message_stop"),
        ]

    def _start(self, chunk: Json) -> list[Event]:
        if self._started:
            return []
        self._started = True
        self._id = chunk.get("id")
        message = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": chunk.get("model"),
            "content": [],
            **answers.stopped(None, None),
            "usage": answers.usage_from_openai(None),
        }
        return [_named("message_start", message=message)]

    def _choice(self, choice: Json) -> list[Event]:
        delta = _table(choice.get("delta"))
        events = self._text(delta.get("content"))
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            events += self._call(_table(call))
        refusal = delta.get("refusal")
        self._refusal += refusal if isinstance(refusal, str) else ""
        self._reason = choice.get("finish_reason") or self._reason
        return events

    def _text(self, text: Any) -> list[Event]:
        if not isinstance(text, str) or not text:
            return []
        begun = [] if self._open == "text" else self._begin("text", {"type": "text", "text": ""})
        return [*begun, self._delta({"type": "text_delta", "text": text})]

    def _call(self, call: Json) -> list[Event]:
        if self._over:
            return []
        at, given, function = call.get("index", 0), call.get("id"), _table(call.get("function"))
        name = function.get("name")
        known = self._calls.get(at) if isinstance(at, int) else None
        events = []
        if known is None or (given and name and answers.call_id(given, self._id, len(self._calls)) != known):
            if not isinstance(at, int) or not isinstance(name, str) or not name:
                return self._fail(_MALFORMED)
            known = self._calls[at] = answers.call_id(given, self._id, len(self._calls))
            events = self._begin(f"call {known}", {"type": "tool_use", "id": known, "name": name, "input": {}})
        text = function.get("arguments")
        if not isinstance(text, str) or not text:
            return events
        if self._open != f"call {known}":
            return [*events, *self._fail(_MALFORMED)]
        return [*events, self._delta({"type": "input_json_delta", "partial_json": text})]

    def _begin(self, name: str, block: Json) -> list[Event]:
        closed = self._close()
        self._open = name
        self._blocks += 1
        return [*closed, _named("content_block_start", index=self._blocks - 1, content_block=block)]

    def _close(self) -> list[Event]:
        if self._open is None:
            return []
        self._open = None
        return [_named("content_block_stop", index=self._blocks - 1)]

    def _delta(self, delta: Json) -> Event:
        return _named("content_block_delta", index=self._blocks - 1, delta=delta)

    def _fail(self, error: Json) -> list[Event]:
        self._over = True
        return [_named("error", error=error_from_openai(500, error)[1]["error"])]


def _decoded(event: Event) -> Json | None:
    try:
        given = json.loads(event.data)
    except (ValueError, RecursionError):
        return None
    return given if isinstance(given, dict) else None


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _event(value: Json, name: str = "") -> Event:
    return Event(_dump(value), name)


def _named(kind: str, **fields: Any) -> Event:
    return _event({"type": kind, **fields}, kind)


def _table(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
