"""OpenTelemetry's semantic conventions for generative AI, as far as a chat completion needs them. Knows no library.

Source: github.com/open-telemetry/semantic-conventions-genai, docs/gen-ai (status: development), spans and metrics.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from holyroute.dialects.base import Untranslatable
from holyroute.dialects.translation import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.call import Call
    from holyroute.core.completion import Usage
    from holyroute.core.target import Target

    Attributes = dict[str, Any]

OTHER = "_OTHER"  # the conventions' word for what is in no list

# Boundaries that the conventions give for their histograms: seconds, and tokens.
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = tuple(4**power for power in range(14))

# Well-known values of `gen_ai.provider.name`, by the end of the host.
_PROVIDERS = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    ".openai.azure.com": "azure.ai.openai",
    ".services.ai.azure.com": "azure.ai.inference",
    ".models.ai.azure.com": "azure.ai.inference",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    ".amazonaws.com": "aws.bedrock",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.deepseek.com": "deepseek",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral_ai",
    "api.moonshot.ai": "moonshot_ai",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
}
_OF_DIALECT = {"azure": "azure.ai.openai"}  # deployments stand behind hosts of any name

_FIGURES = {  # of a request, in OpenAI's form and Anthropic's
    "frequency_penalty": "frequency_penalty",
    "max_completion_tokens": "max_tokens",
    "max_tokens": "max_tokens",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
}

_DEFAULT_PORTS = {"https": 443, "http": 80}


@lru_cache(1_024)
def server(base_url: str) -> Mapping[str, str | int]:
    """`server.address` and `server.port` of a base URL."""
    parts = urlsplit(base_url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return {"server.address": parts.hostname or "", **({} if port is None else {"server.port": port})}


@lru_cache(1_024)
def well_known_provider(base_url: str, dialect: str) -> str | None:
    """`gen_ai.provider.name`, where the conventions have one."""
    host = (urlsplit(base_url).hostname or "").lower()
    known = (name for end, name in _PROVIDERS.items() if host == end.removeprefix(".") or host.endswith(end))
    return next(known, _OF_DIALECT.get(dialect))


def of_target(target: Target) -> Attributes:
    """Who is asked."""
    provider = target.provider
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": well_known_provider(provider.base_url, provider.dialect) or provider.name,
        "gen_ai.request.model": target.model,
        **server(provider.base_url),
    }


def of_request(call: Call) -> Attributes:
    """What is asked for, without a word of the prompt."""
    body = call.body
    told: Attributes = {f"gen_ai.request.{name}": body[key] for key, name in _FIGURES.items() if _is_figure(body, key)}
    if call.choices != 1:
        told["gen_ai.request.choice.count"] = call.choices
    if call.stream or body.get("stream") is True:
        told["gen_ai.request.stream"] = True
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") in {"json_object", "json_schema"}:
        told["gen_ai.output.type"] = "json"
    return told


def of_answer(answer: Mapping[str, Any] | None, usage: Usage | None) -> Attributes:
    """What came back, without a word of it. Usage that we counted ourselves is none that was reported."""
    told: Attributes = {}
    if answer is not None:
        for name in ("id", "model"):
            if isinstance(answer.get(name), str):
                told[f"gen_ai.response.{name}"] = answer[name]
        reasons = [reason for one in _choices(answer) if isinstance(reason := one.get("finish_reason"), str)]
        if reasons:
            told["gen_ai.response.finish_reasons"] = reasons
    if usage is not None and not usage.estimated:
        told["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        told["gen_ai.usage.output_tokens"] = usage.completion_tokens
    return told


def prompt(call: Call) -> Attributes:
    """The prompt, for those who asked for it."""
    body: Mapping[str, Any]
    try:
        body = DIALECTS[call.dialect].request_to_openai(call.body)
    except Untranslatable:
        body = call.body
    messages = body.get("messages")
    listed = [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
    told = {"gen_ai.input.messages": _text([_message(one) for one in listed])}
    if isinstance(tools := body.get("tools"), list):
        told["gen_ai.tool.definitions"] = _text(tools)
    return told


def words(answer: Mapping[str, Any] | None) -> Attributes:
    """The answer, for those who asked for it."""
    said = [
        {
            **_message(_object(one.get("message")), role="assistant"),
            "finish_reason": one.get("finish_reason") or "error",
        }
        for one in _choices(answer or {})
    ]
    return {"gen_ai.output.messages": _text(said)} if said else {}


def _message(message: Mapping[str, Any], role: str = "user") -> dict[str, Any]:
    """One message in parts, as the conventions' JSON schema has it."""
    role, content = message.get("role") or role, message.get("content")
    if role == "tool":
        return {"role": role, "parts": [_tool_response(message)]}
    pieces = content if isinstance(content, list) else [{"type": "text", "text": content}] if content else []
    parts = [_part(one) for one in pieces if isinstance(one, dict)]
    calls = message.get("tool_calls")
    parts += [_tool_call(one) for one in calls if isinstance(one, dict)] if isinstance(calls, list) else []
    return {"role": role, "parts": parts}


def _part(piece: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "text", "content": piece.get("text")} if piece.get("type") == "text" else dict(piece)


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = _object(call.get("function"))
    return {
        "type": "tool_call",
        "id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments"),
    }


def _tool_response(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": message.get("content")}


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _choices(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = answer.get("choices")
    return [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []


def _is_figure(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: Any) -> str:
    """JSON that every exporter can encode: half a character, which JSON may hold, is a question mark."""
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "replace").decode()
