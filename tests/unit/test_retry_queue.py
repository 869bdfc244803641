"""The queue of parked calls: what is kept, what is refused, and how a call ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.config.load import load
from holyroute.config.schema import QueueSettings
from holyroute.core.call import Selection
from holyroute.deferred.parked import ParkedCall
from holyroute.deferred.queue import RetryQueue
from holyroute.exceptions import (
    DeadLetter,
    HolyRouteError,
    InvalidItem,
    QueueCorrupt,
    QueueFull,
    ResultTimeout,
    SecretInPayload,
    UnknownTicket,
)
from holyroute.stores.base import NewItem
from holyroute.stores.memory import MemoryStore
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holyroute.deferred.queue import Lease

SECRETS = ["test-key-a", 'test"key\\b', "test-key-ü", "EMPTY", ""]
FULL = ParkedCall(
    body={"model": "m", "messages": [{"role": "user", "content": "안녕 \u2028 😀"}], "temperature": 0.1},
    model="route:simple_qa/fast",
    selection=Selection(task="simple_qa", priority="fast", models=("a", "b"), order="cheapest", direct=True),
    handler="save answer",
    metadata={"note": "the 17th"},
    key="row 17",
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make(clock: FakeClock) -> Iterator[Callable[..., RetryQueue]]:
    """Queues in memory with some settings."""
    made: list[RetryQueue] = []

    def make_one(**settings: float) -> RetryQueue:
        chosen = QueueSettings(path=":memory:", **settings)  # type: ignore[arg-type]
        made.append(RetryQueue.open(chosen, secrets=lambda: SECRETS, clock=clock))
        return made[-1]

    yield make_one
    for queue in made:
        queue.close()


@pytest.fixture
def queue(make: Callable[..., RetryQueue]) -> RetryQueue:
    return make()


def call(text: Any = "hello", **more: Any) -> ParkedCall:
    return ParkedCall(body={"messages": [{"role": "user", "content": text}]}, **more)


def lease_one(queue: RetryQueue) -> Lease:
    (lease,) = queue.lease(1)
    return lease


# --- parking ----------------------------------------------------------------------------------------------------------


def test_a_call_is_kept_whole(queue: RetryQueue, clock: FakeClock) -> None:
    """Whoever replays it gets body, route, handler's name, metadata and key as they were."""
    ticket = queue.put(FULL)
    item = queue.get(ticket.id)
    lease = lease_one(queue)

    assert lease.call == item.call == FULL
    assert list(lease.call.body) == list(FULL.body)
    assert lease.id == item.id == ticket.id
    assert (item.state, item.created, item.key) == ("ready", clock.wall(), "row 17")
    assert item.expires == clock.wall() + 7 * 86_400


def test_a_retry_loop_parks_one_call(queue: RetryQueue) -> None:
    """The script's own three tries are one item; so are equal calls from elsewhere while it waits."""
    tickets = [queue.put(call()) for _ in range(3)]
    other = queue.put(call("something else"))

    assert [ticket.created for ticket in tickets] == [True, False, False]
    assert len(set(tickets)) == 1
    assert other not in tickets
    assert queue.stats().ready == 2


def test_the_route_makes_a_call_another(queue: RetryQueue) -> None:
    """The same question to another model is another call."""
    assert queue.put(call(model="a")) != queue.put(call(model="b"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (ParkedCall(body=[1, 2]), "body: expected a JSON object, got list"),  # type: ignore[arg-type]
        (ParkedCall(body=b"{}"), "body: expected a JSON object, got bytes"),  # type: ignore[arg-type]
        (ParkedCall(body={}, metadata="text"), "metadata: expected a JSON object, got str"),  # type: ignore[arg-type]
        (call({1, 2}), "no JSON: Object of type set"),
        (call(b"bytes"), "no JSON: Object of type bytes"),
        (call(float("nan")), "no JSON: Out of range float"),
        (call("half \ud83d"), "half a character"),
        (call("x" * 10_000_000), r"takes 10000\d{3} bytes, queue\.max_item_bytes allows 5000000"),
        (call("안" * 2_000_000), r"takes 6000\d{3} bytes, queue"),
        (call(key=""), "key: expected 1 to 255 printable characters"),
        (call(key="a\nb"), "key: expected 1 to 255 printable characters"),
        (call(key="x" * 256), "key: expected 1 to 255 printable characters"),
        (call(handler=print), "handler: expected 1 to 255 printable characters"),
    ],
)
def test_what_cannot_be_kept_is_refused(queue: RetryQueue, wrong: ParkedCall, message: str) -> None:
    """The error says what is wrong and shows nothing of the call; nothing is parked."""
    with pytest.raises(InvalidItem, match=message):
        queue.put(wrong)
    assert queue.stats().ready == 0


