"""Benches: credentials, accounts and targets that are left alone for a while, whatever the breaker says."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bench:
    """Why something is left alone, and until when (monotonic seconds)."""

    reason: str
    until: float
    seconds: float


class Gates:
    """What is benched at the moment. Safe to share between threads."""

    def __init__(self) -> None:
        self._benches: dict[str, Bench] = {}
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether anything is, or was, benched: mostly nothing is, and its name need not be worked out."""
        return bool(self._benches)

    def bench(self, key: str, reason: str, seconds: float, now: float) -> Bench:
        """Leave something alone for some seconds; a longer bench that already holds is kept."""
        new = Bench(reason, now + seconds, seconds)
        with self._lock:
            held = self._benches.get(key)
            if held is None or held.until < new.until:
                self._benches[key] = new
            return self._benches[key]

    def check(self, keys: tuple[str, ...], now: float) -> Bench | None:
        """The bench that ends last among those that hold; None if nothing is benched."""
        if not self._benches:  # the usual case, without the lock
            return None
        with self._lock:
            held = [bench for key in keys if (bench := self._benches.get(key)) and bench.until > now]
        return max(held, key=lambda bench: bench.until, default=None)

    def held(self, beginnings: tuple[str, ...], now: float) -> Bench | None:
        """The bench that ends last among those that hold and whose key begins with one of some texts."""
        with self._lock:
            held = [bench for key, bench in self._benches.items() if key.startswith(beginnings) and bench.until > now]
        return max(held, key=lambda bench: bench.until, default=None)

    def last(self, key: str, reason: str) -> Bench | None:
        """The latest bench of a key for this reason, also when it has ended: the next one may be longer."""
        with self._lock:
            held = self._benches.get(key)
            return held if held is not None and held.reason == reason else None

    def clear(self, key: str, sent: float) -> bool:
        """Forget a bench that had ended when the request that worked was sent; whether there was one."""
        if key in self._benches:
            with self._lock:
                held = self._benches.get(key)
                if held is not None and held.until <= sent:
                    del self._benches[key]
                    return True
        return False
