"""A store of parked calls against a naive model of it: a list of items, walked through for everything."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holyroute.config.schema import QueueSettings
from holyroute.exceptions import QueueFull
from holyroute.stores.base import FURTHEST, NewItem, QueueStore
from holyroute.stores.memory import MemoryStore
from holyroute.stores.sqlite import SqliteStore
from holyroute.testing import FakeClock

SETTINGS = QueueSettings(max_items=6, ttl=200.0, attempts=3, retention=150.0)
NAMES = st.sampled_from("abcdefgh")
SHARES = st.none() | st.dictionaries(st.integers(0, 3), st.integers(0, 3))
SECONDS = st.sampled_from([0.0, 1.0, 10.0, 50.0, 120.0])


@dataclass
class Expected:
    """An item of the model."""

    item_id: str
    number: int
    payload: bytes
    key: str | None
    not_before: float
    expires: float
    group: int
    state: str = "ready"
    attempts: int = 0
    leases: int = 0
    lease_until: float = 0.0
    finished: float = 0.0
    result: bytes | None = None


@dataclass
class Held:
    """A lease that somebody has, or had."""

    item: Expected
    token: str
    lost: bool = False


class QueueMachine(RuleBasedStateMachine):
    """Parks, leases, ends and waits; never the same token twice, never an item in two hands."""

    def make(self, clock: FakeClock) -> QueueStore:
        """The store under test."""
        return MemoryStore(SETTINGS, clock)

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store = self.make(self.clock)
        self.items: list[Expected] = []
        self.held: list[Held] = []
        self.tokens: set[str] = set()

    def teardown(self) -> None:
        """Read everything once."""
        assert self.store.check() == ()
        self.store.close()

    # --- the model ---

    @property
    def now(self) -> float:
        """The time of day."""
        return self.clock.wall()

    def end(self, item: Expected, state: str) -> None:
        """Nobody holds it any more."""
        item.state = state
        if state in {"done", "dead"}:
            item.finished = self.now
        for held in self.held:
            held.lost |= held.item is item

    def tidy(self) -> None:
        """What time brings, when somebody leases."""
        for item in list(self.items):
            if item.state == "leased" and item.lease_until <= self.now:
                self.end(item, "dead" if item.attempts >= SETTINGS.attempts else "ready")
                item.not_before = self.now
            if item.state == "ready" and item.expires <= self.now:
                self.end(item, "dead")
            if item.state == "done" and item.finished <= self.now - SETTINGS.retention:
                self.items.remove(item)

    def due(self) -> list[Expected]:
        """What may be leased now, in its order."""
        due = [item for item in self.items if item.state == "ready" and item.not_before <= self.now]
        return sorted(due, key=lambda item: item.not_before)  # stable: then in the order of arrival

    def known(self, payload: bytes, key: str | None) -> Expected | None:
        """The item that a put repeats."""
        for item in self.items:
            if (key is not None and item.key == key) or (
                key is None and item.payload == payload and item.state in {"ready", "leased"}
            ):
                return item
        return None

    # --- what can happen ---

    @rule(name=NAMES, keyed=st.booleans(), delay=SECONDS)
    def put(self, name: str, keyed: bool, delay: float) -> None:
        """Park something, new or known, with room or without."""
        payload, key = name.encode(), name if keyed else None
        known = self.known(payload, key)
        waiting = [item for item in self.items if item.state in {"ready", "leased"}]
        try:
            item_id, created = self.store.put(
                NewItem(payload=payload, digest=name, key=key, delay=delay, group=ord(name) % 3)
            )
        except QueueFull:
            assert known is None
            assert len(waiting) == SETTINGS.max_items
            return
        assert created is (known is None)
        assert created or (known is not None and item_id == known.item_id)
        if created:
            assert len(waiting) < SETTINGS.max_items
            times = (self.now + delay, self.now + SETTINGS.ttl)
            self.items.append(Expected(item_id, len(self.items), payload, key, *times, group=ord(name) % 3))

    @rule(limit=st.integers(1, 4), seconds=st.sampled_from([10.0, 100.0]), shares=SHARES)
    def lease(self, limit: int, seconds: float, shares: dict[int, int] | None) -> None:
        """First due, first out, and nothing that somebody else holds; of each group no more than is wanted."""
        leased = self.store.lease(limit, seconds, shares)
        self.tidy()
        due = self.due()
        if shares is not None:
            of_groups = {
                group: [item for item in due if item.group == group][:share] for group, share in shares.items()
            }
            due = [item for item in due if item in of_groups.get(item.group, ())]
        assert [one.id for one in leased] == [item.item_id for item in due[:limit]]
        for one, item in zip(leased, due, strict=False):
            item.state, item.lease_until = "leased", self.now + seconds
            item.attempts += 1
            item.leases += 1
            assert (one.payload, one.key, one.group) == (item.payload, item.key, item.group)
            assert (one.attempts, one.leases) == (item.attempts, item.leases)
            assert one.token not in self.tokens
            self.tokens.add(one.token)
            self.held.append(Held(item, one.token))

    @rule()
    def groups(self) -> None:
        """Those with something due; each shows its next item."""
        found = self.store.groups()
        self.tidy()
        due = self.due()
        firsts = {item.group: item.not_before for item in reversed(due)}
        assert found == sorted(firsts, key=lambda group: (firsts[group], group))
        for group in found:
            assert self.store.sample(group) == next(item.payload for item in due if item.group == group)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seconds=st.sampled_from([10.0, 100.0, 2 * FURTHEST]))
    def renew(self, data: st.DataObject, seconds: float) -> None:
        """Whoever holds an item may keep it."""
        held = data.draw(st.sampled_from(self.held))
        assert self.store.renew(held.item.item_id, held.token, seconds) is not held.lost
        if not held.lost:
            held.item.lease_until = self.now + min(seconds, FURTHEST)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        """An answer counts once, from whoever holds the lease."""
        held = data.draw(st.sampled_from(self.held))
        answer = held.token.encode()
        assert self.store.complete(held.item.item_id, held.token, answer) is not held.lost
        if not held.lost:
            held.item.result = answer
            self.end(held.item, "done")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay=SECONDS, counts=st.booleans())
    def retry(self, data: st.DataObject, delay: float, counts: bool) -> None:
        """A failure counts or does not; the last one that counts is the end."""
        held = data.draw(st.sampled_from(self.held))
        found = self.store.retry(held.item.item_id, held.token, delay=delay, error="e", counts=counts)
        if held.lost:
            assert found is None
            return
        item = held.item
        expected = "dead" if counts and item.attempts >= SETTINGS.attempts else "ready"
        assert found == expected
        self.end(item, expected)
        if expected == "ready":
            item.not_before = self.now + delay
            item.attempts -= not counts

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        """Giving up needs a lease as well."""
        held = data.draw(st.sampled_from(self.held))
        assert self.store.bury(held.item.item_id, held.token, "e") is not held.lost
        if not held.lost:
            self.end(held.item, "dead")

    @rule(data=st.data(), everything=st.booleans())
    def requeue(self, data: st.DataObject, everything: bool) -> None:
        """Dead letters wait again."""
        dead = [item for item in self.items if item.state == "dead"]
        some = dead if everything or not dead else data.draw(st.lists(st.sampled_from(dead), unique_by=id))
        assert self.store.requeue(None if everything else [item.item_id for item in some]) == len(some)
        for item in some:
            item.state, item.attempts = "ready", 0
            item.not_before, item.expires = self.now, self.now + SETTINGS.ttl

    @rule(dead=st.booleans(), older_than=SECONDS)
    def purge(self, dead: bool, older_than: float) -> None:
        """What is over can go."""
        state = "dead" if dead else "done"
        over = [item for item in self.items if item.state == state and item.finished <= self.now - older_than]
        assert self.store.purge(older_than, dead=dead) == len(over)
        self.items = [item for item in self.items if item not in over]

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule()
    def repair(self) -> None:
        """Changes nothing where nothing is damaged."""
        assert self.store.repair().recovered == len(self.items)

    # --- what always holds ---

    @invariant()
    def the_figures_add_up(self) -> None:
        """Counters, and the next time something happens."""
        stats = self.store.stats()
        states = [item.state for item in self.items]
        assert {state: getattr(stats, state) for state in ("ready", "leased", "done", "dead")} == {
            state: states.count(state) for state in ("ready", "leased", "done", "dead")
        }
        times = [item.not_before for item in self.items if item.state == "ready"]
        times += [item.lease_until for item in self.items if item.state == "leased"]
        assert stats.next_at == min(times, default=None)

    @invariant()
    def every_item_is_as_expected(self) -> None:
        """State, payload and answer."""
        for item in self.items:
            record = self.store.get(item.item_id)
            assert record is not None
            assert (record.state, record.result, record.attempts) == (item.state, item.result, item.attempts)
            assert record.payload == (None if item.state == "done" else item.payload)


class FileMachine(QueueMachine):
    """The same on a disk, where every step is synced: few, but some."""

    def make(self, clock: FakeClock) -> QueueStore:
        """A file of its own."""
        self.folder = tempfile.mkdtemp()
        return SqliteStore(Path(self.folder) / "queue.db", SETTINGS, clock)

    def teardown(self) -> None:
        """Leave nothing behind."""
        super().teardown()
        shutil.rmtree(self.folder)


TestQueueInMemory = QueueMachine.TestCase
TestQueueInMemory.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestQueueInAFile = FileMachine.TestCase
TestQueueInAFile.settings = settings(
    max_examples=5, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
