"""What may be cached, and under which key: two calls share a key only if the same answer serves both."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from holyroute.core import codec

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
    routed = (chosen.task, chosen.priority, chosen.models, chosen.order, chosen.max_latency, chosen.direct)
    try:
        # A message is the same in any order of its keys; elsewhere the order may be meaning: structured answers follow
        # the order of their schema.
        messages = codec.dumps(parameters.pop("messages", None), sorted_keys=True)
        rest = codec.dumps(sorted(parameters.items()))
    except (TypeError, ValueError, RecursionError):
        return None
    who = repr((call.scope, call.model, *routed)).encode()
    return hashlib.blake2b(b"".join((who, rest, messages)), digest_size=16).digest()
