"""Anthropic's requests in OpenAI's form.

What moves: results of tools become messages of their own, before what else their message says; a failed one says so in
its text; a single text block becomes a string. What cannot move is refused with its path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holyroute.dialects.anthropic import parts, tables
from holyroute.dialects.base import TRANSLATED, Fate, Untranslatable, dropped, sorted_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.dialects.base import Json

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_OUTPUT = {"effort": dropped("a hint about thinking, which models without it refuse"), "format": TRANSLATED}
_FAILED = "Error: "


def request_to_openai(body: Mapping[str, Any]) -> Json:
    """An Anthropic request in OpenAI's form."""
    kept = sorted_out(tables.TO_OPENAI, body)
    tools = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(parts.items(kept.get("tools"), "tools"))]
    choice, parallel = _choice(kept.get("tool_choice"))
    _leave_out_thinking(kept.get("thinking"), tools)
    made = {
        "max_completion_tokens": _limit(kept.get("max_tokens")),
        "stop": _stops(kept.get("stop_sequences")),
        "tools": tools or None,
        "tool_choice": choice,
        "parallel_tool_calls": parallel,
        "response_format": _format(kept.get("output_config")),
        "user": _user(kept.get("metadata")),
        "stream": kept.get("stream"),
        "stream_options": {"include_usage": True} if kept.get("stream") else None,  # always told at Anthropic
    }
    return {
        **{name: value for name, value in kept.items() if tables.TO_OPENAI[name].fate is Fate.SAME},
        "messages": [*_system(kept.get("system")), *_messages(parts.items(kept.get("messages"), "messages"))],
        **{name: value for name, value in made.items() if value is not None},
    }


# --- messages ---------------------------------------------------------------------------------------------------------


def _system(given: Any) -> list[Json]:
    texts = _texts(given, "system")
    return [{"role": "system", "content": parts.content_of_parts(texts)}] if texts else []


def _messages(given: list[Any]) -> list[Json]:
    messages: list[Json] = []
    for at, one in enumerate(given):
        path = f"messages[{at}]"
        message = parts.table(one, path)
        role = message.get("role")
        make = _OF_ROLE.get(role) if isinstance(role, str) else None
        if make is None:
            raise Untranslatable(f"{path}.role", "no such role there")
        messages += make(message.get("content"), f"{path}.content")
    if messages and messages[-1]["role"] == "assistant":
        raise Untranslatable(f"messages[{len(given) - 1}]", "an answer that was begun is not carried on there")
    return messages


def _texts(content: Any, path: str) -> list[Json]:
    """Text parts of a string, or of a list of text blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks = enumerate(parts.items(content, path))
    return [parts.text_part(_text_block(block, f"{path}[{at}]"), f"{path}[{at}].") for at, block in blocks]


def _text_block(block: Any, path: str) -> Json:
    given = parts.table(block, path)
    if given.get("type") != "text":
        raise Untranslatable(f"{path}.type", "only text can stand here")
    return given


def _of_user(content: Any, path: str) -> list[Json]:
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    results, others = [], []
    for at, one in enumerate(parts.items(content, path)):
        block = parts.table(one, f"{path}[{at}]")
        if block.get("type") == "tool_result":
            results.append(_result(block, f"{path}[{at}]"))
        else:
            others.append(parts.part_of_block(block, f"{path}[{at}]"))
    return [*results, *([{"role": "user", "content": parts.content_of_parts(others)}] if others else [])]


def _result(block: Json, path: str) -> Json:
    kept = sorted_out(tables.TOOL_RESULT, block, f"{path}.")
    texts = _texts(kept.get("content"), f"{path}.content")
    if kept.get("is_error"):
        texts = [{"type": "text", "text": _FAILED + "".join(part["text"] for part in texts)}]
    call = parts.name(kept.get("tool_use_id"), f"{path}.tool_use_id")
    return {"role": "tool", "tool_call_id": call, "content": parts.content_of_parts(texts) or ""}


def _of_assistant(content: Any, path: str) -> list[Json]:
    if isinstance(content, str):
        return [{"role": "assistant", "content": content}]
    texts, calls = [], []
    for at, one in enumerate(parts.items(content, path)):
        block = parts.table(one, f"{path}[{at}]")
        kind = block.get("type")
        if kind == "tool_use":
            calls.append(parts.call_of_use(block, f"{path}[{at}]"))
        elif kind not in tables.THOUGHTS:
            texts.append(parts.text_part(_text_block(block, f"{path}[{at}]"), f"{path}[{at}]."))
    if not texts and not calls:
        return []
    message = {"role": "assistant", "content": parts.content_of_parts(texts) if texts else None}
    return [{**message, "tool_calls": calls} if calls else message]


def _of_system(content: Any, path: str) -> list[Json]:
    return [{"role": "system", "content": parts.content_of_parts(_texts(content, path)) or ""}]


_OF_ROLE = {"user": _of_user, "assistant": _of_assistant, "system": _of_system}


# --- everything else --------------------------------------------------------------------------------------------------


def _leave_out_thinking(thinking: Any, tools: list[Json]) -> None:
    """Thinking is a hint; but where it is `enabled` Anthropic takes no call back that came without a thought.

    A script whose tools were called by a substitute would get a 400 for the result. (`adaptive` has no such rule.)
    """
    if tools and isinstance(thinking, dict) and thinking.get("type") == "enabled":
        raise Untranslatable("thinking", "with it Anthropic would refuse the results of a substitute's calls")


def _limit(value: Any) -> Any:
    if value == 0:
        raise Untranslatable("max_tokens", "filling a cache without an answer")
    return value


def _stops(given: Any) -> list[Any] | None:
    stops = parts.items(given, "stop_sequences")
    if len(stops) > tables.MAX_STOPS:
        raise Untranslatable("stop_sequences", f"at most {tables.MAX_STOPS} are taken there")
    return stops or None


def _tool(tool: Any, path: str) -> Json:
    given = parts.table(tool, path)
    if given.get("type") not in (None, "custom"):
        raise Untranslatable(f"{path}.type", "a tool that only its own provider knows")
    kept = sorted_out(tables.TOOL, given, f"{path}.")
    function = {name: value for name, value in kept.items() if name in tables.FUNCTION}
    schema = parts.table(kept.get("input_schema"), f"{path}.input_schema")
    parts.name(kept.get("name"), f"{path}.name")
    return {"type": "function", "function": {**function, "parameters": schema}}


def _choice(given: Any) -> tuple[Any, bool | None]:
    if given is None:
        return None, None
    choice = parts.table(given, "tool_choice")
    kind = choice.get("type")
    parallel = False if choice.get("disable_parallel_tool_use") else None
    if kind == "tool":
        name = parts.name(choice.get("name"), "tool_choice.name")
        return {"type": "function", "function": {"name": name}}, parallel
    if not isinstance(kind, str) or kind not in _CHOICES:
        raise Untranslatable("tool_choice.type", "no such choice there")
    return _CHOICES[kind], parallel


def _format(given: Any) -> Json | None:
    """Anthropic keeps to a schema always, OpenAI where it is told to."""
    kept = sorted_out(_OUTPUT, parts.table({} if given is None else given, "output_config"), "output_config.")
    if not kept:
        return None
    form = parts.table(kept["format"], "output_config.format")
    if form.get("type") != "json_schema":
        raise Untranslatable("output_config.format.type", "no such format there")
    schema = parts.table(form.get("schema"), "output_config.format.schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def _user(metadata: Any) -> Any:
    user = parts.table({} if metadata is None else metadata, "metadata").get("user_id")
    return user if isinstance(user, str) and user else None
