"""The table of the dialect: what becomes of each field, stop reason and error on the way to OpenAI's form and back.

A field that no table names is refused. Facts from the public references of both APIs; where Anthropic's own
OpenAI-compatible endpoint takes a stand (temperature, names, penalties), so do we.
https://platform.claude.com/docs/en/api/messages · https://platform.claude.com/docs/en/api/openai-sdk
"""

from __future__ import annotations

from typing import NamedTuple

from holyroute.dialects.base import SAME, TRANSLATED, dropped, refused

_HINT = "a hint about thinking, which models without it refuse"
_CACHE = "changes what a prompt costs, not what is answered"
_TIER = "each provider has its own tiers"
_SERVER_SIDE = "needs tools that run at the provider"
_LEGACY = "the old form of tools: its answers have another form"

# --- requests ---------------------------------------------------------------------------------------------------------

FROM_OPENAI = {
    "model": SAME,  # the target's own name takes its place
    "messages": TRANSLATED,
    "max_tokens": TRANSLATED,  # required there: else the target's `max_output`, else 4096
    "max_completion_tokens": TRANSLATED,
    "stop": TRANSLATED,
    "tools": TRANSLATED,
    "tool_choice": TRANSLATED,
    "parallel_tool_calls": TRANSLATED,
    "response_format": TRANSLATED,  # a JSON schema; plain JSON mode is refused
    "user": TRANSLATED,
    "safety_identifier": TRANSLATED,
    "temperature": TRANSLATED,  # at most 1 there; more becomes 1, as at Anthropic's own compatible endpoint
    "top_p": TRANSLATED,  # 1 is left out: newer models refuse it beside a temperature
    "top_k": SAME,  # an extension of many providers
    "stream": SAME,
    "stream_options": dropped("streams always tell their usage there; it is handed on as asked"),
    "n": refused("there is one answer to a request", 1),
    "logprobs": refused("there are no log probabilities", False),
    "top_logprobs": refused("there are no log probabilities", 0),
    "logit_bias": refused("tokens cannot be favoured or forbidden", {}),
    "modalities": refused("answers are text", ["text"]),
    "audio": refused("answers are text"),
    "functions": refused(_LEGACY, []),
    "function_call": refused(_LEGACY, "auto", "none"),
    "web_search_options": refused(_SERVER_SIDE),
    "moderation": refused("answers tell nothing of moderation"),
    "seed": dropped("best effort where it is known, and another model answers otherwise anyway"),
    "frequency_penalty": dropped("a matter of style without a counterpart"),
    "presence_penalty": dropped("a matter of style without a counterpart"),
    "verbosity": dropped("a matter of style without a counterpart"),
    "reasoning_effort": dropped(_HINT),
    "prediction": dropped("makes answers faster, not other"),
    "prompt_cache_key": dropped(_CACHE),
    "prompt_cache_options": dropped(_CACHE),
    "prompt_cache_retention": dropped(_CACHE),
    "service_tier": dropped(_TIER),
    "store": dropped("is about what the provider keeps"),
    "metadata": dropped("is about what the provider keeps"),
}

TO_OPENAI = {
    "model": SAME,
    "messages": TRANSLATED,
    "system": TRANSLATED,
    "max_tokens": TRANSLATED,
    "stop_sequences": TRANSLATED,
    "stream": TRANSLATED,
    "tools": TRANSLATED,
    "tool_choice": TRANSLATED,
    "output_config": TRANSLATED,
    "metadata": TRANSLATED,
    "temperature": SAME,
    "top_p": SAME,
    "top_k": dropped("a sampling hint that OpenAI's own API refuses"),
    "thinking": TRANSLATED,  # a hint that is left out, except where it would not let the caller's next turn pass
    "cache_control": dropped(_CACHE),
    "service_tier": dropped(_TIER),
    "container": refused(_SERVER_SIDE),
    "mcp_servers": refused(_SERVER_SIDE, []),
    "context_management": refused("edits the conversation at the provider"),
    "inference_geo": refused("binds the call to a region"),
}

