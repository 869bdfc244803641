"""The command line's way of waiting for work in other threads."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import pytest

from holyroute.cli.waiting import as_completed, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _InterruptedError(Exception):
    pass


@pytest.fixture
def _unheard() -> Iterator[None]:
    """A signal whose handler raises, and which the kernel gives to any thread but this one."""

    def interrupt(*_: object) -> None:
        raise _InterruptedError

    before = signal.signal(signal.SIGUSR1, interrupt)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    yield
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("_unheard")
@pytest.mark.parametrize(
    "sleep", [lambda: list(as_completed([Future[None]()])), lambda: wait(threading.Event())], ids=["futures", "event"]
)
def test_a_signal_is_heard_even_if_it_does_not_wake_the_thread(sleep: Callable[[], object]) -> None:
    """Ctrl-C ends the wait though the signal did not interrupt the lock that the main thread sleeps on."""

    def send() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.raise_signal(signal.SIGUSR1)  # to this thread; its handler runs in the main one, when that wakes

    sender = threading.Timer(0.1, send)
    sender.start()
    with pytest.raises(_InterruptedError):
        sleep()
    sender.join()


def test_every_future_comes_once() -> None:
    """What is done at once and what is done later: each comes once."""
    futures = [Future[int]() for _ in range(5)]
    futures[3].set_result(3)
    seen = []
    for future in as_completed(futures):
        seen.append(future.result())
        rest = [number for number in range(5) if not futures[number].done()]
        if rest:
            futures[rest[0]].set_result(rest[0])
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert seen[0] == 3
