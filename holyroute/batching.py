"""How a `Client` runs a batch: on threads of its own, or in other processes."""

from __future__ import annotations

import logging
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from holyroute import context
from holyroute.batch import worst
from holyroute.batch.calls import call_of
from holyroute.batch.crew import Elsewhere, Errand, Remote, Threads
from holyroute.batch.governor import Governor
from holyroute.batch.job import Job, Means
from holyroute.batch.options import CHUNK, Defaults, options_of
from holyroute.batch.reading import rows_of
from holyroute.batch.row import Row
from holyroute.config.credentials import is_disabled
from holyroute.config.dump import dump
from holyroute.config.load import restored
from holyroute.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holyroute.batch.crew import Crew, Mailbox
    from holyroute.batch.ending import Ending
    from holyroute.batch.options import Options
    from holyroute.config.schema import Config
    from holyroute.core.call import Selection
    from holyroute.engine.attempt import Transport
    from holyroute.engine.router import Router

logger = logging.getLogger("holyroute")


# --- a batch ---------------------------------------------------------------------------------------------------------


def start(
    router: Router, transport: Transport, chosen: Selection, rows: Iterable[Any], options: Mapping[str, Any]
) -> Job:
    """A batch of a client. Nothing is asked before somebody reads the results.

    Args:
        router: the client's engine.
        transport: the client's.
        chosen: the client's own task and priority.
        rows: whatever `Client.batch` takes.
        options: the keywords of `Client.batch`.

    Raises:
        ConfigurationError: an option is wrong; the message names it.
    """
    wanted = options_of(options)
    wanted = replace(wanted, defaults=_with_selection(wanted.defaults, chosen))
    for name in (*(wanted.defaults.models or ()), *filter(None, [wanted.defaults.model])):
        if not name.startswith("route:"):
            router.selector.known(name)  # raises what is wrong with it
    sender = Sender(router, transport, wanted.defaults)
    is_remote = wanted.executor is not None and not isinstance(wanted.executor, ThreadPoolExecutor)
    means = Means(
        crew=partial(_elsewhere, router, wanted) if is_remote else partial(_threads, sender, wanted),
        spare=partial(_threads, sender, replace(wanted, executor=None)),
        governor=Governor(wanted.max_cost),
        price=partial(_to_set_aside, router, wanted.defaults, whole=is_remote),
        finish=partial(router.events.unsubscribe, sender.settle),
        clock=router.clock,
        patience=wanted.defaults.call_deadline or router.config.time.deadline,
    )
    job = Job(rows_of(rows, wanted.defaults.parameters), wanted, means)
    if wanted.max_cost is not None:
        router.events.subscribe(sender.settle)  # what an attempt cost is known before the next one is paid for
    return job


def _with_selection(defaults: Defaults, chosen: Selection) -> Defaults:
    """What holds where nobody says otherwise: the call's own words, the client's, those of the block it stands in."""
    own = replace(
        chosen,
        task=defaults.task or chosen.task,
        priority=defaults.priority or chosen.priority,
        direct=defaults.direct or is_disabled(),
    )
    selection = context.selection(own)
    return replace(defaults, task=selection.task, priority=selection.priority, direct=selection.direct)


def _to_set_aside(router: Router, defaults: Defaults, row: Row, *, whole: bool) -> Decimal | None:
    """USD for a row before it is asked: one attempt where more can be set aside in between, else all that it may take.

    Raises:
        ConfigurationError: an unknown model.
    """
    router.candidates(call_of(row, defaults, router.config.time))
    if whole:
        return worst.worst_case(row, router, defaults)
    most = worst.dearest(row, router, defaults)
    return None if most is None else most * worst.SENDS


def _threads(sender: Sender, options: Options, mailbox: Mailbox) -> Crew:
    pool = options.executor
    workers = options.max_workers
    if isinstance(pool, ThreadPoolExecutor):
        workers = min(workers, pool._max_workers)  # noqa: SLF001 - there is no other way to ask
        return Threads(sender, pool, workers, mailbox, own=False)
    own = ThreadPoolExecutor(workers, thread_name_prefix="holyroute-batch")
    return Threads(sender, own, workers, mailbox, own=True)


