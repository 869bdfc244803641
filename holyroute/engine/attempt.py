"""One try: who is asked, with which credential, for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from requests import Response

from holyroute.dialects import openai

if TYPE_CHECKING:
    from requests import PreparedRequest

    from holyroute.config.credentials import Credential
    from holyroute.core.call import Call
    from holyroute.core.target import Target
    from holyroute.resilience.breaker import Permit


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A target that may be asked, and how it stands to the caller."""

    target: Target
    own: bool = False  # exactly what the script wrote
    at_home: bool = False  # at the host that the script wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What the plan hands to the transport. Times in seconds, `started` monotonic."""

    call: Call
    target: Target
    started: float
    connect: float
    read: float
    permit: Permit | None = None  # None: only observed
    credential: Credential | None = None  # None: the target needs none
    own: bool = False  # goes out exactly as the script wrote it
    is_first_choice: bool = False  # its refusals are the caller's own mistakes
    with_callers_key: bool = False  # the caller's own headers go along: same host, same account

    @property
    def kind(self) -> str:
        """`normal`, or the kind of probe it is."""
        return self.permit.kind if self.permit is not None else "normal"

    def request(self) -> PreparedRequest:
        """The request to send; a new object each time."""
        origin = self.call.origin
        if origin is None:
            return openai.prepare(self.target, self.call.body, self.credential)
        if self.own:
            return origin.request.copy()
        if self.with_callers_key:
            return openai.renamed(origin.request.copy(), self.target, self.call.body)
        return openai.prepare(self.target, self.call.body, self.credential, origin.request.headers)


Transport = Callable[[Attempt], Response]
