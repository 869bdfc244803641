"""From how a call ended to what a `Client` gives back: a completion, or one that is still being written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from holyroute.core import codec
from holyroute.core.completion import Completion
from holyroute.core.sse import Decoder
from holyroute.core.stream import DONE
from holyroute.exceptions import StreamInterrupted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from requests import Response

    from holyroute.core.outcome import Outcome
    from holyroute.core.trace import Trace


WHOLE = "whole"  # how reading ends when it was not broken off or closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One piece of a streamed answer: text, parts of tool calls, or the reason of its end."""

    text: str = ""
    index: int = 0  # of the choice, where several were asked for
    tool_calls: tuple[Mapping[str, Any], ...] = ()  # parts, as the endpoint sends them: name first, arguments in pieces
    finish_reason: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the event that it came in

    def __str__(self) -> str:
        return self.text


class CompletionStream:
    """An answer that is still being written: iterate over it, or `read()` it to its end.

    Whoever leaves before the end should `close()` it, which is what a `with` block does. Not to be shared by threads.

    Attributes:
        text: what was said so far, of the first choice.
        completion: the whole answer with usage and cost; None before the end.
        trace: everything that happened to the call.
    """

    def __init__(self, outcome: Outcome) -> None:
        assert outcome.response is not None
        assert outcome.trace is not None
        self.trace: Trace = outcome.trace
        self.completion: Completion | None = None
        self._outcome = outcome
        self._response: Response = outcome.response
        self._words: list[str] = []
        self._deltas = _read(outcome.response)

    @property
    def text(self) -> str:
        """What was said so far, of the first choice."""
        return "".join(self._words)

    def read(self) -> Completion:
        """The whole answer, when it has come.

        Raises:
            StreamInterrupted: it broke off, or was closed before its end.
        """
        for _ in self:
            pass
        if self.completion is None:
            raise self._interrupted("was left")
        return self.completion

    def close(self) -> None:
        """Leave; what the model writes from here on is not waited for."""
        self._response.close()
        self._deltas.close()

    def __iter__(self) -> Iterator[Delta]:
        return self

    def __next__(self) -> Delta:
        try:
            delta = next(self._deltas)
        except StopIteration as end:
            if end.value is WHOLE:
                self.completion = completed(self._outcome)
            raise
        except (HTTPError, RequestException) as error:
            raise self._interrupted("broke off") from error
        if delta.index == 0 and delta.text:
            self._words.append(delta.text)
        return delta

    def _interrupted(self, how: str) -> StreamInterrupted:
        partial = self.text
        text = f"the answer {how} after {len(partial)} characters: {self.trace.verdict}\n{self.trace}"
        return StreamInterrupted(text, partial=partial, trace=self.trace, response=self._response)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _read(response: Response) -> Generator[Delta, None, str]:
    """All deltas to the end. Knows nothing of who reads them: what is lost is to end at once."""
    decoder = Decoder()
    for piece in response.raw.stream():
        for event in decoder.feed(piece):
            yield from _deltas(event.data)
    for event in decoder.finish():
        yield from _deltas(event.data)
    return WHOLE


def _deltas(data: str) -> Iterator[Delta]:
    """What an event says; nothing, if it is the one at which the stream broke: the body raises behind it."""
    try:
        decoded = None if data.strip() == DONE else codec.loads(data)
    except (ValueError, RecursionError):
        return
    chunk: dict[str, Any] = decoded if isinstance(decoded, dict) else {}
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        text, calls = delta.get("content"), delta.get("tool_calls")
        yield Delta(
            text=text if isinstance(text, str) else "",
            index=choice.get("index") or 0,
            tool_calls=tuple(calls or ()),
            finish_reason=choice.get("finish_reason"),
            raw=chunk,
        )


def completed(outcome: Outcome) -> Completion:
    """How a call ended, as a completion; without an answer an empty one."""
    trace = outcome.trace
    assert trace is not None
    reader = outcome.stream
    answer = outcome.answer if reader is None else reader.answer
    told, choice = outcome.is_answer, _first_choice(answer)
    record = trace.attempts[-1] if reader is not None else outcome
    return Completion(
        content=_text_of(choice) if told else "",
        model=trace.answered_by.name if trace.answered_by else None,
        model_asked=trace.asked,
        latency_ms=trace.seconds * 1_000,
        usage=record.usage,
        cost_usd=trace.cost,
        finish_reason=_finish_reason(choice),
        cached=outcome.cached is not None,
        raw=answer or {},
        trace=trace,
    )


def _first_choice(answer: Mapping[str, Any] | None) -> Mapping[str, Any]:
    choices = (answer or {}).get("choices") or [{}]
    return choices[0] if isinstance(choices[0], dict) else {}


def _finish_reason(choice: Mapping[str, Any]) -> str | None:
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) else None


def _text_of(choice: Mapping[str, Any]) -> str:
    """The text of a choice; parts of a structured content are joined."""
    content = (choice.get("message") or {}).get("content")
    if isinstance(content, list):
        parts = (part.get("text", "") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
