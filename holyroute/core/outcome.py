"""How one attempt ended, as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holyroute.core.verdicts import CANCELLED, Effect, Failover, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import Response

    from holyroute.core.completion import Usage
    from holyroute.core.stream import StreamReader
    from holyroute.core.target import Target
    from holyroute.core.trace import Trace


@dataclass(slots=True, kw_only=True)
class Outcome:
    """A verdict and what it was read from. Belongs to one call, whose trace is filled in when it is over."""

    verdict: Verdict
    status: int | None = None
    detail: str = ""  # a short reason for people, free of secrets
    retry_after: float | None = None  # seconds, as the server asked
    may_retry: bool | None = None  # the server's own word on asking it again (`x-should-retry`)
    response: Response | None = None
    error: Exception | None = None
    answer: Mapping[str, Any] | None = None  # the decoded body of a validated answer
    usage: Usage | None = None
    lone: bool = False  # looks like a lone fault, and this caller is the one to retry it
    cached: str | None = None  # hit, stale or coalesced: nobody was asked for this answer …
    target: Target | None = None  # … and this one gave it before
    stream: StreamReader | None = None  # reads along with an answer that is still coming
    trace: Trace | None = None  # set when the call is over

    @property
    def is_final(self) -> bool:
        """Whether the call ends here: answered, or the caller's own mistake."""
        return self.verdict.failover is Failover.FINAL

    @property
    def is_answer(self) -> bool:
        """Whether the caller has what was asked for."""
        return self.verdict.is_answer

    @property
    def queueable(self) -> bool:
        """Whether the same call may succeed later."""
        return self.verdict.queueable or (self.status == 402 and self.retry_after is not None)

    def final(self) -> Outcome:
        """The same, with nobody left to ask: a prompt that fits no model is the caller's own mistake."""
        return replace(self, verdict=replace(self.verdict, failover=Failover.FINAL))

    def from_substitute(self) -> Outcome:
        """The same, said by somebody the caller did not choose: a refusal then only means "next"."""
        if not self.is_final or self.verdict.breaker is Effect.SUCCESS or self.verdict is CANCELLED:
            return self
        return replace(self, verdict=replace(self.verdict, failover=Failover.NEXT))
