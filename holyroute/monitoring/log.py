"""What calls leave in the log: the standard logger `holyroute`, which we never configure.

| level   | what                                                                                                |
|---------|-----------------------------------------------------------------------------------------------------|
| DEBUG   | every attempt and every call; prompts, where `[monitoring] log_prompts` asks for them               |
| INFO    | a call that somebody else than the first choice answered, or nobody; a circuit that moved           |
| WARNING | what a person should look at, told once: alerts, rejected keys, the first substitute                |

Every record has its facts as attributes too (`extra=`), for formatters that write JSON. Which ones stands in
docs/monitoring.md.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from holyroute.core.events import AttemptFinished, CallFinished, CircuitChanged
from holyroute.core.explain import money, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holyroute.core.call import Call
    from holyroute.core.events import Event
    from holyroute.core.target import Target
    from holyroute.core.trace import AttemptRecord, Trace

SHORTEST_KEY = 8  # characters; what local servers take for a key, such as "x", stands in any text

logger = logging.getLogger("holyroute")


def log_events(event: Event) -> None:
    """The observer that logs. Where the level is off it costs a call that went well one question."""
    kind = type(event)
    if kind is CallFinished:
        if logger.isEnabledFor(logging.INFO):
            _log_call(event.trace)  # type: ignore[attr-defined]
    elif kind is AttemptFinished:
        record: AttemptRecord = event.record  # type: ignore[attr-defined]
        if not record.verdict.is_answer:  # the one that was answered is told with its call
            _log_attempt(event.call_id, record)  # type: ignore[attr-defined]
    elif isinstance(event, CircuitChanged):
        fields = {**_of_target(event.target), "before": event.before, "after": event.after, "reason": event.reason}
        text = "the circuit of %s at %s is %s, it was %s: %s"
        name, provider = printable(event.target.name), event.target.provider.name
        extra = {"event": "circuit", **fields}
        logger.info(text, name, provider, event.after, event.before, event.reason, extra=extra)


def log_prompt(call: Call, call_id: int, secrets: Iterable[str]) -> None:
    """Log the messages of a call; only for owners who asked for it. Keys that stand in them are masked."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    messages = json.dumps(call.body.get("messages"), ensure_ascii=False, default=str)
    for secret in (one for one in secrets if len(one) >= SHORTEST_KEY):
        messages = messages.replace(secret, "***")
    logger.debug(
        "call %d: prompt: %s", call_id, messages, extra={"event": "prompt", "call_id": call_id, "messages": messages}
    )


def _log_call(trace: Trace) -> None:
    verdict = trace.verdict
    assert verdict is not None  # the call is over
    detour = not verdict.is_answer or trace.failovers > 0
    level = logging.INFO if detour else logging.DEBUG
    if trace.attempts and trace.attempts[-1].verdict.is_answer:
        _log_attempt(trace.id, trace.attempts[-1])
    if not logger.isEnabledFor(level):
        return
    asked = printable(trace.asked or "the default route")
    who = trace.answered_by.name if trace.answered_by is not None else "nobody"
    how = f" (cached: {trace.cached})" if trace.cached else ""
    cost = trace.cost
    fields = {
        "event": "call",
        "call_id": trace.id,
        "asked": asked,
        "answered_by": trace.answered_by.name if trace.answered_by is not None else None,
        "verdict": verdict.name,
        "seconds": trace.seconds,
        "cost_usd": None if cost is None else money(cost),
        "attempts": len(trace.attempts),
        "failovers": trace.failovers,
        "cached": trace.cached,
        "ticket": trace.ticket.id if trace.ticket is not None else None,
    }
    text = "call %d for %s: answered by %s%s after %.3f s: %s"
    logger.log(level, text, trace.id, asked, who, how, trace.seconds, verdict.name, extra=fields)


def _log_attempt(call_id: int, record: AttemptRecord) -> None:
    if not logger.isEnabledFor(logging.DEBUG):
        return
    usage, cost = record.usage, record.cost
    fields = {
        "event": "attempt",
        "call_id": call_id,
        **_of_target(record.target),
        "kind": record.kind,
        "verdict": record.verdict.name,
        "status": record.status,
        "started": record.started,
        "seconds": record.seconds,
        "prompt_tokens": usage.prompt_tokens if usage is not None else None,
        "completion_tokens": usage.completion_tokens if usage is not None else None,
        "cost_usd": None if cost is None else money(cost),
    }
    logger.debug("call %d: %s", call_id, printable(str(record)), extra=fields)


def _of_target(target: Target) -> dict[str, Any]:
    return {"target": target.name, "provider": target.provider.name, "host": target.provider.host}
