"""Reading along while a streamed answer passes: has it begun, is it whole, what does it cost.

Pure: bytes go in, bytes come out, nothing is sent or waited for.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

from holyroute.core import codec
from holyroute.core.completion import Usage
from holyroute.core.sse import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.core.sse import Event

DONE = "[DONE]"


class Translator(Protocol):
    """Turns the events of one stream into those of another dialect."""

    def feed(self, event: Event) -> list[Event]:
        """What one event becomes."""

    def finish(self) -> list[Event]:
        """What is left to say when the stream has ended."""


class How(Enum):
    """How a stream came to its end."""

    READ = auto()  # by itself, or by a fault
    LEFT = auto()  # the caller closed it
    FORGOTTEN = auto()  # the caller lost it: told by the garbage collector, in the middle of anything


class BrokenStream(Exception):  # noqa: N818 - what has happened to the stream
    """A stream that no answer can be made of: an event that is no JSON, an error, an end before the end.

    `error` is the decoded error object, where the provider sent one.
    """

    def __init__(self, reason: str, error: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.reason, self.error = reason, error


class StreamReader:
    """What is known of one stream, in OpenAI's form.

    Args:
        choices: how many answers were asked for (`n`).
        to_openai: makes OpenAI's events of the target's; None if it speaks so itself.
        to_caller: makes the caller's events of OpenAI's; None hands on the bytes as they came.
        usage: whether the caller asked for the usage, which OpenAI then sends as an event of its own.

    Attributes:
        followed: somebody reads the stream through us.
        over: nothing more will come.
        begun: something of the answer has come: from here on nobody else can take over.
        finished: every choice has its finish reason.
        done: the end was announced, so that nothing more is waited for.
        usage: as reported; None until it was.
        fault: why the stream is broken.
        on_end: called once, when the stream is over.
    """

    def __init__(
        self,
        choices: int = 1,
        *,
        to_openai: Translator | None = None,
        to_caller: Translator | None = None,
        usage: bool = True,
    ) -> None:
        self.followed = False
        self.over = False
        self.begun = False
        self.done = False
        self.usage: Usage | None = None
        self.fault: BrokenStream | None = None
        self.on_end: Callable[[Exception | None, How], None] | None = None
        self._wanted = choices
        self._to_openai, self._to_caller, self._tells_usage = to_openai, to_caller, usage
        self._decoder = Decoder()
        self._choices: dict[int, dict[str, Any]] = {}
        self._head: dict[str, Any] = {}

    @property
    def finished(self) -> bool:
        """Whether every choice that was asked for has its finish reason."""
        return len(self._choices) >= self._wanted and self._whole

    @property
    def _whole(self) -> bool:
        """Whether the choices that came have theirs: many providers give one, however many were asked for."""
        return bool(self._choices) and all(choice["finish_reason"] for choice in self._choices.values())

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream; returns those for the caller. Sets `fault` if this is no answer."""
        out = self._take(self._decoder.feed(data))
        return data if self._to_caller is None else out

    def end(self) -> bytes:
        """The stream has ended; returns the last bytes for the caller. Sets `fault` if that was too early."""
        out = self._take(self._decoder.finish())
        if self._to_openai is not None:
            out += self._note_all(self._to_openai.finish())
        if not self._whole:
            self._break("the stream ended without a finish reason")
        return out if self._to_caller is None else out + _encoded(self._to_caller.finish())

    def _take(self, events: list[Event]) -> bytes:
        out = b""
        for event in events:
            if not event.data.strip():  # keeps the connection alive, as comments do elsewhere
                continue
            out += self._note_all([event] if self._to_openai is None else self._to_openai.feed(event))
        return out

    def _note_all(self, events: list[Event]) -> bytes:
        out = b""
        for event in events:
            told = self._note(event)
            if told and self._to_caller is not None:
                out += _encoded(self._to_caller.feed(event))
        return out

    def _note(self, event: Event) -> bool:
        """Learn from an event; whether the caller is to have it, if it has to be translated."""
        text = event.data.strip()
        if text == DONE:
            self.done = True
            return True
        try:
            chunk = codec.loads(text)
        except (ValueError, RecursionError):
            chunk = None
        if not isinstance(chunk, dict):
            self._break("an event of the stream is no JSON object")
            return False
        if error := chunk.get("error"):
            known = chunk if isinstance(error, dict) else {"error": {"message": str(error)}}
            self._break("the provider reports an error within the stream", known)
            return True
        self.usage = Usage.read(chunk) or self.usage
        self._head = self._head or {name: chunk[name] for name in ("id", "created", "model") if name in chunk}
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                self._add(choice)
        return self._tells_usage or bool(choices)

    def _add(self, choice: dict[str, Any]) -> None:
        index = choice.get("index")
        known = self._choices.setdefault(
            index if isinstance(index, int) else 0, {"text": [], "refusal": [], "tools": {}, "finish_reason": None}
        )
        delta = choice.get("delta")
        if isinstance(delta, dict):
            self.begun = self.begun or any(value for name, value in delta.items() if name != "role")
            _put(known["text"], delta.get("content"))
            _put(known["refusal"], delta.get("refusal"))
            for call in delta.get("tool_calls") or ():
                _add_call(known["tools"], call)
        known["finish_reason"] = choice.get("finish_reason") or known["finish_reason"]

    def _break(self, reason: str, error: dict[str, Any] | None = None) -> None:
        self.fault = self.fault or BrokenStream(reason, error)

    @property
    def text(self) -> str:
        """What was said so far, of the first choice."""
        first = self._choices.get(0)
        return "".join(first["text"]) if first is not None else ""

    @property
    def written(self) -> str:
        """All that the model has written so far: what its tokens were spent on."""
        words = []
        for known in self._choices.values():
            words += [*known["text"], *known["refusal"]]
            words += [call["function"][name] for call in known["tools"].values() for name in ("name", "arguments")]
        return "".join(words)

    @property
    def answer(self) -> dict[str, Any]:
        """What was said so far, as if it had been one answer."""
        choices = []
        for index, known in sorted(self._choices.items()):
            message: dict[str, Any] = {"role": "assistant", "content": "".join(known["text"]) or None}
            if known["refusal"]:
                message["refusal"] = "".join(known["refusal"])
            if known["tools"]:
                message["tool_calls"] = [call for _, call in sorted(known["tools"].items())]
            choices.append({"index": index, "message": message, "finish_reason": known["finish_reason"]})
        usage = self.usage
        counted = (
            {}
            if usage is None
            else {
                "usage": {
                    "prompt_tokens": usage.prompt_tokens,
                    "completion_tokens": usage.completion_tokens,
                    "total_tokens": usage.total_tokens,
                }
            }
        )
        return {**self._head, "object": "chat.completion", "choices": choices, **counted}


def _encoded(events: list[Event]) -> bytes:
    return b"".join(event.encode() for event in events)


def _put(words: list[str], word: Any) -> None:
    if isinstance(word, str) and word:
        words.append(word)


def _add_call(calls: dict[int, dict[str, Any]], part: Any) -> None:
    """A tool call comes in parts: its name first, its arguments letter by letter."""
    if not isinstance(part, dict):
        return
    index = part.get("index")
    call = calls.setdefault(
        index if isinstance(index, int) else len(calls),
        {"id": None, "type": "function", "function": {"name": "", "arguments": ""}},
    )
    call["id"] = part.get("id") or call["id"]
    function = part.get("function")
    if isinstance(function, dict):
        for name in ("name", "arguments"):
            word = function.get(name)
            call["function"][name] += word if isinstance(word, str) else ""
