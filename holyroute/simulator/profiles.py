"""How a simulated model behaves while nothing is wrong with it: latency, availability, price, limits."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from random import Random

Z95 = 1.645
"""The 95th percentile of the standard normal distribution."""

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A simulated model.

    Attributes:
        mean: mean latency in seconds, which pass before the first byte; 0 answers at once.
        p95: 95th percentile of the latency in seconds; 0, or the mean itself, makes every answer take `mean`.
        availability: share of the calls which are answered; the others get 503 at once.
        price_input: US dollars per million prompt tokens.
        price_output: US dollars per million completion tokens.
        completion_tokens: tokens of every answer; None counts the words of the answer.

    Raises:
        ValueError: when no lognormal distribution has this mean and p95, or availability is no share.
    """

    mean: float = 0.0
    p95: float = 0.0
    availability: float = 1.0
    price_input: Decimal = Decimal(0)
    price_output: Decimal = Decimal(0)
    completion_tokens: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.availability <= 1:
            raise ValueError(f"availability: expected a share between 0 and 1, got {self.availability!r}")
        if self.mean > 0 and self.p95 > 0:
            lognormal(self.mean, self.p95)

    def latency(self, random: Random) -> float:
        """Draw the seconds which one answer takes."""
        if self.mean <= 0 or self.p95 <= 0:
            return max(0.0, self.mean)
        return random.lognormvariate(*lognormal(self.mean, self.p95))

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """The price of so many tokens in US dollars, exact."""
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / MILLION


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a provider allows one model within any 60 s: requests (`rpm`) and tokens (`tpm`); None is no limit."""

    rpm: int | None = None
    tpm: int | None = None


class Window:
    """A `Limit` enforced over a sliding window of `span` seconds. The caller holds the lock and passes the time."""

    def __init__(self, limit: Limit, span: float) -> None:
        self._limit = limit
        self._span = span
        self._taken: deque[tuple[float, int]] = deque()
        self._tokens = 0

    def take(self, tokens: int, now: float) -> float:
        """Take one request of so many tokens: 0 when it is allowed, else the seconds after which to ask again."""
        while self._taken and self._taken[0][0] <= now - self._span:
            self._tokens -= self._taken.popleft()[1]
        wait = self._wait(tokens, now)
        if wait <= 0:
            self._taken.append((now, tokens))
            self._tokens += tokens
        return wait

    def _wait(self, tokens: int, now: float) -> float:
        requests, left = len(self._taken) + 1, self._tokens + tokens
        if self._fits(requests, left):
            return 0.0
        for moment, leaving in self._taken:
            requests, left = requests - 1, left - leaving
            if self._fits(requests, left):
                return moment + self._span - now
        return self._span

    def _fits(self, requests: int, tokens: int) -> bool:
        rpm, tpm = self._limit.rpm, self._limit.tpm
        return (rpm is None or requests <= rpm) and (tpm is None or tokens <= tpm)


def lognormal(mean: float, p95: float) -> tuple[float, float]:
    """The mu and sigma of the lognormal distribution with this mean and this 95th percentile, both in seconds.

    From mean = exp(mu + sigma²/2) and p95 = exp(mu + 1.645 sigma); of the two solutions for sigma, the smaller.

    Raises:
        ValueError: when p95 is below the mean, or more than exp(1.645²/2) = 3.87 times the mean.
    """
    ratio = math.log(p95 / mean)
    if not 0 <= ratio <= Z95**2 / 2:
        raise ValueError(f"p95: expected 1 to 3.87 times the mean of {mean} s, got {p95} s")
    sigma = Z95 - math.sqrt(Z95**2 - 2 * ratio)
    return math.log(mean) - sigma**2 / 2, sigma


def benchmark_profiles() -> dict[str, Profile]:
    """Six models as a multi-model gateway published them: latency, availability and prices.

    The figures are HolySheep AI's own, from its benchmark of 1,000 requests, 50 at a time, per model. It has no
    measured latency or availability for claude-sonnet-4-20250514: those of claude-3-5-sonnet-latest stand in.
    """
    rows = {
        "gpt-4.1": (1.8, 3.5, 0.999, "8.00", "32.00"),
        "gpt-4.1-mini": (1.1, 1.8, 0.998, "1.00", "4.00"),
        "claude-sonnet-4-20250514": (1.3, 2.2, 0.996, "4.50", "18.00"),
        "claude-3-5-sonnet-latest": (1.3, 2.2, 0.996, "3.50", "15.00"),
        "gemini-2.5-flash-preview-05-20": (0.95, 1.5, 0.995, "2.50", "10.00"),
        "deepseek-chat": (0.85, 1.2, 0.997, "0.42", "1.68"),
    }
    return {
        model: Profile(
            mean=mean, p95=p95, availability=available, price_input=Decimal(price), price_output=Decimal(out)
        )
        for model, (mean, p95, available, price, out) in rows.items()
    }


class Behaviour:
    """A model at work: its profile with a random sequence of its own, and its limit. Thread-safe."""

    def __init__(self, profile: Profile, window: Window | None, seed: str) -> None:
        self._profile = profile
        self._window = window
        # Two sequences: whether a call is answered must not depend on how many draws a latency takes.
        self._latencies = Random(f"{seed}:latency")  # noqa: S311 - a simulation, no secret
        self._availability = Random(f"{seed}:availability")  # noqa: S311 - the same
        self._lock = threading.Lock()

    def draw(self) -> tuple[float, bool]:
        """The seconds which the next answer takes, and whether there is one."""
        with self._lock:
            latency = self._profile.latency(self._latencies)
            return latency, self._availability.random() < self._profile.availability

    def admit(self, tokens: int, now: float) -> float:
        """0 when the limit allows a request of so many tokens, else the seconds after which to ask again."""
        if self._window is None:
            return 0.0
        with self._lock:
            return self._window.take(tokens, now)