def _elsewhere(router: Router, options: Options, mailbox: Mailbox) -> Crew:
    executor = options.executor
    assert executor is not None
    chunk = options.chunk or CHUNK
    processes, tasks = _places(executor)
    remote = Remote(
        work=run_chunk,
        run_id=uuid.uuid4().hex,
        spec={
            "settings": dump(_shared_out(router.config, processes)),  # names of keys, never a key
            "defaults": asdict(options.defaults),
            "threads": min(options.max_workers, chunk),
        },
        chunk=chunk,
        slots=tasks,
    )
    return Elsewhere(executor, remote, mailbox, router.clock, options.max_in_flight)


def _places(executor: Any) -> tuple[int, int]:
    """How many processes an executor has, and how many tasks run at the same time, as far as it says."""
    workers = getattr(executor, "_max_workers", None)  # of processes, and loky's
    if isinstance(workers, int) and workers > 0:
        return workers, workers
    cluster = getattr(executor, "_client", None)  # Dask's
    if cluster is not None and hasattr(cluster, "nthreads"):
        threads = cluster.nthreads()
        return max(1, len(threads)), max(1, sum(threads.values()))
    guess = os.cpu_count() or 1
    return guess, guess


def _shared_out(config: Config, processes: int) -> Config:
    """The configuration of one of several processes: the provider's limits are for all of them together."""
    limited = [one.name for one in config.models.values() if one.rpm or one.tpm or one.provider.max_concurrency]
    if processes == 1 or not limited:
        return config
    logger.info("each of %d processes keeps to 1/%d of the limits of %s", processes, processes, ", ".join(limited))

    def part(limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // processes)

    providers = {
        name: replace(one, max_concurrency=part(one.max_concurrency)) for name, one in config.providers.items()
    }
    models = {
        name: replace(one, rpm=part(one.rpm), tpm=part(one.tpm), provider=providers[one.provider.name])
        for name, one in config.models.items()
    }
    return replace(config, providers=providers, models=models)


# --- in another process ----------------------------------------------------------------------------------------------

_DESKS: dict[tuple[int, str], _Desk] = {}
_DESKS_LOCK = threading.Lock()
_MOST_DESKS = 8  # that a worker keeps: it may serve several batches


class _Desk:
    """What a worker process works with: one client and its threads, for one configuration."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        from holyroute.client import Client

        models = spec["defaults"]["models"]
        defaults = Defaults(**{**spec["defaults"], "models": None if models is None else tuple(models)})
        client = Client(restored(spec["settings"]))  # keys come from this process's environment
        self.clock = client.router.clock
        self.sender = Sender(client.router, client._caller.send, defaults)  # noqa: SLF001 - our own door
        self.pool = ThreadPoolExecutor(spec["threads"], thread_name_prefix="holyroute-chunk")
        client.router.events.subscribe(self.sender.settle)

    def ask(self, item: Mapping[str, Any]) -> Ending:
        """One row; its columns did not travel."""
        names = ("index", "body", "model", "task", "priority")
        models, allowance, seconds = item["models"], item["allowance"], item["seconds"]
        row = Row(**{name: item[name] for name in names}, models=None if models is None else tuple(models))
        errand = Errand(
            row=row,
            until=None if seconds is None else self.clock.now() + seconds,
            allowance=None if allowance is None else Decimal(allowance),
        )
        return self.sender(errand)


def run_chunk(run_id: str, number: int, spec: dict[str, Any], items: list[dict[str, Any]]) -> list[Ending]:
    """Some rows, in whatever process an executor chose. Does not raise for one of them.

    Args:
        run_id: of the batch; with `number` it tells this call from every other, for executors that remember answers.
        number: of the chunk.
        spec: how to make a client, without secrets.
        items: the rows.
    """
    del run_id, number
    desk = _desk(spec)
    return list(desk.pool.map(desk.ask, items))


def _desk(spec: Mapping[str, Any]) -> _Desk:
    key = os.getpid(), repr(spec)
    with _DESKS_LOCK:
        desk = _DESKS.get(key)
        if desk is None:
            while len(_DESKS) >= _MOST_DESKS:
                _DESKS.pop(next(iter(_DESKS)))
            desk = _DESKS[key] = _Desk(spec)
        return desk