def test_a_call_without_end_is_refused(queue: RetryQueue) -> None:
    """A body that contains itself, or is nested too deeply."""
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]

    for wrong in (endless, deep):
        with pytest.raises(InvalidItem, match="no JSON"):
            queue.put(call(wrong))


@pytest.mark.parametrize("secret", SECRETS[:3])
def test_keys_are_never_written(queue: RetryQueue, secret: str) -> None:
    """Wherever a known key stands, in whatever spelling JSON gives it, the call is refused, and the key not shown."""
    places = [
        call(f"my key is {secret}!"),
        ParkedCall(body={secret: 1}),
        call(model=secret),
        call(selection=Selection(models=("a", secret))),
        call(handler=f"for {secret}"),
        call(metadata={"nested": [{"deep": secret}]}),
        call(key=f"row {secret}"),
    ]

    for wrong in places:
        with pytest.raises(SecretInPayload) as caught:
            queue.put(wrong)
        assert secret not in str(caught.value)
    assert queue.stats().ready == 0


def test_words_that_serve_as_keys_are_no_secrets(queue: RetryQueue) -> None:
    """A local server's key is EMPTY, or nothing; prompts with that word can be parked."""
    assert queue.put(call("an EMPTY box")).created


def test_a_full_queue_says_so(make: Callable[..., RetryQueue]) -> None:
    """Never silently."""
    queue = make(max_items=1)
    queue.put(call("a"))

    with pytest.raises(QueueFull):
        queue.put(call("b"))


def test_nothing_of_a_prompt_or_a_token_is_shown(queue: RetryQueue) -> None:
    """What ends up in logs by accident holds ids."""
    ticket = queue.put(FULL)
    lease = lease_one(queue)
    shown = repr([ticket, lease, queue.get(ticket.id), FULL])

    assert ticket.id in shown
    for private in ("안녕", "row 17", lease.token, "the 17th"):
        assert private not in shown


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [{"choices": [{"text": "안녕 \ud83d"}]}, None, 0, "", [], 1.5])
def test_an_answer_comes_back_as_it_was(queue: RetryQueue, answer: Any) -> None:
    """Any JSON, also an empty one, and half a character that a provider sent: it was paid for."""
    ticket = queue.put(call())
    recorded = queue.complete(lease_one(queue), answer)

    assert recorded
    assert ticket.result(timeout=0) == answer
    assert queue.get(ticket.id).result == answer
    assert queue.get(ticket.id).call is None


def test_waiting_ends_with_the_answer(queue: RetryQueue, clock: FakeClock) -> None:
    """A ticket looks often at first, then every second; it sees what another thread or process recorded."""
    ticket = queue.put(call())
    lease = lease_one(queue)
    sleep = clock.sleep

    def sleep_and_answer(seconds: float) -> None:
        sleep(seconds)
        if len(clock.slept) == 7:
            queue.complete(lease, "done")

    clock.sleep = sleep_and_answer  # type: ignore[method-assign]

    assert ticket.result() == "done"
    assert clock.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_waiting_ends_in_time(queue: RetryQueue, clock: FakeClock) -> None:
    """A ticket stays good when its answer is late; setting the time of day moves no deadline."""
    ticket = queue.put(call())
    clock.set_wall(0)
    with pytest.raises(ResultTimeout, match=r"is not answered yet \(ready\)"):
        ticket.result(timeout=2.5)

    assert sum(clock.slept) == pytest.approx(2.5)
    with pytest.raises(TimeoutError):
        ticket.result(timeout=0)
    assert sum(clock.slept) == pytest.approx(2.5)


