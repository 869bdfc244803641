"""What a model answers, and the bytes of OpenAI-shaped answers: completions, streams of events, errors.

The good answer is a function of the request, so that a test can tell whose answer it got and what it cost:

* content: "Answer to: " and the first 80 characters of the last user message, followed by filler words when more
  words are wanted than that;
* `prompt_tokens`: the UTF-8 bytes of the text of all messages, divided by 4, rounded down, at least 1;
* `completion_tokens`: the profile's figure, or the number of words of the content.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_TOKEN = re.compile(r"\S+\s*|\s+")

DONE = b"data: [DONE]\n\n"
END = b"0\r\n\r\n"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a model, before it becomes bytes.

    Attributes:
        message: more fields of the message, such as `refusal` or `tool_calls`.
        usage: reported instead of the true tokens when given.
        report_usage: False leaves `usage` out.
        choices: False answers with an empty list of choices.
    """

    id: str = ""
    created: int = 0
    model: str = ""
    content: str | None = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = "stop"
    message: Mapping[str, Any] | None = None
    usage: Mapping[str, int] | None = None
    report_usage: bool = True
    choices: bool = True


def dump(value: object) -> bytes:
    """Compact JSON in UTF-8, as providers send it."""
    return _encode(value).encode("utf-8", "replace")


def texts(messages: Sequence[object]) -> Iterator[tuple[str, str]]:
    """The role and the text of each message; of a list of content parts, the text parts joined."""
    for message in messages:
        if isinstance(message, dict):
            content = message.get("content")
            if isinstance(content, list):
                parts = (part.get("text") for part in content if isinstance(part, dict))
                content = "".join(part for part in parts if isinstance(part, str))
            yield str(message.get("role")), content if isinstance(content, str) else ""


def count_prompt_tokens(messages: Sequence[object]) -> int:
    """UTF-8 bytes of the text of all messages // 4, at least 1."""
    return max(1, sum(len(text.encode("utf-8", "replace")) for _, text in texts(messages)) // 4)


def text_for(messages: Sequence[object], words: int = 0) -> str:
    """The answer to a conversation, with at least so many words."""
    prompt = next((text for role, text in reversed(list(texts(messages))) if role == "user"), "")
    answer = f"Answer to: {prompt[:80]}"
    missing = words - len(answer.split()) if words else 0
    return answer + "".join(f" word-{number}" for number in range(1, missing + 1))


def tokens_of(content: str) -> list[str]:
    """The pieces in which a stream sends the content: words with the white space behind them."""
    return _TOKEN.findall(content)


def usage_of(answer: Answer) -> Mapping[str, int]:
    """The `usage` object of an answer."""
    if answer.usage is not None:
        return answer.usage
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def completion(answer: Answer) -> bytes:
    """A `chat.completion` object."""
    message = {"role": "assistant", "content": answer.content, **(answer.message or {})}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
    body: Json = {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [choice] if answer.choices else [],
    }
    if answer.report_usage:
        body["usage"] = usage_of(answer)
    return dump(body)


def event(value: object) -> bytes:
    """One server-sent event."""
    return b"data: " + dump(value) + b"\n\n"


@dataclass(frozen=True, slots=True)
class Events:
    """The events of one stream, in the order in which they are sent: first, tokens, last."""

    first: list[bytes]
    tokens: list[bytes]
    last: list[bytes]

    def all(self) -> list[bytes]:
        """Every event."""
        return [*self.first, *self.tokens, *self.last]


def events(answer: Answer, *, include_usage: bool) -> Events:
    """The `chat.completion.chunk` events of an answer, `[DONE]` included.

    Tool calls and refusals arrive in the first event, whole. The usage stands in an event of its own, without
    choices, and only when the request asked for it (`stream_options.include_usage`), as at OpenAI.
    """
    frame = {"id": answer.id, "object": "chat.completion.chunk", "created": answer.created, "model": answer.model}
    empty: Json = {"usage": None} if include_usage else {}

    def chunk(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return event({**frame, "choices": [choice] if answer.choices else [], **empty})

    first = chunk({"role": "assistant", "content": "" if answer.content is not None else None, **_deltas(answer)})
    tokens = [chunk({"content": token}) for token in tokens_of(answer.content or "")]
    last = [chunk({}, answer.finish_reason)] if answer.finish_reason else []
    if include_usage and answer.report_usage:
        last.append(event({**frame, "choices": [], "usage": usage_of(answer)}))
    return Events([first], tokens, [*last, DONE])


def _deltas(answer: Answer) -> Json:
    fields = dict(answer.message or {})
    if calls := fields.get("tool_calls"):
        fields["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    return fields


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def error(message: str, kind: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error body in OpenAI's shape."""
    return dump({"error": {"message": message, "type": kind, "param": param, "code": code}})


def model_list(models: Sequence[str]) -> bytes:
    """The body of `GET /v1/models`."""
    data = [{"id": model, "object": "model", "created": 0, "owned_by": "simulator"} for model in models]
    return dump({"object": "list", "data": data})
