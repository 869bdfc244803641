"""What goes into a batch and what comes out: rows and results, as values that travel between processes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from holyroute.core.completion import Usage

KEY_BYTES = 16


class Cause(StrEnum):
    """Why a row has no answer, by who can do something about it."""

    ROW = "row"  # it cannot be read, or asks for nothing: mend the input
    REFUSED = "refused"  # the first target refused the request itself
    FILTERED = "filtered"  # the provider withheld the answer
    CREDENTIAL = "credential"  # a key is missing or rejected, or the account is empty
    RATE_LIMITED = "rate limited"
    UNAVAILABLE = "unavailable"  # nobody could answer: try again later
    DEADLINE = "deadline"
    BUDGET = "budget"  # its worst case is not known, or above what may be spent
    CANCELLED = "cancelled"
    INTERNAL = "internal"  # a mistake of ours, or of a worker that died

    @property
    def may_pass_later(self) -> bool:
        """Whether the same row may be answered by asking once more."""
        return self not in {Cause.ROW, Cause.REFUSED, Cause.FILTERED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowError:
    """Why a row has no answer."""

    cause: Cause
    message: str  # for people, free of secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a batch: a call to be made, or what is wrong with it."""

    index: int  # position in the input, from 0
    body: Mapping[str, Any] | None = field(default=None, repr=False)  # `messages` and parameters; None: see `problem`
    id: str | None = None  # the caller's own name for it (`custom_id`)
    line: int | None = None  # in its file, from 1
    model: str | None = None  # as for `Client.chat`; so are the next three
    models: tuple[str, ...] | None = None
    task: str | None = None
    priority: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the caller's own, handed on to the result
    problem: str = ""  # why no call can be made of it

    @property
    def key(self) -> str:
        """Digest of everything that changes the answer: two rows with the same key ask for the same."""
        asked = [self.body, self.model, self.models, self.task, self.priority]
        text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """What became of a row. Errors are values."""

    index: int
    id: str | None = None
    line: int | None = None
    ok: bool
    content: str = ""
    model: str | None = None  # who answered
    model_asked: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost_usd: Decimal | None = None  # of all attempts; None where unknown, 0 where nobody was asked
    attempts: int = 0
    seconds: float = 0.0  # the call, waits included
    cached: str | None = None  # hit, stale, coalesced; `duplicate`: an equal row was answered
    error: RowError | None = None  # None where ok
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the decoded answer
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False)
