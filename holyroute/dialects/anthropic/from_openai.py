"""Requests of OpenAI's form as Anthropic takes them.

What moves: system messages go to the front, as at Anthropic's own compatible endpoint; results of tools that follow
one another become one message of the user; blank texts go. What cannot move is refused with its path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from holyroute.dialects.anthropic import parts, tables
from holyroute.dialects.base import Fate, Untranslatable, sorted_out

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.target import Target
    from holyroute.dialects.base import Json

# Anthropic refuses ids that look like an e-mail address or a telephone number, or are longer than this.
_PERSONAL = re.compile(r".*@.*|\+?[\d\s()./-]{7,}|.{257,}", re.DOTALL)

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def request_from_openai(body: Mapping[str, Any], target: Target) -> Json:
    """A request of OpenAI's form as Anthropic takes it, with the `max_tokens` that is required there."""
    kept = sorted_out(tables.FROM_OPENAI, body)
    system, messages = _conversation(parts.items(kept.get("messages"), "messages"))
    tools = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(parts.items(kept.get("tools"), "tools"))]
    made = {
        "system": system,
        "stop_sequences": _stops(kept.get("stop")),
        "temperature": _temperature(kept.get("temperature")),
        "top_p": None if kept.get("top_p") == 1 else kept.get("top_p"),
        "tools": tools or None,
        "tool_choice": _choice(kept, tools),
        "output_config": _format(kept.get("response_format")),
        "metadata": _metadata(kept),
    }
    return {
        **{name: value for name, value in kept.items() if tables.FROM_OPENAI[name].fate is Fate.SAME},
        "max_tokens": _limit(kept, target),
        "messages": messages,
        **{name: value for name, value in made.items() if value is not None},
    }


# --- messages ---------------------------------------------------------------------------------------------------------


def _conversation(given: list[Any]) -> tuple[str | list[Json] | None, list[Json]]:
    """The system prompt, and the messages."""
    system: list[Any] = []
    messages: list[Json] = []
    after_tool = False
    for at, one in enumerate(given):
        path = f"messages[{at}]"
        message = parts.table(one, path)
        role = message.get("role")
        if role in ("system", "developer"):
            system.append(_content(message.get("content"), f"{path}.content"))
        elif role == "tool" and after_tool:
            messages[-1]["content"].append(_result(message, path))
        else:
            messages += _message(role, message, path)
        after_tool = role == "tool"
    if not messages:
        raise Untranslatable("messages", "holds nothing but a system prompt")
    if messages[-1]["role"] == "assistant":
        reason = "what an assistant said last is carried on there, not answered"
        raise Untranslatable(f"messages[{len(given) - 1}]", reason)
    return _system(system), messages


def _message(role: Any, message: Json, path: str) -> list[Json]:
    if role == "user":
        content = _content(message.get("content"), f"{path}.content")
        if not content:
            raise Untranslatable(f"{path}.content", "blank messages are refused there")
        return [{"role": "user", "content": content}]
    if role == "assistant":
        content = _of_assistant(message, path)
        return [{"role": "assistant", "content": content}] if content else []
    if role == "tool":
        return [{"role": "user", "content": [_result(message, path)]}]
    raise Untranslatable(f"{path}.role", "no such role there")


def _content(content: Any, path: str) -> str | list[Json]:
    """A string or the blocks; empty where there is nothing but blanks."""
    if content is None or isinstance(content, str):
        return content if content and content.strip() else ""
    blocks = (parts.block_of_part(part, f"{path}[{at}]") for at, part in enumerate(parts.items(content, path)))
    return [block for block in blocks if block is not None]


def _of_assistant(message: Json, path: str) -> str | list[Json]:
    for name in ("audio", "function_call"):
        if message.get(name) is not None:
            raise Untranslatable(f"{path}.{name}", "no such part of an answer there")
    content = _content(message.get("content"), f"{path}.content") or _content(message.get("refusal"), f"{path}.refusal")
    calls = parts.items(message.get("tool_calls"), f"{path}.tool_calls")
    if not calls:
        return content
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) and content else list(content)
    return [*blocks, *(parts.use_of_call(call, f"{path}.tool_calls[{at}]") for at, call in enumerate(calls))]


