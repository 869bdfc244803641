"""What every store promises the queue."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from holyroute.config.schema import QueueSettings
from holyroute.exceptions import InvalidItem, QueueFull, QueueUnavailable
from holyroute.stores.base import FURTHEST, Leased, NewItem
from holyroute.stores.memory import MemoryStore
from holyroute.stores.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.stores.base import QueueStore
    from holyroute.testing import FakeClock

    Make = Callable[..., QueueStore]


def item(text: str | bytes = "a", key: str | None = None, delay: float = 0.0, group: int = 0) -> NewItem:
    payload = text.encode() if isinstance(text, str) else text
    return NewItem(payload=payload, digest=hashlib.blake2b(payload).hexdigest(), key=key, delay=delay, group=group)


def lease_one(store: QueueStore, seconds: float = 100.0) -> Leased:
    (leased,) = store.lease(1, seconds)
    return leased


def state(store: QueueStore, item_id: str) -> str:
    record = store.get(item_id)
    assert record is not None
    return record.state


def error(store: QueueStore, item_id: str) -> str | None:
    record = store.get(item_id)
    assert record is not None
    return record.error


# --- parking ----------------------------------------------------------------------------------------------------------


def test_what_is_put_is_lent_as_it_was(store: QueueStore) -> None:
    """Any bytes, a megabyte of them too, come back unchanged."""
    payload = bytes(range(256)) * 4096
    item_id, created = store.put(item(payload, key="k"))
    leased = lease_one(store)

    assert created
    assert (leased.id, leased.payload, leased.key, leased.attempts, leased.leases) == (item_id, payload, "k", 1, 1)


def test_the_same_payload_waits_once(store: QueueStore, clock: FakeClock) -> None:
    """A second put finds the first, waiting or lent; once it is answered, a new one is wanted."""
    first, _ = store.put(item())
    again = store.put(item())
    leased = lease_one(store)
    while_lent = store.put(item())
    clock.advance(1)
    store.complete(leased.id, leased.token, b"1")
    new, created = store.put(item())

    assert again == while_lent == (first, False)
    assert new != first
    assert created


def test_a_key_stands_for_one_item(store: QueueStore) -> None:
    """The same key finds its item, also after the answer; different keys make two of the same payload."""
    first, _ = store.put(item(key="k"))
    other, created = store.put(item(key="l"))
    leased = lease_one(store)
    store.complete(leased.id, leased.token, b"1")

    assert created
    assert other != first
    assert leased.id == first
    assert store.put(item(key="k")) == (first, False)


def test_a_key_stands_for_no_other_payload(store: QueueStore) -> None:
    """Whoever uses a key again for another call learns it, instead of getting the wrong answer one day."""
    store.put(item("a", key="k"))

    with pytest.raises(InvalidItem, match="'k' stands for another call"):
        store.put(item("b", key="k"))
    assert store.stats().ready == 1


def test_too_many_items_are_refused(make: Make) -> None:
    """The limit counts what waits, lent items included; an answer makes room."""
    store = make(max_items=2)
    store.put(item("a"))
    store.put(item("b"))
    leased = lease_one(store)

    with pytest.raises(QueueFull, match=r"2 calls wait, as many as queue\.max_items allows"):
        store.put(item("c"))
    assert store.put(item("a")) == (leased.id, False)
    store.complete(leased.id, leased.token, b"1")
    assert store.put(item("c"))[1]


def test_a_large_store_is_refused(make: Make) -> None:
    """The limit counts bytes in use: what answers and purging free can be used again."""
    store = make(max_bytes=300_000)
    number = 0
    while store.stats().size < 300_000:
        assert store.put(item(b"%4d" % number * 5_000))[1]
        number += 1
    with pytest.raises(QueueFull, match=r"queue\.max_bytes"):
        store.put(item(b"another" * 5_000))
    for leased in store.lease(100, 100):
        store.complete(leased.id, leased.token, b"1")

    assert number > 10
    assert store.put(item(b"another" * 5_000))[1]


# --- leasing ----------------------------------------------------------------------------------------------------------


def test_first_due_first_out(store: QueueStore, clock: FakeClock) -> None:
    """Items leave in the order in which they fall due, then in that of their arrival."""
    late, a, b = (store.put(item(text, delay=delay))[0] for text, delay in (("late", 10), ("a", 0), ("b", 0)))
    now = [leased.id for leased in store.lease(10, 1_000)]
    clock.advance(9.9)
    early = store.lease(10, 1_000)
    clock.advance(0.1)

    assert now == [a, b]
    assert early == []
    assert [leased.id for leased in store.lease(10, 1_000)] == [late]


def test_no_more_than_asked_for(store: QueueStore) -> None:
    """A worker gets as many as it can use."""
    for number in range(5):
        store.put(item(str(number)))

    assert [len(store.lease(2, 100)) for _ in range(4)] == [2, 2, 1, 0]


def test_groups_of_which_something_is_due(store: QueueStore, clock: FakeClock) -> None:
    """Each once, in the order in which they were due; what is lent, over or not due yet makes none."""
    for text, delay, group in (("late", 10, 7), ("a", 2, -5), ("b", 1, 2**63 - 1), ("c", 2, -5), ("d", 0, -(2**63))):
        store.put(item(text, delay=delay, group=group))
    at_once = store.groups()
    lease_one(store, 100)
    clock.advance(5)
    then = store.groups()
    clock.advance(5)

    assert at_once == [-(2**63)]
    assert then == [2**63 - 1, -5]
    assert store.groups() == [2**63 - 1, -5, 7]


def test_groups_are_told_when_order_is_made(make: Make, clock: FakeClock) -> None:
    """An item whose worker died counts again, and one that waited too long does not."""
    store = make(ttl=1_000)
    store.put(item("a", group=1))
    lease_one(store, 500)
    store.put(item("b", group=2))
    before = store.groups()
    clock.advance(500)
    after = store.groups()
    clock.advance(500)

    assert (before, after) == ([2], [2, 1])
    assert store.groups() == []
    assert store.stats().dead == 2


def test_a_group_shows_its_next_item(store: QueueStore) -> None:
    """Without lending it; a group of which nothing waits has none to show."""
    store.put(item("later", delay=10, group=1))
    store.put(item("next", group=1))
    store.put(item("other", group=2))
    store.lease(1, 100, {2: 1})

    assert store.sample(1) == b"next"
    assert store.sample(2) is store.sample(3) is None
    assert store.stats().ready == 2


def test_only_what_is_wanted_of_a_group(store: QueueStore, clock: FakeClock) -> None:
    """Of each group its share at most, of all together the limit, first due first; of no other group anything."""
    for number in range(12):
        store.put(item(f"{number}", group=number % 3))
        clock.advance(1)

    lent = [[leased.payload for leased in store.lease(limit, 100, shares)] for limit, shares in (
        (10, {1: 2, 2: 1}), (2, {1: 5, 2: 5}), (10, {}), (10, {1: 0, 8: 3}), (10, {2: 5, 1: 5}),
    )]  # fmt: skip
    rest = store.lease(10, 100)

    assert lent == [[b"1", b"2", b"4"], [b"5", b"7"], [], [], [b"8", b"10", b"11"]]
    assert [(leased.payload, leased.group) for leased in rest] == [(b"0", 0), (b"3", 0), (b"6", 0), (b"9", 0)]


def test_nobody_else_gets_a_lent_item(store: QueueStore) -> None:
    """Eight threads that lease at once get every item once."""
    ids = {store.put(item(str(number)))[0] for number in range(40)}
    gate = threading.Barrier(8)

    def work(_: int) -> list[str]:
        gate.wait()
        return [leased.id for _ in range(10) for leased in store.lease(1, 100)]

    with ThreadPoolExecutor(8) as pool:
        lent = [item_id for some in pool.map(work, range(8)) for item_id in some]

    assert sorted(lent) == sorted(ids)


def test_a_lease_that_ends_gives_the_item_back(store: QueueStore, clock: FakeClock) -> None:
    """Whoever died loses the item to the next one, behind those that are due, and cannot touch it any more."""
    first, _ = store.put(item("a"))
    lost = lease_one(store, 100)
    clock.advance(99.9)
    other, _ = store.put(item("b"))
    held = store.lease(1, 1)
    clock.advance(0.1)
    back = store.lease(2, 100)

    assert [leased.id for leased in held] == [other]
    assert [leased.id for leased in back] == [first]
    assert (back[0].attempts, back[0].leases) == (2, 2)
    assert not store.renew(first, lost.token, 100)
    assert not store.complete(first, lost.token, b"stale")
    assert store.retry(first, lost.token, delay=0, error="stale", counts=True) is None
    assert not store.bury(first, lost.token, "stale")
    assert (state(store, first), error(store, first)) == ("leased", None)


def test_an_item_that_comes_back_waits_behind_those_that_are_due(store: QueueStore, clock: FakeClock) -> None:
    """What kills its workers does not hold up the others."""
    deadly, _ = store.put(item("a"))
    harmless, _ = store.put(item("b"))
    lease_one(store, 10)
    clock.advance(10)

    assert [leased.id for leased in store.lease(2, 10)] == [harmless, deadly]


def test_a_lease_can_be_renewed(store: QueueStore, clock: FakeClock) -> None:
    """A worker that lives keeps its item as long as it needs."""
    store.put(item())
    leased = lease_one(store, 100)
    for _ in range(10):
        clock.advance(99)
        assert store.lease(1, 100) == []
        assert store.renew(leased.id, leased.token, 100)

    assert store.complete(leased.id, leased.token, b"1")


def test_an_answer_that_comes_late_counts_if_nobody_took_over(store: QueueStore, clock: FakeClock) -> None:
    """It was paid for."""
    store.put(item())
    leased = lease_one(store, 100)
    clock.advance(1_000)

    assert store.complete(leased.id, leased.token, b"1")


def test_an_item_that_kills_its_workers_dies(make: Make, clock: FakeClock) -> None:
    """An attempt counts when it begins, so that nobody has to live to count it."""
    store = make(attempts=3)
    item_id, _ = store.put(item())
    for _ in range(3):
        assert len(store.lease(1, 10)) == 1
        clock.advance(10)

    assert store.lease(1, 10) == []
    assert state(store, item_id) == "dead"
    assert "without a word" in str(error(store, item_id))


# --- ending -----------------------------------------------------------------------------------------------------------


def test_an_answer_is_recorded_once(store: QueueStore, clock: FakeClock) -> None:
    """The payload goes with it; a second answer is refused."""
    item_id, _ = store.put(item())
    leased = lease_one(store)
    first = store.complete(item_id, leased.token, b"first")
    second = store.complete(item_id, leased.token, b"second")
    record = store.get(item_id)

    assert (first, second) == (True, False)
    assert record is not None
    assert (record.state, record.result, record.payload) == ("done", b"first", None)
    assert (record.created, record.finished) == (clock.wall(), clock.wall())


def test_attempts_that_count_end(make: Make, clock: FakeClock) -> None:
    """Bad input dies with its last attempt and the latest cause, and nothing happens to it any more."""
    store = make(attempts=3)
    item_id, _ = store.put(item())
    ends = []
    for number in range(3):
        leased = lease_one(store)
        ends.append(store.retry(item_id, leased.token, delay=5, error=f"cause {number}", counts=True))
        clock.advance(5)

    assert ends == ["ready", "ready", "dead"]
    assert (state(store, item_id), error(store, item_id)) == ("dead", "cause 2")
    assert store.lease(1, 10) == []


def test_attempts_that_do_not_count_go_on(make: Make) -> None:
    """An outage costs no attempt, however often it is met; a cause that is not given leaves the one before."""
    store = make(attempts=2)
    item_id, _ = store.put(item())
    for number in range(10):
        leased = lease_one(store)
        cause = "outage" if number == 0 else None
        assert (leased.attempts, leased.leases) == (1, number + 1)
        assert store.retry(item_id, leased.token, delay=0, error=cause, counts=False) == "ready"

    assert error(store, item_id) == "outage"


def test_time_ends_too(make: Make, clock: FakeClock) -> None:
    """What waited too long is a dead letter with its last cause; one that is lent then may still be answered."""
    store = make(ttl=1_000)
    lent, waiting = (store.put(item(text))[0] for text in ("a", "b"))
    first, second = store.lease(2, 3_000)
    store.retry(waiting, second.token, delay=0, error="provider down", counts=False)
    clock.advance(1_000)

    assert store.lease(1, 10) == []
    assert (state(store, waiting), error(store, waiting)) == ("dead", "waited too long; last: provider down")
    assert store.complete(lent, first.token, b"1")


def test_a_hopeless_item_is_buried(store: QueueStore) -> None:
    """It dies at once, with the cause."""
    item_id, _ = store.put(item())
    buried = store.bury(item_id, lease_one(store).token, "no such route")

    assert buried
    assert (state(store, item_id), error(store, item_id)) == ("dead", "no such route")


# --- keeping house ----------------------------------------------------------------------------------------------------


def test_dead_letters_come_back_when_asked(make: Make, clock: FakeClock) -> None:
    """One, or all: with fresh attempts and time, and the payload they had."""
    store = make(attempts=1, ttl=1_000)
    ids = [store.put(item(text))[0] for text in "abc"]
    for leased in store.lease(3, 10):
        store.bury(leased.id, leased.token, "cause")
        clock.advance(1)
    listed = [record.id for record in store.dead(2)]
    clock.advance(5_000)
    one = store.requeue([ids[1], "unknown", ids[1]])
    rest = store.requeue(None)

    assert listed == [ids[2], ids[1]]
    assert (one, rest) == (1, 2)
    assert store.requeue([]) == 0
    assert sorted(leased.payload for leased in store.lease(3, 10)) == [b"a", b"b", b"c"]


def test_answers_go_after_their_time(make: Make, clock: FakeClock) -> None:
    """Leasing clears up behind itself, a hundred answers at a time; dead letters stay."""
    store = make(retention=1_000)
    for number in range(102):
        store.put(item(str(number)))
    *some, last = store.lease(102, 10)
    for leased in some:
        store.complete(leased.id, leased.token, b"1")
    store.bury(last.id, last.token, "cause")
    clock.advance(999)
    store.lease(1, 10)
    before = store.stats()
    clock.advance(1)
    store.lease(1, 10)
    then = store.stats()
    store.lease(1, 10)

    assert (before.done, then.done, store.stats().done) == (101, 1, 0)
    assert store.stats().dead == 1


def test_purging_deletes_what_is_over(store: QueueStore, clock: FakeClock) -> None:
    """Answers or dead letters, those that ended long enough ago."""
    for text in "abcd":
        store.put(item(text))
    for leased, end in zip(store.lease(4, 1_000), ("done", "dead", "done", "dead"), strict=True):
        if end == "done":
            store.complete(leased.id, leased.token, b"1")
        else:
            store.bury(leased.id, leased.token, "cause")
        clock.advance(10)

    assert store.purge(30, dead=False) == 1
    assert store.purge(0, dead=False) == 1
    assert store.purge(0, dead=True) == 2
    assert store.dead(10) == []


def test_the_figures_add_up(store: QueueStore, clock: FakeClock) -> None:
    """Every item is counted in the state it is in; the next time something happens is known."""
    nothing = store.stats()
    for text in "abcdef":
        store.put(item(text, delay=10 if text == "f" else 0))
    a, b, c = store.lease(3, 50)
    lent = store.stats()
    store.complete(a.id, a.token, b"1")
    store.bury(b.id, b.token, "cause")
    store.retry(c.id, c.token, delay=0, error=None, counts=True)
    store.lease(3, 5)
    stats = store.stats()

    assert (nothing.next_at, lent.next_at, stats.next_at) == (None, clock.wall(), clock.wall() + 5)
    assert (lent.ready, lent.leased, lent.done, lent.dead) == (3, 3, 0, 0)
    assert (stats.ready, stats.leased, stats.done, stats.dead) == (1, 3, 1, 1)
    assert stats.size > 0


def test_a_store_in_order_has_nothing_to_say(store: QueueStore) -> None:
    """Checking reads everything and changes nothing; repairing loses nothing."""
    for text in "abc":
        store.put(item(text))
    leased = lease_one(store)
    store.complete(leased.id, leased.token, b"1")
    before = store.stats()

    assert store.check() == ()
    assert (store.repair().recovered, store.repair().damaged) == (3, 0)
    assert (store.stats().ready, store.stats().done) == (before.ready, before.done)
    assert store.check() == ()


def test_an_unknown_item_is_none(store: QueueStore) -> None:
    """Asking for what is not there is no error of the store's."""
    assert store.get("unknown") is None
    assert not store.complete("unknown", "token", b"1")


