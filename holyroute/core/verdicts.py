"""The error table: what every way an attempt can end means for the breaker, the retry loop and the caller.

One row is one `Verdict`. Nothing in the engine asks for a status code: it reads the row. One rule is no column, because
it depends on who speaks: a FINAL row that is no answer ends the call only when the first target says so; from a
substitute it means "next" (`Outcome.from_substitute`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What an attempt tells the circuit breaker."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"  # says nothing about the target's health: the permit is given back


class Retry(StrEnum):
    """Whether the same target may be asked again within one call."""

    NEVER = "never"
    BLIP = "blip"  # once after 50 to 250 ms, if the fault looks like a lone one
    SOLE = "sole"  # only when there is no other target, with backoff
    SHORT_WAIT = "short wait"  # once, after the wait that the server asked for, if it is short
    ONCE = "once"  # once after half a second (409: the server is still busy with the same key)


class Failover(StrEnum):
    """Which other targets may be asked."""

    NEXT = "next"
    OTHER_PROVIDER = "other provider first"
    LARGER = "larger context only"
    ONCE = "once"  # one more target, then the answer stands
    FINAL = "final"  # the caller's own mistake, or an answer


class Scope(StrEnum):
    """What a fault benches besides the breaker."""

    NOTHING = "nothing"
    CREDENTIAL = "credential"
    ACCOUNT = "account"
    TARGET = "target"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the error table."""

    name: str
    breaker: Effect
    retry: Retry = Retry.NEVER
    failover: Failover = Failover.NEXT
    gate: Scope = Scope.NOTHING
    gate_seconds: float = 0.0  # a Retry-After counts where it is longer; 0: only what the server asks for
    queueable: bool = False
    billable: bool = False  # the provider may have done the work, though no usage was reported
    is_answer: bool = False  # the caller has what was asked for

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name


_S, _F, _I = Effect.SUCCESS, Effect.FAILURE, Effect.IGNORED

# --- answers ---------------------------------------------------------------------------------------------------------
ANSWERED = Verdict("answered", _S, failover=Failover.FINAL, is_answer=True)
TRUNCATED = Verdict("cut at max_tokens, nothing said", _S, failover=Failover.FINAL, is_answer=True)
FILTERED = Verdict("content filtered", _S, failover=Failover.FINAL)

# --- nothing came back -----------------------------------------------------------------------------------------------
NAME_NOT_RESOLVED = Verdict("name not resolved", _F, Retry.SOLE, queueable=True)
REFUSED = Verdict("connection failed", _F, Retry.SOLE, queueable=True)
CONNECT_TIMEOUT = Verdict("connect timeout", _F, Retry.SOLE, queueable=True)
TLS_FAILED = Verdict("TLS handshake failed", _F, queueable=True)
CERTIFICATE = Verdict("certificate invalid", _I, gate=Scope.TARGET, gate_seconds=300)
READ_TIMEOUT = Verdict("read timeout", _F, queueable=True, billable=True)
CUT_SHORT = Verdict("cut short: little time was left", _I, queueable=True, billable=True)
RESET = Verdict("connection broken before the answer", _F, Retry.BLIP, queueable=True, billable=True)
BROKEN_BODY = Verdict("answer cut off", _F, Retry.BLIP, queueable=True, billable=True)
TOO_MANY_REDIRECTS = Verdict("too many redirects", _I, gate=Scope.TARGET, gate_seconds=300)
MALFORMED = Verdict("request could not be built", _I, failover=Failover.FINAL)
LEFT = Verdict("closed by the caller before its end", _S, failover=Failover.FINAL, billable=True)
CANCELLED = Verdict("cancelled", _I, failover=Failover.FINAL)

# --- the request was refused -----------------------------------------------------------------------------------------
BAD_REQUEST = Verdict("bad request", _I, failover=Failover.FINAL)
CONTENT_POLICY = Verdict("content policy violation", _I, failover=Failover.FINAL)
CONTEXT_TOO_LONG = Verdict("context too long", _I, failover=Failover.LARGER)
UNAUTHORIZED = Verdict("key rejected", _I, gate=Scope.CREDENTIAL, gate_seconds=300)
PAYMENT_REQUIRED = Verdict("payment required", _I, gate=Scope.ACCOUNT, gate_seconds=300)
FORBIDDEN = Verdict("permission denied", _I, gate=Scope.TARGET, gate_seconds=300)
FIREWALL = Verdict("blocked by a firewall page", _I, gate=Scope.TARGET, gate_seconds=60)
NOT_FOUND = Verdict("model not found", _I, gate=Scope.TARGET, gate_seconds=300)
UNEXPECTED = Verdict("unexpected status", _I)
REQUEST_TIMEOUT = Verdict("request timeout (408)", _F, Retry.BLIP, queueable=True)
CONFLICT = Verdict("conflict", _I, Retry.ONCE, queueable=True)
TOO_LARGE = Verdict("request too large", _I, failover=Failover.FINAL)
UNPROCESSABLE = Verdict("unprocessable request", _I, failover=Failover.FINAL)

# --- the provider is busy, or the money is out -----------------------------------------------------------------------
RATE_LIMITED = Verdict("rate limited", _I, Retry.SHORT_WAIT, gate=Scope.TARGET, queueable=True)
RATE_LIMITED_SILENT = Verdict("rate limited, no hint when", _I, Retry.SOLE, gate=Scope.TARGET, queueable=True)
QUOTA = Verdict("quota exhausted", _I, gate=Scope.ACCOUNT, gate_seconds=300)

# --- the provider is broken ------------------------------------------------------------------------------------------
SERVER_ERROR = Verdict("server error", _F, Retry.BLIP, queueable=True)
BAD_GATEWAY = Verdict("bad gateway", _F, Retry.BLIP, queueable=True)
UNAVAILABLE = Verdict("service unavailable", _F, Retry.SOLE, gate=Scope.TARGET, queueable=True)
GATEWAY_TIMEOUT = Verdict("gateway timeout", _F, queueable=True, billable=True)
OVERLOADED = Verdict(
    "overloaded (529)", _F, Retry.SOLE, Failover.OTHER_PROVIDER, gate=Scope.TARGET, gate_seconds=1, queueable=True
)
INVALID_ANSWER = Verdict("200 without a valid answer", _F, Retry.BLIP, queueable=True, billable=True)
EMPTY_ANSWER = Verdict("empty answer", _I, failover=Failover.ONCE, billable=True)

# --- nobody was asked ------------------------------------------------------------------------------------------------
NOT_SENT = Verdict("nothing sent: no target may be asked now", _I, queueable=True)
OUT_OF_TIME = Verdict("deadline spent", _I, queueable=True)

TABLE: dict[str, Verdict] = {name: row for name, row in list(globals().items()) if isinstance(row, Verdict)}
