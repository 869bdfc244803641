"""Waiting for other threads, so that Ctrl-C is always heard.

A signal that comes just before the main thread falls asleep on a lock, or that another thread is given, does not wake
it: what waits without a time limit sleeps on until something else happens. So here everybody looks up now and then.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")

LOOK = 0.2  # seconds


def as_completed(futures: Iterable[Future[T]]) -> Iterator[Future[T]]:
    """The futures as they end."""
    ended: SimpleQueue[Future[T]] = SimpleQueue()
    left = 0
    for future in futures:
        future.add_done_callback(ended.put)
        left += 1
    while left:
        try:
            future = ended.get(timeout=LOOK)
        except Empty:
            continue
        left -= 1
        yield future


def wait(event: threading.Event) -> None:
    """Until the event is set."""
    while not event.wait(LOOK):
        pass
