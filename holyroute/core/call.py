"""A request read as a chat completion."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

    from holyroute.core.cancel import CancelToken

VIRTUAL = "route:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """How the caller wants targets chosen; None leaves it to the configuration."""

    task: str | None = None
    priority: str | None = None
    models: tuple[str, ...] | None = None  # exactly these, in this order
    order: str | None = None  # listed, cheapest, fastest, weighted
    max_latency: str | None = None  # a latency class; slower targets go last
    direct: bool = False  # the first candidate only: no substitution


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a drop-in call came from: what the script wrote."""

    request: PreparedRequest
    base_url: str  # the URL up to, and without, the dialect's path
    dialect: str = "openai"  # the name of the form that request and answer have


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One chat completion that somebody wants. Times in seconds."""

    model: str | None  # as the caller named it; None: the default route
    body: Mapping[str, Any] = field(repr=False)  # the decoded JSON body
    deadline: float
    connect: float
    read: float
    limit: float = math.inf  # for one attempt in all, from connecting to the last byte
    stream: bool = False  # the caller reads the body as it comes
    first_byte: float = math.inf  # of a stream, until anything comes
    background: bool = False  # live calls go first where a rate limit makes both wait
    replayed: bool = False  # and of those in the background, the ones that were parked go last
    waits: bool = True  # False: comes back at once where it would wait; the trace says when to come again
    cancel: CancelToken | None = field(default=None, repr=False)
    cache_control: str = ""  # as the HTTP header has it: `no-store`, `no-cache`
    scope: str = ""  # who may share its answers, free of secrets; empty: all calls with configured credentials
    selection: Selection = field(default_factory=Selection)
    origin: Origin | None = field(default=None, repr=False)

    @property
    def dialect(self) -> str:
        """The name of the form in which the caller asks, and wants the answer."""
        return self.origin.dialect if self.origin is not None else "openai"

    @property
    def asked(self) -> str | None:
        """What the caller named: a model, a route, or None."""
        if self.selection.models:
            return self.selection.models[0]
        if self.model is None and self.selection.task is not None:
            return f"{VIRTUAL}{self.selection.task}/{self.selection.priority or ''}".rstrip("/")
        return self.model

    @property
    def route_name(self) -> tuple[str, str] | None:
        """Task and priority of a virtual model name (`route:simple_qa/fast`), empty where left out; else None."""
        return route_named(self.model)

    @property
    def needs(self) -> frozenset[str]:
        """Abilities a target must have: those that the body asks for."""
        wanted = {"tools"} if self.body.get("tools") or self.body.get("functions") else set()
        form = self.body.get("response_format")
        if isinstance(form, dict) and form.get("type") in {"json_object", "json_schema"}:
            wanted.add(form["type"])
        if self.body.get("stream"):
            wanted.add("stream")
        if any(_has_image(message) for message in self.body.get("messages", ())):
            wanted.add("vision")
        return frozenset(wanted)

    @property
    def choices(self) -> int:
        """How many answers the body asks for."""
        wanted = self.body.get("n")
        return wanted if type(wanted) is int and wanted > 1 else 1

    @property
    def max_tokens(self) -> int | None:
        """The answer's length limit, where the caller set one."""
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        return limit if type(limit) is int else None


def route_named(model: str | None) -> tuple[str, str] | None:
    """Task and priority of a virtual model name, as `Call.route_name` has it."""
    if model is None or not model.startswith(VIRTUAL):
        return None
    task, _, priority = model.removeprefix(VIRTUAL).partition("/")
    return task, priority


def _has_image(message: Any) -> bool:
    content = message.get("content") if isinstance(message, dict) else None
    return isinstance(content, list) and any(
        isinstance(part, dict) and part.get("type") in {"image_url", "input_image", "image"} for part in content
    )
