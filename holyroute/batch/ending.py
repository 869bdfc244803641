"""How one try of a row ended, and by whose cause."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from holyroute.batch.row import Cause, Row, RowError, RowResult
from holyroute.core import verdicts
from holyroute.core.trace import BENCHED, NO_CREDENTIAL
from holyroute.core.verdicts import Scope

if TYPE_CHECKING:
    from holyroute.core.outcome import Outcome
    from holyroute.core.trace import Trace

LONGEST = 500  # characters of a message

_LIMITS = {verdicts.RATE_LIMITED, verdicts.RATE_LIMITED_SILENT}
_OF_KEYS = {f"{BENCHED}{row}" for row in verdicts.TABLE.values() if row.gate in {Scope.CREDENTIAL, Scope.ACCOUNT}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What came of asking for a row once. Travels between processes."""

    result: RowResult
    spent: Decimal = Decimal(0)  # USD, what may have been billed without a word included where there is a cap
    granted: Decimal = Decimal(0)  # that was set aside for it
    wait: float | None = None  # seconds until somebody may be free again, as far as anybody said
    may_pass: bool = False  # the same may be answered later
    is_broke: bool = False  # it was left because the next attempt could not be paid for


def failed(row: Row, cause: Cause, message: str) -> RowResult:
    """The result of a row that nobody was asked for."""
    shown = message if len(message) <= LONGEST else f"{message[: LONGEST - 1]}…"
    return RowResult(
        index=row.index,
        id=row.id,
        line=row.line,
        ok=False,
        model_asked=row.model,
        cost_usd=Decimal(0),
        error=RowError(cause=cause, message=shown),
        columns=row.columns,
    )


def cause_of(outcome: Outcome) -> Cause:
    """Why a call has no answer."""
    trace, verdict = outcome.trace, outcome.verdict
    assert trace is not None
    if verdict is verdicts.CANCELLED or trace.cancelled:
        return Cause.CANCELLED
    if verdict in {verdicts.FILTERED, verdicts.CONTENT_POLICY}:
        return Cause.FILTERED
    if outcome.is_final:
        return Cause.REFUSED
    if trace.out_of_time:
        return Cause.DEADLINE
    if _wants_a_key(trace):
        return Cause.CREDENTIAL
    return Cause.RATE_LIMITED if _is_limited(trace) else Cause.UNAVAILABLE


def _wants_a_key(trace: Trace) -> bool:
    """Whether nothing but keys and accounts is in the way."""
    asked = all(record.verdict.gate in {Scope.CREDENTIAL, Scope.ACCOUNT} for record in trace.attempts)
    passed = all(skip.reason.startswith(NO_CREDENTIAL) or skip.reason in _OF_KEYS for skip in trace.skipped)
    return asked and passed and bool(trace.attempts or trace.skipped)


def _is_limited(trace: Trace) -> bool:
    """Whether nothing but rate limits is in the way of those who could answer soonest."""
    names = {str(verdict) for verdict in _LIMITS}
    reasons = {*names, *(f"{BENCHED}{name}" for name in names)}
    waiting = [skip for skip in trace.skipped if skip.retry_at is not None]
    asked = all(record.verdict in _LIMITS for record in trace.attempts)
    return asked and all(skip.reason in reasons for skip in waiting) and bool(trace.attempts or waiting)


def message_of(outcome: Outcome) -> str:
    """What happened, on one line, free of secrets."""
    trace = outcome.trace
    assert trace is not None
    lines = [*map(str, trace.attempts), *map(str, trace.skipped)]
    text = f"{outcome.verdict}: {'; '.join(lines)}" if lines else str(outcome.verdict)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
