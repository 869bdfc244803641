"""What may be cached, and under which key: two calls share a key only if the same answer serves both."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.call import Call

NO_STORE, NO_CACHE = "no-store", "no-cache"

# What makes an answer depend on more than the question: the world that a tool or a search looks at. The last ones are
# Azure's documents, Anthropic's servers and containers, OpenRouter's plugins, and xAI's search.
_LIVE = (
    *("stream", "tools", "functions", "web_search_options"),
    *("data_sources", "dataSources", "mcp_servers", "container", "plugins", "search_parameters"),
)

# NaN is no JSON and never sent. A message is the same in any order of its keys; elsewhere the order may be meaning:
# structured answers follow the order of their schema.
_canonical = json.JSONEncoder(check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode
_as_written = json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode


def is_deterministic(body: Mapping[str, Any]) -> bool:
    """Whether asking again is meant to give the same answer: temperature 0 or a seed, no tools, no stream."""
    temperature = body.get("temperature")
    if body.get("seed") is None and (type(temperature) not in {int, float} or temperature != 0):
        return False
    return not any(map(body.get, _LIVE))


def directives(cache_control: str) -> set[str]:
    """What a Cache-Control header says."""
    return {part.strip().lower() for part in cache_control.split(",")} if cache_control else set()


def key_of(call: Call) -> bytes | None:
    """A hash of everything that changes the answer, and of who may see it; None for what is no JSON."""
    chosen, parameters = call.selection, dict(call.body)
    try:
        messages = _canonical(parameters.pop("messages", None))
        rest = _as_written(
            [
                call.scope,
                call.model,
                chosen.task,
                chosen.priority,
                chosen.models,
                chosen.order,
                chosen.max_latency,
                chosen.direct,
                sorted(parameters.items()),
            ]
        )
    except (TypeError, ValueError, RecursionError):
        return None
    return hashlib.blake2b(f"{rest}{messages}".encode(), digest_size=16).digest()
