"""Groups of parked calls: those that the same targets may answer are down together, and come back together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holyroute.deferred.outlook import free_at
from holyroute.deferred.ramp import Ramp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cachetools import LRUCache

    from holyroute.core.call import Call
    from holyroute.engine.router import Router

REMEMBERED = 1_024  # groups, and fingerprints of them


@dataclass(slots=True, eq=False)
class Group:
    """Calls that the same targets may answer."""

    ramp: Ramp
    call: Call | None  # the latest, as a sample; None: nobody knows yet whom they are for, so they may be looked at
    in_flight: int = 0

    def room(self, now: float, taken: int = 0) -> int:
        """How many more of its calls may be leased, as far as the ramp allows."""
        return self.ramp.free(self.in_flight + taken, now)


class Groups:
    """Whom parked calls are for. Calls have a fingerprint when they are parked; several may stand for one group.

    Not thread-safe: its owner has a lock.
    """

    def __init__(self, router: Router, most: int) -> None:
        from cachetools import LRUCache

        self._router = router
        self._most = most
        self._groups: LRUCache[tuple[str, ...], Group] = LRUCache(REMEMBERED)
        self._named: LRUCache[int, Group] = LRUCache(REMEMBERED)

    def unknown(self, fingerprints: Iterable[int]) -> list[int]:
        """Those of which no call was seen."""
        return [one for one in fingerprints if one not in self._named]

    def learn(self, fingerprint: int, call: Call) -> Group:
        """The group of a call, from now on also that of its fingerprint.

        Raises:
            Exception: Whatever is wrong with its model or its messages.
        """
        names = tuple(sorted(one.target.key for one in self._router.candidates(call)))
        group = self._groups.get(names)
        if group is None:
            group = self._groups[names] = Group(Ramp(self._most), call)
        group.call = call
        self._named[fingerprint] = group
        return group

    def open_at(self, group: Group, now: float) -> float:
        """When somebody of a group may be asked; not after now: at once."""
        rested = group.ramp.paused_until(now) or now
        if group.call is None:
            return rested
        return max(rested, free_at(self._router, group.call, self._router.candidates(group.call), now))

    def shares(self, waiting: Sequence[int], places: int, now: float) -> dict[int, int]:
        """How many calls of which fingerprints may be leased now.

        One by one the places go to the group of which the fewest are under way, so that a slow provider does not hold
        up the others; among equals to the first.
        """
        groups = {one: group for one in waiting if self.open_at(group := self._of(one), now) <= now}
        taken = dict.fromkeys(groups.values(), 0)
        shares = dict.fromkeys(groups, 0)
        for _ in range(places):
            free = [one for one, group in groups.items() if group.room(now, taken[group])]
            if not free:
                break
            chosen = min(free, key=lambda one: (groups[one].in_flight + taken[groups[one]], shares[one]))
            shares[chosen] += 1
            taken[groups[chosen]] += 1
        return {one: share for one, share in shares.items() if share}

    def next_at(self, waiting: Iterable[int], now: float) -> float | None:
        """When the first of some groups may be asked; None: there are none."""
        return min((self.open_at(self._of(one), now) for one in waiting), default=None)

    def _of(self, fingerprint: int) -> Group:
        """Its group; one of its own as long as its calls cannot be read, or are for nobody."""
        group = self._named.get(fingerprint)
        if group is None:
            group = self._named[fingerprint] = Group(Ramp(self._most), None)
        return group
