"""Which calls are parked, and where: by a door, by a block of code, by the configuration."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from holyroute.core import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from holyroute.config.schema import QueueSettings
    from holyroute.core.outcome import Outcome
    from holyroute.deferred.handlers import Handler
    from holyroute.deferred.parking import Delivery, Parking
    from holyroute.deferred.worked import WorkedQueue
    from holyroute.engine.router import Router
    from holyroute.monitoring.health import QueueDepth
    from holyroute.stores.base import QueueStore

logger = logging.getLogger("holyroute")

Where = bool | str | os.PathLike[str]  # True: at the configured place


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    queue: Where
    delivery: Delivery


_block: ContextVar[_Block | None] = ContextVar("holyroute_parking", default=None)


class _Stores:
    """The queues that doors with the same router share."""

    def __init__(self) -> None:
        self._stores: WeakKeyDictionary[Router, dict[str, QueueStore]] = WeakKeyDictionary()
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """The thread that may have held the lock stayed behind."""
        self._lock = threading.Lock()

    def of(self, router: Router, settings: QueueSettings) -> QueueStore:
        """The store at a place."""
        from holyroute.deferred.queue import open_store

        with self._lock:
            stores = self._stores.setdefault(router, {})
            if settings.path not in stores:
                stores[settings.path] = open_store(settings, router.clock)
                router.monitor.queues[settings.path] = partial(_depth, stores[settings.path])
            return stores[settings.path]


_STORES = _Stores()


@contextmanager
def parking(
    queue: Where = True,
    *,
    handler: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    key: str | None = None,
) -> Iterator[None]:
    """Park the calls of a block, in this thread, that nobody can answer now.

    The script sees the failure all the same, as it would without; the ticket is in the trace:
    `holyroute.trace_of(response).ticket`. Only what configured models may answer is parked, and no streams.

    Args:
        queue: a file, or True for the door's or the configured one; False parks nothing.
        handler: the name under which the replaying process registered what takes the answers.
        metadata: JSON of your own for the handler.
        key: idempotency key: what was parked under it is not parked again, also when it has been answered meanwhile.
    """
    from holyroute.deferred.parking import Delivery

    delivery = Delivery(handler=handler, metadata=metadata or {}, key=key)
    token = _block.set(_Block(queue=queue, delivery=delivery))
    try:
        yield
    finally:
        _block.reset(token)


def handler(name: str) -> Callable[[Handler], Handler]:
    """Register what takes the answers of calls that were parked with this name, in every queue of this process.

        @holyroute.handler("save")
        def save(answer): table[answer.metadata["row"]] = answer.result["content"]

    In a module of its own it serves `holyroute queue drain --handlers MODULE` too; parked calls hold the name alone.
    It is called in a thread of the replay, once the answer is recorded; see `client.queue.handler`.

    Raises:
        InvalidItem: It is no name.
    """
    from holyroute.deferred import handlers

    return handlers.register(handlers.OF_PROCESS, name)


def parking_for(router: Router, own: Where | None) -> Parking | None:
    """Where a call goes that nobody can answer; None: nowhere.

    Args:
        router: that asks.
        own: the door's own queue, if it has one.
    """
    block = _block.get()
    if block is None and not own:
        return None
    from holyroute.deferred.parking import Delivery, Parking
    from holyroute.deferred.queue import RetryQueue

    where = own if block is None or (block.queue is True and own) else block.queue
    if not where:
        return None
    settings = settings_of(router, where)
    queue = RetryQueue(_STORES.of(router, settings), settings, secrets=_secrets(router), clock=router.clock)
    return Parking(queue, router, Delivery() if block is None else block.delivery)


def worked_queue(
    router: Router,
    where: Where,
    *,
    send: Callable[..., Outcome],
    record: Callable[[Outcome], dict[str, Any]],
) -> WorkedQueue:
    """The queue of a door that can replay it."""
    from holyroute.deferred.worked import WorkedQueue

    settings = settings_of(router, where)
    store = _STORES.of(router, settings)
    return WorkedQueue(store, settings, router, send=send, record=record, secrets=_secrets(router))


def depth(router: Router, own: Where | None) -> QueueDepth | None:
    """How many calls are parked in all queues of a router, the door's own included; None: in none, or unreadable now.

    A file that is not there yet is not made for this.
    """
    from holyroute.exceptions import QueueError

    if own:
        _STORES.of(router, settings_of(router, own))
    try:
        return router.monitor.depth()
    except QueueError as error:
        logger.warning("the depth of the queue is not known: %s", error)
        return None


def _depth(store: QueueStore) -> QueueDepth:
    from holyroute.monitoring.health import QueueDepth

    path: Path | None = getattr(store, "path", None)
    if path is not None and not path.exists():
        return QueueDepth(ready=0, leased=0, done=0, dead=0)
    stats = store.stats()
    return QueueDepth(ready=stats.ready, leased=stats.leased, done=stats.done, dead=stats.dead)


def settings_of(router: Router, where: Where) -> QueueSettings:
    """The configured queue, or one elsewhere."""
    settings = router.config.queue
    return settings if isinstance(where, bool) else replace(settings, path=os.fspath(where))


def _secrets(router: Router) -> Callable[[], tuple[str, ...]]:
    return lambda: router.keyring.secrets(router.config.providers.values())