def test_a_dead_letter_raises_its_cause(queue: RetryQueue) -> None:
    """Waiting for what was given up ends at once."""
    ticket = queue.put(call())
    queue.bury(lease_one(queue), "route gone")

    with pytest.raises(DeadLetter, match=f"{ticket.id} was given up: route gone") as caught:
        ticket.result()
    assert (caught.value.id, caught.value.cause) == (ticket.id, "route gone")


@pytest.mark.parametrize("ticket_id", ["", "unknown", "0" * 32, "'; DROP TABLE item; --"])
def test_an_unknown_ticket_is_named(queue: RetryQueue, ticket_id: str) -> None:
    """A typing error, or an answer that was purged."""
    with pytest.raises(UnknownTicket, match="never parked here, or its answer was purged"):
        queue.get(ticket_id)
    with pytest.raises(LookupError):
        queue.result(ticket_id, timeout=0)


def test_an_answer_that_is_no_json_is_refused(queue: RetryQueue) -> None:
    """A mistake of whoever replays; the lease goes on."""
    queue.put(call())
    lease = lease_one(queue)

    with pytest.raises(InvalidItem, match="the answer is no JSON"):
        queue.complete(lease, object())
    assert queue.complete(lease, "text")


def test_a_key_in_an_answer_is_masked(queue: RetryQueue) -> None:
    """A provider that repeats the key does not get it onto the disk."""
    ticket = queue.put(call())
    queue.complete(lease_one(queue), {"content": [f"your key is {secret}" for secret in SECRETS[:3]]})

    assert ticket.result(0) == {"content": ["your key is ***"] * 3}


def test_a_damaged_answer_is_not_handed_out() -> None:
    """A wrong answer is worse than none."""
    store = MemoryStore(QueueSettings())
    queue = RetryQueue(store, QueueSettings())
    ticket = queue.put(call())
    queue.complete(lease_one(queue), "right")
    with store._writing() as (db, _):
        db.execute("UPDATE item SET result=?", (b'"wrong"',))

    with pytest.raises(QueueCorrupt, match=f"the answer to parked call {ticket.id} is damaged"):
        ticket.result(0)
    queue.close()


# --- replaying --------------------------------------------------------------------------------------------------------


def test_bad_input_gets_attempts(queue: RetryQueue, clock: FakeClock) -> None:
    """Five that count, with pauses between them; then it is a dead letter with the latest cause."""
    ticket = queue.put(call())
    ends = []
    for number in range(5):
        clock.advance(900)
        ends.append(queue.fail(lease_one(queue), f"400: cause {number}", counts_as_attempt=True))
    (dead,) = queue.dead()

    assert ends == ["ready"] * 4 + ["dead"]
    assert (dead.id, dead.state, dead.error, dead.attempts) == (ticket.id, "dead", "400: cause 4", 5)
    assert dead.call == call()


def test_providers_get_time(queue: RetryQueue, clock: FakeClock) -> None:
    """However many faults: only after seven days it is a dead letter."""
    ticket = queue.put(call())
    for _ in range(7 * 24 - 1):
        clock.advance(3_600)
        assert queue.fail(lease_one(queue), "503", counts_as_attempt=False) == "ready"
    clock.advance(3_600)

    assert queue.lease(1) == []
    with pytest.raises(DeadLetter, match="waited too long; last: 503"):
        ticket.result(0)


def test_an_outage_found_after_leasing_changes_nothing(queue: RetryQueue, clock: FakeClock) -> None:
    """A call that was given back untried is due when it is said to be, with all its attempts."""
    queue.put(call())
    given = queue.postpone(lease_one(queue), 60)
    clock.advance(59)
    early = queue.lease(1)
    clock.advance(1)
    lease = lease_one(queue)

    assert given
    assert early == []
    assert (lease.attempts, lease.leases) == (1, 2)
    assert queue.get(lease.id).error is None


