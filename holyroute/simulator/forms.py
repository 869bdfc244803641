"""The forms in which a provider answers: OpenAI's, Azure's and Anthropic's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holyroute.simulator import answers, messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.simulator.answers import Answer, Events


@dataclass(frozen=True, slots=True)
class Told:
    """What an error says, whatever its form."""

    message: str
    type: str
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """How answers become bytes.

    Attributes:
        id_prefix: of the ids of answers.
        completion: the body of a good answer.
        events: the events of its stream; the flag says whether the request asked for the usage.
        error: the body of an error, of its status and what it says.
        error_event: the same as an event of a stream.
    """

    id_prefix: str
    completion: Callable[[Answer], bytes]
    events: Callable[[Answer, bool], Events]
    error: Callable[[int, Told], bytes]
    error_event: Callable[[int, Told], bytes]


def _openai_events(answer: Answer, usage: bool) -> Events:
    return answers.events(answer, include_usage=usage)


def _azure_events(answer: Answer, usage: bool) -> Events:
    """Before the first word Azure tells what its filters think of the prompt, in a chunk without choices."""
    filters = {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}
    events = _openai_events(answer, usage)
    return replace(events, first=[answers.event(filters), *events.first])


def _openai_error(_: int, told: Told) -> bytes:
    return answers.error(told.message, told.type, told.code, told.param)


OPENAI = Form(
    id_prefix="chatcmpl-",
    completion=answers.completion,
    events=_openai_events,
    error=_openai_error,
    error_event=lambda status, told: b"data: " + _openai_error(status, told) + b"\n\n",
)
AZURE = replace(OPENAI, events=_azure_events)
ANTHROPIC = Form(
    id_prefix="msg_",
    completion=messages.completion,
    events=lambda answer, _: messages.events(answer),
    error=lambda status, told: messages.error(status, told.message),
    error_event=lambda status, told: b"event: error\ndata: " + messages.error(status, told.message) + b"\n\n",
)
