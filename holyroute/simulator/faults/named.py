"""Faults by name: `sim:<name>` or `sim:<name>:<argument>` as a model's name, `"<name>:<argument>"` as a step."""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from holyroute.simulator.exchange import Fault
from holyroute.simulator.faults import combined, connections, contents, statuses, streams

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "sim:"

Step = Fault | str | int

_TABLE: dict[Callable[[str], Any] | None, dict[str, Callable[..., Fault]]] = {
    None: {
        "insufficient-quota": statuses.insufficient_quota,
        "content-policy": statuses.content_policy,
        "model-not-found": statuses.model_not_found,
        "firewall": statuses.firewall,
        "no-prefill": statuses.no_prefill,
        "reset": connections.reset,
        "no-reply": connections.no_reply,
        "cut-headers": connections.cut_headers,
        "cut-body": connections.cut_body,
        "reset-body": connections.reset_body,
        "cut-unframed": connections.cut_unframed,
        "bad-chunk": connections.bad_chunk,
        "cut-gzip": connections.cut_gzip,
        "close-after": connections.close_after,
        "close-on-reuse": connections.close_on_reuse,
        "close-after-unannounced": partial(connections.close_after, announced=False),
        "gzip": contents.gzipped,
        "chunked": contents.chunked,
        "empty": contents.empty,
        "empty-length": contents.empty_length,
        "truncated": contents.truncated,
        "no-choices": contents.no_choices,
        "content-filter": contents.content_filter,
        "no-usage": contents.no_usage,
        "absurd-usage": contents.absurd_usage,
        "invalid-json": contents.invalid_json,
        "html": contents.html,
        "no-done": streams.no_done,
        "no-finish-reason": streams.no_finish_reason,
    },
    float: {
        "silent": connections.silent,
        "drip": connections.drip,
        "drip-headers": connections.drip_headers,
        "late": connections.late,
        "retry-after-date": statuses.retry_after_date,
        "retry-after-ms": statuses.retry_after_ms,
        "first-token-late": streams.first_token_late,
        "slow-stream": streams.slow_stream,
        "outage": combined.outage,
    },
    int: {
        "context-length": statuses.context_length,
        "large": contents.large,
        "error-in-200": contents.error_in_200,
        "comments": streams.comments,
        "cut-stream": streams.cut_stream,
        "reset-stream": partial(streams.cut_stream, reset=True),
        "malformed-event": streams.malformed_event,
        "error-event": streams.error_event,
    },
    str: {
        "ok": contents.ok,
        "cookies": contents.cookies,
        "refusal": contents.refusal,
        "tool-call": contents.tool_call,
        "stall": lambda text="20": _stall(*text.split(":")),
        "once": lambda text="503": combined.once(named(text)),
        "billed": lambda text="cut-body": combined.billed(named(text)),
    },
}

_FAULTS = {name: (make, convert) for convert, group in _TABLE.items() for name, make in group.items()}


def names() -> list[str]:
    """The names of all faults, without those of the statuses ("503", "429:2", "307:http://…")."""
    return sorted(_FAULTS)


def named(text: str) -> Fault:
    """The fault of this name, with its argument behind a colon: "silent", "late:2.5", "503", "429:2", "once:reset".

    The argument of a redirect is its address, that of any other status its Retry-After; "stall" may take two,
    "stall:20:30" for tokens and seconds.

    Raises:
        ValueError: when there is no such fault, or when it does not take this argument.
    """
    name, colon, argument = text.partition(":")
    name = name.replace("_", "-")
    if name.isdecimal() and len(name) == 3:
        return _status(int(name), argument if colon else None)
    if name not in _FAULTS:
        close = get_close_matches(name, _FAULTS, 1)
        raise ValueError(f"no fault {name!r}" + (f", did you mean {close[0]!r}?" if close else ""))
    make, convert = _FAULTS[name]
    try:
        return make((convert or _no_argument)(argument)) if colon else make()
    except (TypeError, ValueError) as error:
        raise ValueError(f"fault {text!r}: {error}") from error


def as_fault(step: Step) -> Fault:
    """A step as it may be written: a fault, its name, or a status."""
    return step if isinstance(step, Fault) else named(str(step))


def _no_argument(argument: str) -> None:
    raise ValueError(f"it takes no argument, got {argument!r}")


def _stall(after: str, seconds: str | None = None) -> Fault:
    return streams.stall(int(after), None if seconds is None else float(seconds))


def _status(code: int, argument: str | None) -> Fault:
    if argument is not None and code in {301, 302, 303, 307, 308}:
        return statuses.redirect(argument, code)
    return statuses.status(code, retry_after=argument)