def test_a_closed_store_says_so(store: QueueStore) -> None:
    """Closing twice does no harm; whatever is asked afterwards is refused by name."""
    store.put(item())
    store.close()
    store.close()

    for use in (store.stats, lambda: store.put(item()), lambda: store.lease(1, 10), store.repair):
        with pytest.raises(QueueUnavailable, match="is closed"):
            use()


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_delays_and_leases_end_within_an_hour(store: QueueStore, clock: FakeClock) -> None:
    """However long somebody wants to wait: what is far ahead is a mistake."""
    delayed, _ = store.put(item("a", delay=10**9))
    clock.advance(FURTHEST)
    leased = lease_one(store, 10**9)
    clock.advance(FURTHEST)
    again = lease_one(store)
    store.retry(delayed, again.token, delay=10**9, error=None, counts=True)
    clock.advance(FURTHEST)

    assert leased.id == again.id == delayed
    assert len(store.lease(1, 10)) == 1


def test_a_clock_that_was_ahead_holds_nothing_up(store: QueueStore, clock: FakeClock) -> None:
    """After a wrong time of day is corrected, what was written then is not out of reach for a year."""
    right = clock.wall()
    clock.set_wall(right + 365 * 86_400)
    waiting, lent = (store.put(item(text))[0] for text in ("a", "b"))
    held = store.lease(2, 100)
    store.retry(waiting, held[0].token, delay=100, error=None, counts=True)
    clock.set_wall(right)

    assert {leased.id for leased in store.lease(2, 100)} == {waiting, lent}