def test_a_failure_waits_as_long_as_the_provider_asks(queue: RetryQueue, clock: FakeClock) -> None:
    """A `Retry-After` longer than the back-off counts."""
    queue.put(call())
    queue.fail(lease_one(queue), "429", counts_as_attempt=False, retry_after=1_000)
    clock.advance(999)
    early = queue.lease(1)
    clock.advance(1)

    assert early == []
    assert len(queue.lease(1)) == 1


def test_back_off_doubles_with_full_jitter(make: Callable[..., RetryQueue], clock: FakeClock) -> None:
    """At most 30 s after the first failure, 60 s after the second …, 15 min in the end; and not all at once."""
    queue = make(ttl=10**9)
    waits: list[list[float]] = [[] for _ in range(8)]
    for number in range(20):
        ticket = queue.put(call(number))
        for some in waits:
            queue.fail(lease_one(queue), "503", counts_as_attempt=False)
            some.append(queue.get(ticket.id).not_before - clock.wall())
            clock.advance(900)
        queue.bury(lease_one(queue), "enough")

    assert all(max(some) <= most for some, most in zip(waits, (30, 60, 120, 240, 480, 900, 900, 900), strict=True))
    assert all(len(set(some)) > 10 for some in waits)
    assert max(waits[-1]) > 480


def test_leases_last_longer_than_replays(queue: RetryQueue, clock: FakeClock) -> None:
    """At least two minutes, or half as long again as a replay may take; renewed after a third."""
    queue.put(call("a"))
    queue.put(call("b"))
    (short,) = queue.lease(1, deadline=10)
    (long,) = queue.lease(1, deadline=300)
    queue.put(call("c"))
    (longest,) = queue.lease(1, deadline=10_000)
    clock.advance(40)
    renewed = queue.renew(short)

    assert longest.seconds == 3_600
    assert (short.seconds, long.seconds) == (120, 450)
    assert (short.renew_at, long.renew_at) == (clock.now(), clock.now() + 110)
    assert renewed is not None
    assert renewed.renew_at == clock.now() + 40
    assert (renewed.id, renewed.token, renewed.call) == (short.id, short.token, short.call)


def test_no_room_takes_nothing(queue: RetryQueue) -> None:
    """A worker without a free hand leases no call, and certainly not all of them."""
    queue.put(call())

    assert queue.lease(0) == queue.lease(-1) == []
    assert queue.stats().leased == 0


def test_a_lost_lease_is_told(queue: RetryQueue, clock: FakeClock) -> None:
    """Whoever took too long can neither renew, answer, fail nor postpone; the answer of the next one counts."""
    ticket = queue.put(call())
    lost = lease_one(queue)
    clock.advance(120)
    held = lease_one(queue)

    assert queue.renew(lost) is None
    assert not queue.complete(lost, "late")
    assert queue.fail(lost, "late", counts_as_attempt=True) is None
    assert not queue.postpone(lost)
    assert not queue.bury(lost, "late")
    assert queue.complete(held, "in time")
    assert ticket.result(0) == "in time"


def test_what_nobody_can_read_is_put_aside(clock: FakeClock) -> None:
    """A payload of another hand is a dead letter; the others are lent."""
    store = MemoryStore(QueueSettings(), clock)
    queue = RetryQueue(store, QueueSettings(), clock=clock)
    for number, payload in enumerate((b"[]", b"{}", b"\xff", b'{"body": {}, "selection": {"color": 1}}', b"1")):
        store.put(NewItem(payload=payload, digest=str(number)))
    queue.put(call())

    assert [lease.call for lease in queue.lease(10)] == [call()]
    assert [item.call for item in queue.dead()] == [None] * 5
    assert all(str(item.error).startswith("cannot be read: ") for item in queue.dead())
    queue.close()


def test_causes_are_short_and_without_keys(queue: RetryQueue, clock: FakeClock) -> None:
    """Keys are masked, lines joined, characters that cannot be written replaced, and 500 are enough."""
    queue.put(call())
    queue.fail(lease_one(queue), f"bad key:\n  {SECRETS[0]} \ud83d " + "x" * 1_000, counts_as_attempt=True)
    clock.advance(900)
    queue.bury(lease_one(queue), f"{SECRETS[1]}")
    (dead,) = queue.dead()
    queue.requeue()
    queue.fail(lease_one(queue), f"bad key:\n  {SECRETS[0]} \ud83d " + "x" * 1_000, counts_as_attempt=True)
    error = queue.get(dead.id).error

    assert dead.error == "***"
    assert error is not None
    assert error.startswith("bad key: *** ? xxx")
    assert len(error) == 500


