"""Answers that are kept in memory."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from holyroute.caching.entry import COALESCED, HIT, STALE

if TYPE_CHECKING:
    from cachetools import TLRUCache

    from holyroute.caching.entry import Entry
    from holyroute.config.schema import CacheSettings
    from holyroute.core.clock import Clock

MISS = "miss"
SHARE = 1 / 16  # of `max_bytes` that one entry may take: a few huge answers must not push out all others


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInfo:
    """How a cache does."""

    hits: int
    misses: int  # calls that the cache could have answered, and a provider was asked instead
    stale: int  # answers past their time, given because nobody else could
    coalesced: int  # answers that came with those to the same question in another thread
    entries: int
    bytes: int


class ResponseCache:
    """Answers by key, each for its own time. Bounded in entries and bytes: what was not used for longest goes first.

    Safe to share between threads. `len()` is the number of answers in it.
    """

    def __init__(self, settings: CacheSettings, clock: Clock) -> None:
        from cachetools import TLRUCache

        self._max_entries = settings.max_entries
        self._entries: TLRUCache[bytes, Entry] = TLRUCache(
            settings.max_bytes, ttu=lambda _, entry, __: entry.gone, timer=clock.now, getsizeof=attrgetter("size")
        )
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Entry | None:
        """What is kept, fresh or stale; None where there is nothing, or its time is over."""
        with self._lock:
            try:
                return self._entries[key]
            except KeyError:
                return None

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep an answer, unless it is too large."""
        with self._lock:
            if entry.size > SHARE * self._entries.maxsize:
                self._entries.pop(key, None)  # what it replaces is older
                return
            self._entries[key] = entry
            if len(self._entries) > self._max_entries:
                self._entries.popitem()

    def count(self, how: str) -> None:
        """Note how a call was answered, or that it missed."""
        with self._lock:
            self._counts[how] += 1

    def clear(self) -> None:
        """Forget every answer; the counts go on."""
        with self._lock:
            self._entries.clear()

    def info(self) -> CacheInfo:
        """What happened since this process began, and what is kept now."""
        with self._lock:
            return CacheInfo(
                hits=self._counts[HIT],
                misses=self._counts[MISS],
                stale=self._counts[STALE],
                coalesced=self._counts[COALESCED],
                entries=len(self._entries),
                bytes=int(self._entries.currsize),
            )

    def __len__(self) -> int:
        return self.info().entries
