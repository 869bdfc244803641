"""The bytes of Anthropic-shaped answers: messages, streams of named events, errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from holyroute.simulator.answers import Answer, Events, Json, dump, tokens_of, usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def completion(answer: Answer) -> bytes:
    """A `message` object."""
    return dump({**_head(answer), "content": _blocks(answer), **_end(answer), **_usage(answer)})


def events(answer: Answer) -> Events:
    """The events of an answer. Arguments of tools arrive in one piece; the usage is told always."""
    start = {**_head(answer), "content": [], "stop_reason": None, "stop_sequence": None, **_usage(answer)}
    first, tokens, last = [event("message_start", message=start)], [], []
    for index, block in enumerate(_blocks(answer)):
        if block["type"] == "text":
            first.append(event("content_block_start", index=index, content_block={"type": "text", "text": ""}))
            tokens = [_delta(index, "text_delta", text=token) for token in tokens_of(block["text"])]
        else:
            last.append(event("content_block_start", index=index, content_block={**block, "input": {}}))
            last.append(_delta(index, "input_json_delta", partial_json=json.dumps(block["input"])))
        last.append(event("content_block_stop", index=index))
    if answer.finish_reason:
        last.append(event("message_delta", delta=_end(answer), **_usage(answer)))
    return Events(first, tokens, [*last, event("message_stop")])


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event, which has its type as its name."""
    return b"event: " + kind.encode() + b"\ndata: " + dump({"type": kind, **fields}) + b"\n\n"


def error(status: int, message: str) -> bytes:
    """An error body; its type follows from the status."""
    kind = _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return dump({"type": "error", "error": {"type": kind, "message": message}})


def _delta(index: int, kind: str, **fields: str) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def _head(answer: Answer) -> Json:
    return {"id": answer.id, "type": "message", "role": "assistant", "model": answer.model}


def _blocks(answer: Answer) -> list[Json]:
    if not answer.choices:
        return []
    calls = (answer.message or {}).get("tool_calls") or []
    text: list[Json] = [{"type": "text", "text": answer.content}] if answer.content is not None else []
    return [*text, *(_use(call["id"], call["function"]) for call in calls)]


def _use(call_id: str, function: Mapping[str, str]) -> Json:
    return {"type": "tool_use", "id": call_id, "name": function["name"], "input": json.loads(function["arguments"])}


def _end(answer: Answer) -> Json:
    refusal = (answer.message or {}).get("refusal")
    reason = "refusal" if refusal else _STOP_REASONS.get(answer.finish_reason or "")
    details = {"type": "refusal", "category": None, "explanation": refusal}
    return {"stop_reason": reason, "stop_sequence": None, **({"stop_details": details} if refusal else {})}


def _usage(answer: Answer) -> Json:
    told = usage_of(answer)
    usage = {"input_tokens": told["prompt_tokens"], "output_tokens": told["completion_tokens"]}
    return {"usage": usage} if answer.report_usage else {}
