"""Rate limits as buckets. No threads, no sleeping; `now` is passed in, in monotonic seconds.

Two things must hold for each limit. A *token bucket* of a tenth of the limit, which refills with the other nine tenths
per window, keeps the requests evenly spread; one as large as the limit would let twice the limit through in its first
minute. A *window* of recent use keeps every stretch of that length, wherever it begins, at or below the limit, also
where slow answers used little of what was reserved for them, and for prompts larger than the bucket.

Such a prompt wants a full bucket and leaves a debt behind, as in Go's `time/rate`. `Pace` is the bucket's idea of time:
it stands still while the provider has us wait, which proves nothing and earns nothing, and runs slower after a 429, by
a multiplicative cut and an additive recovery (AIMD; Chiu and Jain 1989).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.config.schema import LimitSettings

    Kind = Literal["requests", "tokens"]

SLOTS = 60  # of a window
SLACK = 1e-6  # share of a bucket that may be missing: far more than rounding of times, far less than a request


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests or tokens in any window of so many seconds."""

    kind: Kind
    amount: float
    window: float = 60.0

    def __post_init__(self) -> None:
        if self.kind not in {"requests", "tokens"}:
            raise ConfigurationError(f"limit: expected 'requests' or 'tokens', got {self.kind!r}")
        if not (math.isfinite(self.amount) and self.amount >= 1):
            raise ConfigurationError(f"limit: expected at least 1 of {self.kind}, got {self.amount!r}")
        if not (math.isfinite(self.window) and self.window > 0):
            raise ConfigurationError(f"limit: expected a window of more than 0 seconds, got {self.window!r}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider allows one scope: an account, or a family of models of an account.

    `refunds` says whether tokens that were reserved and not used count as unused; where a provider charges the
    estimate for good, set it to False.
    """

    rates: tuple[Limit, ...] = ()
    max_concurrency: int | None = None
    refunds: bool = True

    def __post_init__(self) -> None:
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ConfigurationError(f"max_concurrency: expected at least 1, got {self.max_concurrency!r}")

    @classmethod
    def per_minute(
        cls, *, rpm: float | None = None, tpm: float | None = None, max_concurrency: int | None = None
    ) -> Limits:
        """Requests and tokens per minute, as providers publish them; None: no such limit."""
        amounts: tuple[tuple[Kind, float | None], ...] = (("requests", rpm), ("tokens", tpm))
        return cls(tuple(Limit(kind, amount) for kind, amount in amounts if amount is not None), max_concurrency)


class Pace:
    """Time as the buckets see it."""

    def __init__(self, settings: LimitSettings) -> None:
        self.blocked_until = -math.inf
        self.last_cut = -math.inf
        self._settings = settings
        self._interval = settings.recovery_interval * settings.window_scale
        self._factor = 1.0  # at the start of …
        self._since = -math.inf  # … the recovery
        self._seen = -math.inf

    def factor(self, now: float) -> float:
        """The share of the full rate that is used."""
        return next(self._stretches(now))[0]

    def advance(self, now: float) -> float:
        """Seconds at full rate that the time since the last look is worth."""
        start = self._seen
        if now > start:
            self._seen = now
        if self.blocked_until > start:
            start = min(now, self.blocked_until)
        if not -math.inf < start < now:
            return 0.0
        return now - start if self._factor >= 1 else self._worth(start, now)

    def when(self, seconds: float, now: float) -> float:
        """The moment by which so many seconds at full rate will have passed."""
        start = max(now, self.blocked_until)
        for factor, end in self._stretches(start):
            if seconds <= (end - start) * factor:
                return start + seconds / factor
            seconds -= (end - start) * factor
            start = end
        return start

    def block(self, until: float, now: float) -> None:
        """Stand still until then, or for longer if that was said before."""
        if until > self.blocked_until:
            self._factor = self.factor(now)
            self._since = self.blocked_until = until

    def cut(self, now: float) -> None:
        """Go slower."""
        self._factor = max(self._settings.factor_min, self._settings.cut * self.factor(now))
        self._since = self.last_cut = now

    def _worth(self, start: float, now: float) -> float:
        worth = 0.0
        for factor, end in self._stretches(start):
            worth += (min(now, end) - start) * factor
            start = end
            if now <= end:
                break
        return worth

    def _stretches(self, start: float) -> Iterator[tuple[float, float]]:
        """The factors from a moment on, and until when each of them holds."""
        step = max(0, int((start - self._since) // self._interval)) if self._factor < 1 else 0
        while (factor := self._factor + step * self._settings.recovery) < 1:
            step += 1
            end = self._since + step * self._interval
            if end > start:
                yield factor, end
        yield 1.0, math.inf


class Window:
    """What was used lately, in slots. A slot leaves as a whole, when the last of it is older than the window."""

    __slots__ = ("_amounts", "_newest", "_seconds", "_slot_seconds", "total")

    def __init__(self, seconds: float) -> None:
        self.total = 0.0
        self._seconds = seconds
        self._slot_seconds = seconds / SLOTS
        self._amounts = [0.0] * (SLOTS + 1)  # as many as a window can touch
        self._newest = 0

    def advance(self, now: float) -> None:
        """Forget what is too old."""
        slot = int(now // self._slot_seconds)
        if slot <= self._newest:
            return
        for passed in range(self._newest + 1, min(slot, self._newest + SLOTS + 1) + 1):
            self._amounts[passed % (SLOTS + 1)] = 0.0
        self._newest = slot
        self.total = math.fsum(self._amounts)

    def add(self, amount: float, at: float) -> None:
        """Count something that was used then; a negative amount takes back. What is too old counts no more."""
        slot = int(at // self._slot_seconds)
        if self._newest - SLOTS <= slot <= self._newest:
            self._amounts[slot % (SLOTS + 1)] += amount
            self.total += amount

    def when_gone(self, amount: float, now: float) -> float:
        """When so much of what is counted will have left, or everything; it must not be more than `now` knows."""
        if amount <= 0:
            return now
        slot = oldest = self._newest - SLOTS
        for slot in range(oldest, self._newest + 1):
            amount -= self._amounts[slot % (SLOTS + 1)]
            if amount <= 0:
                break
        leaves = (slot + SLOTS + 1) * self._slot_seconds
        while leaves // self._slot_seconds < slot + SLOTS + 1:  # rounding
            leaves = math.nextafter(leaves, math.inf)
        return max(now, leaves)


class Bucket:
    """One limit. `level` may be below zero: that is debt."""

    __slots__ = ("_recent", "_slack", "capacity", "drawn", "kind", "level", "limit", "rate", "window")

    def __init__(self, limit: Limit, settings: LimitSettings, share: float = 1.0) -> None:
        amount = limit.amount * settings.headroom * share
        self.kind = limit.kind
        self.window = limit.window * settings.window_scale
        self.limit = min(math.ceil(amount), limit.amount)  # a limit of one request allows one
        self.capacity = amount * settings.burst
        self.rate = (amount - self.capacity) / self.window
        self.level = self.capacity
        self.drawn = 0.0  # by everybody, ever
        self._slack = SLACK * self.capacity
        self._recent = Window(self.window)

    def advance(self, seconds: float, now: float) -> None:
        """Let time pass, worth so many seconds at full rate."""
        self.level = min(self.capacity, self.level + self.rate * seconds)
        self._recent.advance(now)

    def holds(self, need: float) -> bool:
        """Whether that can be taken now; a need beyond the capacity wants a full bucket."""
        enough = self.level >= min(need, self.capacity) - self._slack
        return enough and self._recent.total + need <= self.limit + self._slack

    def take(self, need: float, now: float) -> None:
        """Draw."""
        self.level -= need
        self.drawn += need
        self._recent.add(need, now)

    def refund(self, surplus: float, sent: float) -> None:
        """Put back what was drawn at that time and not used."""
        self._recent.add(-surplus, sent)
        self.level = min(self.capacity, self.level + surplus)

    def charge(self, extra: float, sent: float) -> None:
        """Draw what was used at that time beyond the estimate."""
        self._recent.add(extra, sent)
        self.lower(self.level - extra)

    def lower(self, level: float) -> None:
        """Go down to a level, but never into more debt than a window pays back."""
        self.level = max(min(self.level, level), -self.limit)

    def seconds_until(self, need: float, ahead: float) -> float:
        """Seconds at full rate until the bucket holds that, after others have taken what is ahead."""
        return max(0.0, ahead + min(need, self.capacity) - self.level) / self.rate

    def free_at(self, need: float, now: float) -> float:
        """When the window has room for that."""
        return self._recent.when_gone(self._recent.total + need - self.limit, now)