def _result(message: Json, path: str) -> Json:
    content = _content(message.get("content"), f"{path}.content")
    result = {
        "type": "tool_result",
        "tool_use_id": parts.tool_id(message.get("tool_call_id"), f"{path}.tool_call_id"),
    }
    return {**result, "content": content} if content else result


def _system(contents: list[str | list[Json]]) -> str | list[Json] | None:
    contents = [content for content in contents if content]
    if len(contents) == 1:
        return contents[0]
    blocks: list[Json] = []
    for content in contents:
        blocks += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return blocks or None


# --- everything else --------------------------------------------------------------------------------------------------


def _limit(kept: Json, target: Target) -> Any:
    asked = kept.get("max_completion_tokens", kept.get("max_tokens"))
    return asked if asked is not None else target.max_output or tables.DEFAULT_MAX_TOKENS


def _stops(stop: Any) -> list[str] | None:
    stops = [stop] if isinstance(stop, str) else parts.items(stop, "stop")
    if not all(parts.text(one, "stop").strip() for one in stops):
        raise Untranslatable("stop", "stop sequences of white space alone are refused there")
    return stops or None


def _temperature(value: Any) -> Any:
    """At most 1: temperatures have no common scale, and 1 is as far as Anthropic's goes."""
    return min(value, 1) if isinstance(value, int | float) else value


def _tool(tool: Any, path: str) -> Json:
    given = parts.table(tool, path)
    if given.get("type") != "function":
        raise Untranslatable(f"{path}.type", "tools take JSON")
    path = f"{path}.function"
    kept = sorted_out(tables.FUNCTION, parts.table(given.get("function"), path), f"{path}.")
    parameters = parts.table(kept.pop("parameters", {}), f"{path}.parameters")
    if parameters.get("type", "object") != "object":
        raise Untranslatable(f"{path}.parameters.type", "the input of a tool is an object")
    schema = {"type": "object", **parameters} if parameters else {"type": "object", "properties": {}}
    return {**kept, "name": parts.name(kept.get("name"), f"{path}.name"), "input_schema": schema}


def _choice(kept: Json, tools: list[Json]) -> Json | None:
    one_at_a_time = kept.get("parallel_tool_calls") is False
    given = kept.get("tool_choice", "auto" if one_at_a_time else None)
    if given is None or (not tools and given in ("auto", "none")):
        return None
    if isinstance(given, str) and given in _CHOICES:
        choice = {"type": _CHOICES[given]}
    else:
        choice = {"type": "tool", "name": _named_tool(given)}
    return {**choice, "disable_parallel_tool_use": True} if one_at_a_time and given != "none" else choice


def _named_tool(given: Any) -> str:
    choice = parts.table(given, "tool_choice")
    if choice.get("type") != "function":
        raise Untranslatable("tool_choice.type", "no such choice there")
    function = parts.table(choice.get("function"), "tool_choice.function")
    return parts.name(function.get("name"), "tool_choice.function.name")


def _format(given: Any) -> Json | None:
    kind = given.get("type") if isinstance(given, dict) else given
    if kind is None or kind == "text":
        return None
    if kind != "json_schema":
        raise Untranslatable("response_format", "JSON without a schema cannot be promised there")
    path = "response_format.json_schema"
    schema = parts.table(parts.table(given.get("json_schema"), path).get("schema"), f"{path}.schema")
    return {"format": {"type": "json_schema", "schema": schema}}


def _metadata(kept: Json) -> Json | None:
    user = kept.get("user", kept.get("safety_identifier"))
    return {"user_id": user} if isinstance(user, str) and user and not _PERSONAL.fullmatch(user) else None
