"""Whole answers: content, calls of tools, reasons to stop, usage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holyroute.dialects.anthropic import parts, tables
from holyroute.dialects.anthropic.failures import error_from_openai, error_to_openai, is_error
from holyroute.dialects.base import Untranslatable
from holyroute.dialects.errors import is_openai_error

if TYPE_CHECKING:
    from holyroute.dialects.base import Json


def judged(answer: Any) -> Any:
    """What the error table reads of a message: blocks that OpenAI does not know, of search and the like, say something.

    Raises nothing.
    """
    try:
        return answer_to_openai(answer)
    except Untranslatable:
        said = [block for block in answer["content"] if isinstance(block, dict)]
        bare = answer_to_openai({**answer, "content": []})
        bare["choices"][0]["message"]["content"] = said
        return bare


def answer_to_openai(answer: Any) -> Any:
    """An Anthropic message as a chat completion; what is no message stays no completion.

    `created` is 0: Anthropic does not tell the time.
    """
    if is_error(answer):
        return error_to_openai(500, answer)[1]
    if not isinstance(answer, dict) or not isinstance(answer.get("content"), list):
        return answer
    finish_reason = finish_reason_of(answer.get("stop_reason"))
    choice = {"index": 0, "message": _message(answer), "logprobs": None, "finish_reason": finish_reason}
    made = {
        "id": answer.get("id"),
        "object": "chat.completion",
        "created": 0,
        "model": answer.get("model"),
        "choices": [choice],
    }
    usage = usage_to_openai(answer.get("usage"))
    return made if usage is None else {**made, "usage": usage}


def answer_from_openai(answer: Any) -> Any:
    """A chat completion as an Anthropic message; what is no completion stays no message."""
    if is_openai_error(answer):
        return error_from_openai(500, answer)[1]
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        return answer
    if len(choices) > 1:
        raise Untranslatable("choices[1]", "there is one answer to a request")
    choice = parts.table(choices[0], "choices[0]")
    message = parts.table(choice.get("message"), "choices[0].message")
    content = _blocks(message, answer.get("id"))
    refusal = message.get("refusal")
    said = refusal if isinstance(refusal, str) and refusal else None
    reason = stop_reason_of(choice.get("finish_reason"), calls=any(one["type"] == "tool_use" for one in content))
    return {
        "id": answer.get("id"),
        "type": "message",
        "role": "assistant",
        "model": answer.get("model"),
        "content": content,
        **stopped("refusal" if said else reason, said),
        "usage": usage_from_openai(answer.get("usage")),
    }


def _message(answer: Json) -> Json:
    texts, calls = [], []
    for at, one in enumerate(answer["content"]):
        path = f"content[{at}]"
        block = parts.table(one, path)
        kind = block.get("type")
        if kind == "text":
            texts.append(parts.text(block.get("text"), f"{path}.text"))
        elif kind == "tool_use":
            calls.append(parts.call_of_use(block, path))
        elif kind not in tables.THOUGHTS:
            raise Untranslatable(f"{path}.type", "no such part of an answer there")
    refusal = refusal_of(answer)
    content = "".join(texts) or (None if calls or refusal else "")
    message: Json = {"role": "assistant", "content": content, "refusal": refusal}
    return {**message, "tool_calls": calls} if calls else message


def _blocks(message: Json, answer_id: Any) -> list[Json]:
    for field in ("audio", "function_call"):
        if message.get(field) is not None:
            raise Untranslatable(f"choices[0].message.{field}", "no such part of an answer there")
    path = "choices[0].message.content"
    content = message.get("content")
    blocks = [{"type": "text", "text": parts.text(content, path)}] if content else []
    path = "choices[0].message.tool_calls"
    for at, one in enumerate(parts.items(message.get("tool_calls"), path)):
        call = parts.table(one, f"{path}[{at}]")
        blocks.append(parts.use_of_call({**call, "id": call_id(call.get("id"), answer_id, at)}, f"{path}[{at}]"))
    return blocks


def call_id(given: Any, answer_id: Any, at: int) -> str:
    """The id of a call; where a provider gives none, one that no other call of the conversation has."""
    if isinstance(given, str) and given:
        return parts.tool_id(given, "id")
    return parts.tool_id(f"toolu_{answer_id if isinstance(answer_id, str) else ''}_{at}", "id")


# --- why it stopped ---------------------------------------------------------------------------------------------------


def finish_reason_of(stop_reason: Any) -> Any:
    """OpenAI's word for a reason; a word that nobody knows yet stays as it is."""
    return tables.FINISH_REASON.get(stop_reason, stop_reason) if isinstance(stop_reason, str) else None


def stop_reason_of(finish_reason: Any, *, calls: bool) -> Any:
    """Anthropic's word for a reason. A forced call ends with "stop" at OpenAI, with "tool_use" at Anthropic."""
    if finish_reason == "stop" and calls:
        return "tool_use"
    return tables.STOP_REASON.get(finish_reason, finish_reason) if isinstance(finish_reason, str) else None


def refusal_of(ended: Json) -> str | None:
    """What a message, or the delta that ends a stream, says of a refusal."""
    details = ended.get("stop_details")
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return explanation if isinstance(explanation, str) and explanation else None


def stopped(reason: Any, refusal: str | None) -> Json:
    """How Anthropic tells why an answer ended."""
    ended: Json = {"stop_reason": reason, "stop_sequence": None}
    if refusal is not None:
        ended["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return ended


# --- usage ------------------------------------------------------------------------------------------------------------


def usage_to_openai(usage: Any) -> Json | None:
    """Anthropic counts what was written to and read from the cache beside the input, OpenAI within it."""
    if not isinstance(usage, dict):
        return None
    read, written = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    prompt = _count(usage, "input_tokens") + read + written
    completion = _count(usage, "output_tokens")
    thinking = _count(usage.get("output_tokens_details"), "thinking_tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": thinking},
    }


def usage_from_openai(usage: Any) -> Json:
    """The same in Anthropic's words. Where nothing was reported it holds zeros: its scripts add without asking."""
    given = usage if isinstance(usage, dict) else {}
    details = given.get("prompt_tokens_details")
    read, written = _count(details, "cached_tokens"), _count(details, "cache_write_tokens")
    made: Json = {
        "input_tokens": max(0, _count(given, "prompt_tokens") - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": _count(given, "completion_tokens"),
    }
    thinking = _count(given.get("completion_tokens_details"), "reasoning_tokens")
    return {**made, "output_tokens_details": {"thinking_tokens": thinking}} if thinking else made


def _count(table: Any, name: str) -> int:
    value = table.get(name) if isinstance(table, dict) else None
    return value if type(value) is int else 0
