"""The story of one call as data and as text: why this target, who was passed over, what each attempt took and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holyroute.core.trace import AttemptRecord, Skip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from holyroute.core.target import Target
    from holyroute.core.trace import Trace

LONGEST = 500  # characters of a name
SHORTEST = 0.001  # seconds of waiting that are told


def steps(trace: Trace) -> Iterator[tuple[AttemptRecord | Skip, float]]:
    """Attempts and skips in the order in which they happened, each with the seconds waited before it."""
    ended = 0.0
    for number, record in enumerate(trace.attempts):
        yield from ((skip, 0.0) for skip in trace.skipped if skip.after == number)
        yield record, max(0.0, record.started - ended)
        ended = record.started + record.seconds
    yield from ((skip, 0.0) for skip in trace.skipped if skip.after >= len(trace.attempts))


def text(trace: Trace) -> str:
    """For people, a line for each step."""
    who = trace.answered_by.name if trace.answered_by is not None else "nobody"
    how = f" (cached: {trace.cached})" if trace.cached else ""
    cost = "" if trace.cost is None else f", {money(trace.cost)} USD"
    asked = printable(trace.asked or "the default route")
    lines = [f"call {trace.id} for {asked}: answered by {who}{how} after {trace.seconds:.3f} s{cost}"]
    if trace.why is not None:
        lines.append(f"chosen from {trace.why}")
    lines += [_told(step, wait) for step, wait in steps(trace)]
    if trace.parking:
        lines.append(trace.parking)
    return "\n  ".join(lines)


def facts(trace: Trace) -> dict[str, Any]:
    """For programs: what JSON can carry; amounts of money as text, times in seconds from the start of the call."""
    cost = trace.cost
    return {
        "id": trace.id,
        "asked": trace.asked,
        "began": trace.began_wall,  # seconds since the epoch
        "seconds": trace.seconds,
        "verdict": None if trace.verdict is None else trace.verdict.name,
        "answered_by": trace.answered_by.name if trace.answered_by is not None else None,
        "why": trace.why,
        "cached": trace.cached,
        "cost_usd": None if cost is None else money(cost),
        "failovers": trace.failovers,
        "ticket": trace.ticket.id if trace.ticket is not None else None,
        "not_parked": trace.not_parked,
        "steps": [_as_dict(trace, step, wait) for step, wait in steps(trace)],
    }


def printable(name: str) -> str:
    """What a caller named, fit for one line of a log or a terminal: cut, and without control characters."""
    return "".join(one if one.isprintable() else "?" for one in name[:LONGEST])


def money(amount: Decimal) -> str:
    """An amount without zeros at its end, and never as 1E-7."""
    return format(amount.normalize(), "f")


def _told(step: AttemptRecord | Skip, wait: float) -> str:
    if isinstance(step, Skip):
        return str(step)
    parts = [str(step)]
    if wait >= SHORTEST:
        parts.append(f"waited {wait:.3f} s before")
    if step.kind != "normal":
        parts.append(f"{step.kind} probe" if step.kind != "probe" else "probe")
    if step.first_byte is not None:
        parts.append(f"began after {step.first_byte:.3f} s")
    if step.usage is not None:
        about = "about " if step.usage.estimated else ""
        cost = "cost unknown" if step.cost is None else f"{money(step.cost)} USD"
        parts.append(f"{about}{step.usage.prompt_tokens} + {step.usage.completion_tokens} tokens, {cost}")
    return "; ".join(parts)


def _as_dict(trace: Trace, step: AttemptRecord | Skip, wait: float) -> dict[str, Any]:
    if isinstance(step, Skip):
        free = None if step.retry_at is None else step.retry_at - trace.began
        return {"step": "skip", **_of_target(step.target), "reason": step.reason, "free_at": free}
    usage, cost = step.usage, step.cost
    return {
        "step": "attempt",
        **_of_target(step.target),
        "kind": step.kind,
        "verdict": step.verdict.name,
        "status": step.status,
        "detail": step.detail,
        "wait": wait,
        "started": step.started,
        "seconds": step.seconds,
        "first_byte": step.first_byte,
        "retry_after": step.retry_after,
        "prompt_tokens": usage.prompt_tokens if usage is not None else None,
        "completion_tokens": usage.completion_tokens if usage is not None else None,
        "estimated": usage.estimated if usage is not None else False,
        "cost_usd": None if cost is None else money(cost),
    }


def _of_target(target: Target) -> dict[str, str]:
    return {"target": target.name, "provider": target.provider.name, "host": target.provider.host}
