"""The typed answer: usage, cost and completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from holyroute.core.target import Price
    from holyroute.core.ticket import Ticket
    from holyroute.core.trace import Trace

_ABSURD = 1_000_000_000  # tokens; no model reads or writes that many


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the provider reported them."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False  # counted by us: the provider did not report

    @property
    def total_tokens(self) -> int:
        """Both directions together."""
        return self.prompt_tokens + self.completion_tokens

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Usage | None:
        """Usage of a decoded answer; None where it is missing or absurd (negative, no whole number, beyond reason)."""
        usage = answer.get("usage")
        if not isinstance(usage, dict):
            return None
        prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        if type(prompt) is not int or type(completion) is not int or not prompt | completion:
            return None
        return cls(prompt, completion) if 0 <= prompt < _ABSURD and 0 <= completion < _ABSURD else None

    def cost(self, price: Price | None) -> Decimal | None:
        """Exact USD at a price per million tokens; None where the price is unknown, never 0."""
        if price is None:
            return None
        return (self.prompt_tokens * price.input + self.completion_tokens * price.output) / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model answered, and what it took.

    `success` is False only where the caller asked for failures as values (`on_failure="return"`); `error` then is the
    exception that would have been raised, and `content` is empty.
    """

    content: str
    model: str | None  # the target that answered
    model_asked: str | None  # what the caller named: a model, a route, or None for the default route
    latency_ms: float  # of the whole call, failed attempts and waits included
    usage: Usage | None = None
    cost_usd: Decimal | None = None  # all attempts of the call; None where any price or usage is unknown
    finish_reason: str | None = None
    cached: bool = False
    success: bool = True
    error: Exception | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the decoded answer
    trace: Trace | None = field(default=None, repr=False)

    @property
    def ticket(self) -> Ticket | None:
        """Where the call was parked because nobody could answer; None otherwise."""
        return self.trace.ticket if self.trace is not None else None

    @property
    def message(self) -> Mapping[str, Any]:
        """The first choice's message, with tool calls and all."""
        choices = self.raw.get("choices") or [{}]
        message = choices[0].get("message")
        return message if isinstance(message, dict) else {}

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tools the model wants called; empty for a plain answer."""
        return list(self.message.get("tool_calls") or [])
