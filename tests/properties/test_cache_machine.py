"""The cache against a naive model of it: a list of what was kept, oldest use first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from holyroute.caching.cache import SHARE, ResponseCache
from holyroute.caching.entry import Entry
from holyroute.config.schema import CacheSettings
from holyroute.core.target import Provider, Target
from holyroute.testing import FakeClock

TARGET = Target(name="m", model="m", provider=Provider(name="p", base_url="https://p.example/v1"))
KEYS = st.sampled_from([bytes([number]) * 16 for number in range(8)])
MAX_BYTES = 16_000
LARGEST = int(MAX_BYTES * SHARE)


@dataclass
class Kept:
    key: bytes
    entry: Entry


class CacheMachine(RuleBasedStateMachine):
    """Keeps, looks up and waits."""

    cache_class: type[ResponseCache] = ResponseCache  # mutants are put here

    @initialize(max_entries=st.integers(1, 12))
    def begin(self, max_entries: int) -> None:
        """An empty cache."""
        self.clock = FakeClock(0.0)
        self.max_entries = max_entries
        self.cache = self.cache_class(CacheSettings(max_entries=max_entries, max_bytes=MAX_BYTES), self.clock)
        self.kept: list[Kept] = []
        self.counts = dict.fromkeys(["hit", "miss", "stale", "coalesced"], 0)

    def forget_old(self) -> None:
        """What is past its time."""
        self.kept = [one for one in self.kept if self.clock.now() < one.entry.gone]

    @rule(
        key=KEYS,
        size=st.sampled_from([100, 100, 500, 900, LARGEST, LARGEST + 1, 2 * MAX_BYTES]),
        ttl=st.sampled_from([0.5, 1.0, 5.0, 20.0]),
        stale=st.sampled_from([0.0, 0.0, 3.0]),
    )
    def put(self, key: bytes, size: int, ttl: float, stale: float) -> None:
        """Keep an answer."""
        now = self.clock.now()
        entry = Entry(
            status=200,
            reason="OK",
            headers=(),
            body=b"{}",
            target=TARGET,
            usage=None,
            stored=now,
            expires=now + ttl,
            gone=now + ttl + stale,
            size=size,
        )
        self.cache.put(key, entry)
        self.forget_old()
        self.kept = [one for one in self.kept if one.key != key]
        if size <= LARGEST:
            self.kept.append(Kept(key, entry))
        while len(self.kept) > self.max_entries or sum(one.entry.size for one in self.kept) > MAX_BYTES:
            del self.kept[0]

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        """Look one up."""
        self.forget_old()
        expected = next((one for one in self.kept if one.key == key), None)
        if expected is not None:
            self.kept.remove(expected)
            self.kept.append(expected)

        assert self.cache.get(key) is (expected.entry if expected else None)

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule(how=st.sampled_from(["hit", "miss", "stale", "coalesced"]))
    def count(self, how: str) -> None:
        """Note something."""
        self.cache.count(how)
        self.counts[how] += 1

    @rule()
    def clear(self) -> None:
        """Forget all."""
        self.cache.clear()
        self.kept = []

    @invariant()
    def it_says_what_it_holds(self) -> None:
        """As the model has it."""
        self.forget_old()
        info: Any = self.cache.info()

        assert (info.entries, info.bytes) == (len(self.kept), sum(one.entry.size for one in self.kept))
        assert [info.hits, info.misses, info.stale, info.coalesced] == list(self.counts.values())
        assert len(self.cache) == len(self.kept)


TestCache = CacheMachine.TestCase
TestCache.__doc__ = "Whatever is kept, looked up and waited for, the cache holds what the naive one holds."