# --- parts of requests ------------------------------------------------------------------------------------------------

TOOL = {  # as Anthropic defines them; `type` is read before
    "type": SAME,
    "name": SAME,
    "description": SAME,
    "strict": SAME,
    "input_schema": TRANSLATED,
    "cache_control": dropped(_CACHE),
    "eager_input_streaming": dropped("is about how arguments are streamed"),
    "input_examples": dropped("a hint beside the description"),
    "defer_loading": refused(_SERVER_SIDE, False),
    "allowed_callers": refused(_SERVER_SIDE, ["direct"]),
}
FUNCTION = {"name": SAME, "description": SAME, "strict": SAME, "parameters": TRANSLATED}

# Blocks of Anthropic's messages. What the tables of single blocks do not name is refused with them.
TEXT = {
    "type": SAME,
    "text": SAME,
    "cache_control": dropped(_CACHE),
    "citations": dropped("where an answer came from; its text stays"),
}
IMAGE = {"type": SAME, "source": TRANSLATED, "cache_control": dropped(_CACHE)}
DOCUMENT = {
    "type": SAME,
    "source": TRANSLATED,
    "title": TRANSLATED,
    "cache_control": dropped(_CACHE),
    "citations": refused("answers cannot cite", {}, {"enabled": False}),
    "context": refused("documents have no context"),
}
TOOL_USE = {"type": SAME, "id": SAME, "name": SAME, "input": SAME, "cache_control": dropped(_CACHE)} | {
    "caller": refused(_SERVER_SIDE, {"type": "direct"})
}
TOOL_RESULT = {"type": SAME, "tool_use_id": SAME, "content": TRANSLATED, "cache_control": dropped(_CACHE)} | {
    "is_error": TRANSLATED
}

# Thoughts of earlier turns: only the model that had them can use them.
THOUGHTS = ("thinking", "redacted_thinking")

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
PDF = "application/pdf"

DEFAULT_MAX_TOKENS = 4096
"""Where neither the caller nor the target's settings say more: every model since Claude 3 can write as much."""

MAX_STOPS = 4
"""Stop sequences that OpenAI takes."""

# --- answers ----------------------------------------------------------------------------------------------------------

FINISH_REASON = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # the turn is not over, and only its own provider could go on
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
STOP_REASON = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}

# --- errors -----------------------------------------------------------------------------------------------------------


class Error(NamedTuple):
    """One kind of error in both forms."""

    anthropic: tuple[int, str]  # status, type
    openai: tuple[int, str, str | None]  # status, type, code


# First match wins: by Anthropic's type, by OpenAI's code, else by status.
ERRORS = (
    Error((400, "invalid_request_error"), (400, "invalid_request_error", None)),
    Error((401, "authentication_error"), (401, "invalid_request_error", "invalid_api_key")),
    Error((403, "permission_error"), (403, "permission_error", "permission_denied")),
    Error((404, "not_found_error"), (404, "invalid_request_error", "model_not_found")),
    Error((413, "request_too_large"), (413, "invalid_request_error", "request_too_large")),
    Error((429, "rate_limit_error"), (429, "requests", "rate_limit_exceeded")),
    Error((500, "api_error"), (500, "server_error", None)),
    Error((504, "timeout_error"), (504, "server_error", "timeout")),
    Error((529, "overloaded_error"), (503, "server_error", "server_is_overloaded")),
    Error((402, "billing_error"), (429, "insufficient_quota", "insufficient_quota")),
)

# What Anthropic says in words only, and OpenAI's scripts look for in `code`.
CODE_OF_PHRASE = (
    ("prompt is too long", "context_length_exceeded"),
    ("exceed context limit", "context_length_exceeded"),
    ("credit balance is too low", "insufficient_quota"),
)