# --- threads ----------------------------------------------------------------------------------------------------------


def test_many_threads_lose_nothing(store: QueueStore) -> None:
    """Four threads that park and four that answer: every item is answered once, and nothing is left."""
    per_thread = 15
    answered: list[str] = []

    def park(number: int) -> None:
        for turn in range(per_thread):
            store.put(item(f"{number}/{turn}"))

    def answer(_: int) -> None:
        while len(answered) < 4 * per_thread:
            lent = store.lease(2, 1_000)
            answered.extend(one.id for one in lent if store.complete(one.id, one.token, one.payload))

    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(task, number) for number in range(4) for task in (park, answer)]
        for one in work:
            one.result(timeout=15)

    assert len(set(answered)) == len(answered) == 4 * per_thread
    assert (store.stats().ready, store.stats().leased, store.stats().done) == (0, 0, 4 * per_thread)


# --- depth ------------------------------------------------------------------------------------------------------------


class NotingConnection(sqlite3.Connection):
    """Keeps what it was asked, values apart from statements, as the planner gets them."""

    asked: ClassVar[dict[str, Any]] = {}

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:  # type: ignore[override]
        """Note, and do it."""
        self.asked[sql] = values
        return super().execute(sql, values)


def test_no_operation_walks_through_all_items(clock: FakeClock) -> None:
    """Every statement finds its rows by an index, so that an operation costs the same at any depth."""
    store = MemoryStore(QueueSettings(), clock)
    NotingConnection.asked = {}
    db = store._db = sqlite3.connect(":memory:", isolation_level=None, factory=NotingConnection)
    db.executescript(SCHEMA)
    for number in range(4):
        store.put(item(str(number), key=str(number) if number % 2 else None))
    done, dead, back = store.lease(3, 100)
    store.groups()
    store.sample(0)
    store.lease(1, 100, {0: 1, 1: 1})
    store.renew(done.id, done.token, 100)
    store.complete(done.id, done.token, b"1")
    store.bury(dead.id, dead.token, "cause")
    store.retry(back.id, back.token, delay=0, error=None, counts=False)
    store.get(done.id)
    store.dead(10)
    store.waiting(10)
    store.requeue(None)
    store.requeue([dead.id])
    store.purge(0, dead=False)
    store.purge(0, dead=True)
    store.stats()
    verbs = {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}
    asked = {one: values for one, values in db.asked.items() if one.split()[0] in verbs and "item" in one}
    plans = {one: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {one}", values)] for one, values in asked.items()}
    store.close()

    assert len(asked) > 15
    sorts = {one for one, plan in plans.items() if any("TEMP B-TREE" in line for line in plan)}
    assert all("state=?" in one or one.startswith("WITH") for one in sorts)  # of what is lent, or of groups
    lines = {line for plan in plans.values() for line in plan}
    assert {"SEARCH item USING INDEX item_group (grp=?)", "SEARCH item USING INDEX item_group (grp>?)"} <= lines
    whole = [plan for one, plan in plans.items() if "LIMIT" not in one]  # the others stop, as they need no sorting
    scans = {line for plan in whole for line in plan if line.startswith("SCAN item")}
    assert scans <= {f"SCAN item USING INDEX item_{kind}" for kind in ("lease", "dead")}  # what is lent or dead only