# --- keeping house ----------------------------------------------------------------------------------------------------


def test_dead_letters_can_be_tried_again(queue: RetryQueue) -> None:
    """All, some, or one by its id; a list that happens to be empty is not all of them."""
    tickets = [queue.put(call(text)) for text in "abcd"]
    for lease in queue.lease(4):
        queue.bury(lease, "cause")

    assert queue.requeue([]) == 0
    assert queue.requeue(tickets[0].id) == 1
    assert queue.requeue(ticket.id for ticket in tickets[:2]) == 1
    assert queue.requeue() == 2
    assert lease_one(queue).attempts == 1


def test_purging_takes_answers_after_their_time_and_dead_letters_when_asked(
    queue: RetryQueue, clock: FakeClock
) -> None:
    """What is purged is unknown from then on."""
    done, dead = queue.put(call("a")), queue.put(call("b"))
    first, second = queue.lease(2)
    queue.complete(first, "answer")
    queue.bury(second, "cause")
    early = queue.purge()
    clock.advance(queue.settings.retention)

    assert (early, queue.purge()) == (0, 1)
    assert len(queue.dead()) == 1
    assert queue.purge(dead=True) == 1
    for ticket in (done, dead):
        with pytest.raises(UnknownTicket):
            ticket.result(0)


def test_a_check_and_a_repair_are_at_hand(queue: RetryQueue) -> None:
    """From the queue itself, whatever keeps it."""
    queue.put(call())

    assert queue.check() == ()
    assert queue.repair().recovered == 1


# --- opening ----------------------------------------------------------------------------------------------------------


def test_the_path_decides_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a named file, or in the user's state folder; opened when it is used."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    named, default = (RetryQueue.open(QueueSettings(path=path)) for path in (str(tmp_path / "a.db"), ""))
    before = list(tmp_path.iterdir())
    ticket = named.put(call())
    default.put(call())

    assert before == []
    assert (tmp_path / "a.db").exists()
    assert (tmp_path / "state" / "holyroute" / "queue.db").exists()
    assert RetryQueue.open(QueueSettings(path=str(tmp_path / "a.db"))).get(ticket.id).call == call()


LAZY = """
import sys, holyroute
holyroute.Client(), holyroute.Session()
from holyroute.config.schema import QueueSettings
from holyroute.deferred.queue import RetryQueue
before = "sqlite3" in sys.modules
RetryQueue.open(QueueSettings(path=":memory:"))
print(before, "sqlite3" in sys.modules)
"""


def test_sqlite_is_loaded_by_those_who_park() -> None:
    """Whoever has no queue does not pay for one."""
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True, timeout=15)

    assert done.stdout == "False True\n"


def test_settings_come_from_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment and keywords; off until asked for, and what makes no sense is refused."""
    monkeypatch.setenv("HOLYROUTE_QUEUE_PATH", "/tmp/queue.db")  # noqa: S108 - never opened
    settings = load(queue={"enabled": True, "attempts": 3}).queue

    assert load().queue.enabled is False
    assert settings == QueueSettings(enabled=True, attempts=3, path="/tmp/queue.db")  # noqa: S108
    for wrong in ({"attempts": 0}, {"ttl": 0}, {"backoff_base": 1_000}, {"place": "x"}):
        with pytest.raises(HolyRouteError, match="queue"):
            load(queue=wrong)


def test_threads_share_a_queue(make: Callable[..., RetryQueue]) -> None:
    """Eight threads that park the same call at once get the same ticket, and one of them made it."""
    queue = make()
    gate = threading.Barrier(8)
    tickets = []

    def park() -> None:
        gate.wait()
        tickets.append(queue.put(call()))

    threads = [threading.Thread(target=park) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(tickets)) == 1
    assert sum(ticket.created for ticket in tickets) == 1
