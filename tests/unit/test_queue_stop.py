"""How a replay ends: signals, hung handlers, whoever is in a hurry, and disks that are full."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holyroute import load
from holyroute.cli import draining
from holyroute.config.schema import QueueSettings
from holyroute.deferred.parked import ParkedCall
from holyroute.deferred.queue import open_store
from holyroute.deferred.worked import WorkedQueue
from holyroute.engine.router import Router
from holyroute.exceptions import QueueFull
from holyroute.stores.memory import MemoryStore

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from queue_outage import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.core.call import Call
    from holyroute.core.outcome import Outcome


class _InterruptedError(Exception):
    pass


@pytest.fixture
def _unheard() -> Iterator[None]:
    """A signal that comes soon, whose handler raises, and which the kernel gives to any thread but this one."""

    def interrupt(*_: object) -> None:
        raise _InterruptedError

    def send() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.raise_signal(signal.SIGUSR1)  # to this thread; its handler runs in the main one, when that wakes

    before = signal.signal(signal.SIGUSR1, interrupt)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    sender = threading.Timer(0.1, send)
    sender.start()
    yield
    sender.join()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    signal.signal(signal.SIGUSR1, before)


def nobody(_: Call, __: str) -> Outcome:
    raise AssertionError("nothing is asked here")


@pytest.fixture
def queue() -> WorkedQueue:
    """On real time, with nothing in it."""
    router = Router(load(cwd_file=False, env={}), env={})
    settings = QueueSettings(path=":memory:")
    return WorkedQueue(open_store(settings), settings, router, send=nobody, record=lambda _: {})


@pytest.mark.usefixtures("_unheard")
def test_a_replay_hears_signals_that_do_not_wake_it(queue: WorkedQueue) -> None:
    """Who drains in the main thread and waits for the next look can be interrupted all the same."""
    run = queue._run()
    with pytest.raises(_InterruptedError):
        run.wait(60.0)


@pytest.mark.usefixtures("_unheard")
def test_whoever_stops_a_replay_hears_signals_that_do_not_wake_it(queue: WorkedQueue) -> None:
    """Also while the replay takes its time to end."""
    over = threading.Event()
    queue._thread = threading.Thread(target=over.wait, daemon=True)
    queue._thread.start()
    with pytest.raises(_InterruptedError):
        queue.stop(grace=60.0)
    over.set()


@pytest.mark.usefixtures("_unheard")
def test_whoever_waits_for_an_answer_hears_signals_that_do_not_wake_it(queue: WorkedQueue) -> None:
    """A ticket looks every second at most."""
    ticket = queue.put(ParkedCall(body={"messages": []}, model="m"))
    with pytest.raises(_InterruptedError):
        ticket.result(timeout=60.0)


def test_what_does_not_end_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that hangs holds up nobody who stops the replay: its lease ends by itself."""
    world = World(back_after=0.0)
    world.queue._spawn = lambda _: None
    world.park(1)
    run = world.queue._run()
    began = world.clock.now()
    _, works = run.replayer.take()
    run.stop(grace=10.0)
    run.until(run.never)

    assert len(works) == 1
    assert 14.9 <= world.clock.now() - began <= 15.3
    assert "1 parked calls do not end" in caplog.text
    assert works[0].call.cancel is not None
    assert works[0].call.cancel.cancelled


def test_who_is_in_a_hurry_shortens_the_grace() -> None:
    """A second stop never lengthens what a first one allowed."""
    world = World(back_after=0.0)
    run = world.queue._run()
    ends = []
    for grace in (10.0, 60.0, 0.0, 10.0):
        run.stop(grace)
        ends.append(run._give_up - world.clock.now())

    assert ends == [10.0, 10.0, 0.0, 0.0]


def test_ctrl_c_in_a_drain_of_ones_own_waits_for_nobody() -> None:
    """What is under way is called off at once, not after its deadline."""
    world = World(back_after=0.0)
    started: list[object] = []

    def interrupt(work: object) -> None:
        started.append(work)
        raise KeyboardInterrupt

    world.queue._spawn = interrupt
    world.park(3)
    began = world.clock.now()
    with pytest.raises(KeyboardInterrupt):
        world.queue.drain(until_empty=True)

    assert len(started) == 1
    assert world.clock.now() - began < 6.0


def test_ignored_signals_stay_ignored() -> None:
    """As nohup and a shell's & want it; the others end a drain, and have their handlers back afterwards."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with draining._signals() as heard:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert heard == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is term


class FullStore(MemoryStore):
    """Keeps no answer until it was asked often enough."""

    refuses = 0
    refused: Callable[[], None] | None = None

    def complete(self, item_id: str, token: str, result: bytes) -> bool:
        """As a disk on which somebody makes room."""
        if self.refuses:
            self.refuses -= 1
            if self.refused is not None:
                self.refused()
            raise QueueFull("the disk is full")
        return super().complete(item_id, token, result)


@pytest.mark.parametrize(("refuses", "answered"), [(9, 1), (10, 0)])
def test_an_answer_that_cannot_be_kept_is_not_dropped_at_once(refuses: int, answered: int) -> None:
    """It was paid for: somebody has a minute to make room. Then its lease ends, and it is asked for again."""
    world = World(back_after=0.0)
    store = world.queue._store = FullStore(world.queue.settings, world.clock)
    store.refuses = refuses
    world.park(1)
    progress = world.queue.drain()

    assert (progress.answered, world.asked_up) == (answered, 1)
    assert 60.0 < sum(world.clock.slept) < 120.0
    assert (store.stats().done, store.stats().leased) == (answered, 1 - answered)


def test_whoever_stops_does_not_wait_for_a_full_disk() -> None:
    """A call that was called off tries once."""
    world = World(back_after=0.0)
    store = world.queue._store = FullStore(world.queue.settings, world.clock)
    store.refuses = 10
    world.park(1)
    run = world.queue._run()
    _, works = run.replayer.take()
    store.refused = run.replayer.cancel
    run.replayer.work(works[0])

    assert store.refuses == 9
