"""One try: who is asked, with which credential, for how long."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from requests import Response

from holyroute.core.cancel import CancelToken
from holyroute.core.trace import RESENT
from holyroute.dialects import wire

if TYPE_CHECKING:
    from requests import PreparedRequest

    from holyroute.config.credentials import Credential
    from holyroute.core.call import Call
    from holyroute.core.stream import StreamReader
    from holyroute.core.target import Target
    from holyroute.dialects.translation import Translation
    from holyroute.resilience.guard import Clearance


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A target that may be asked, and how it stands to the caller."""

    target: Target
    own: bool = False  # exactly what the script wrote
    at_home: bool = False  # at the host that the script wrote


@dataclass(slots=True)
class Patience:
    """How long an attempt may take, in seconds from its start."""

    connect: float
    read: float  # between two bytes
    limit: float = math.inf  # in all, to the last byte; of a stream, to the first words: others want their turn
    first_byte: float = math.inf  # of a stream, until anything comes, be it a comment
    until: float = math.inf  # of a stream, to its end


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What the plan hands to the transport; nobody changes it. Times in seconds, `started` monotonic."""

    call: Call
    target: Target
    started: float
    patience: Patience
    translation: Translation  # from the caller's dialect to the target's, and back
    reader: StreamReader | None = None  # reads along, where the caller wants a stream
    token: CancelToken = field(default_factory=CancelToken)  # ends the attempt from another thread
    clearance: Clearance | None = None  # None: only observed
    credential: Credential | None = None  # None: the target needs none
    own: bool = False  # goes out exactly as the script wrote it
    is_first_choice: bool = False  # its refusals are the caller's own mistakes
    with_callers_key: bool = False  # the caller's own headers go along: same host, same account

    notes: list[str] = field(default_factory=list)  # what the transport has to say of it, for the trace

    @property
    def kind(self) -> str:
        """`normal`, or the kind of probe it is."""
        return self.clearance.permit.kind if self.clearance is not None else "normal"

    @property
    def secret(self) -> bytes:
        """What the answer may not repeat to the caller; empty where it is the caller's own."""
        if self.with_callers_key or self.credential is None or not self.credential.is_telling:
            return b""
        return self.credential.secret.encode()

    def note_resend(self) -> None:
        """The transport had to send the request once more."""
        self.notes.append(RESENT)

    def request(self) -> PreparedRequest:
        """The request to send; a new object each time."""
        origin, translation = self.call.origin, self.translation
        if origin is not None and self.own:
            return wire.copied(origin.request)
        if origin is not None and self.with_callers_key and not translation.is_needed:
            return translation.caller.renamed(wire.copied(origin.request), self.target, translation.body)
        headers = None if origin is None else origin.request.headers
        return translation.answerer.prepare(self.target, translation.body, self.credential, headers)


Transport = Callable[[Attempt], Response]
