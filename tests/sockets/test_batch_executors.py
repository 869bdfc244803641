"""Batches on somebody else's executor, in other processes, which may die."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
from collections import Counter
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import loky
import pytest

import holyroute
from holyroute import batching
from holyroute.config.dump import dump
from holyroute.config.load import restored
from holyroute.config.problems import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.batch.row import RowResult
    from holyroute.config.schema import Config
    from holyroute.simulator import Simulator


def prompts(count: int) -> list[dict[str, Any]]:
    """Rows that differ."""
    return [
        {"custom_id": f"r{number}", "messages": [{"role": "user", "content": f"{number}"}]} for number in range(count)
    ]


def answered(results: list[RowResult]) -> Counter[str]:
    """How often each row was answered; what else came of one is shown."""
    return Counter(result.id or "" if result.ok else str(result.error) for result in results)


def once(count: int) -> Counter[str]:
    return Counter(f"r{number}" for number in range(count))


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    """Workers look keys up in their own environment."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


class Here(Executor):
    """Runs each task at once, in this thread, as a process would see it: pickled, without keywords."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.fail_next = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run it, or fail as a task whose worker died."""
        assert kwargs == {}
        json.dumps(args)
        self.calls.append(args)
        future: Future[Any] = Future()
        if self.fail_next > 0:
            self.fail_next -= 1
            future.set_exception(OSError("worker died"))
        else:
            future.set_result(pickle.loads(pickle.dumps(fn))(*args))  # noqa: S301 - our own
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nobody may: it is not his."""
        raise AssertionError((wait, cancel_futures))


def test_chunks_and_what_travels(client: holyroute.Client, a: Simulator, env: dict[str, str]) -> None:
    """Rows in chunks, JSON by position, told apart by run and number, and no key among it."""
    executor = Here()
    results = list(client.batch(prompts(10), executor=executor, chunk=4, temperature=0.5))
    runs = {run for run, *_ in executor.calls}
    list(client.batch(prompts(1), executor=executor))

    assert answered(results) == once(10)
    assert [len(items) for *_, items in executor.calls] == [4, 4, 2, 1]
    assert [number for _, number, *_ in executor.calls] == [1, 2, 3, 1]
    assert len(runs) == 1
    assert executor.calls[-1][0] not in runs
    assert not any(key in json.dumps(executor.calls) for key in env.values())
    assert {seen.json["temperature"] for seen in a.seen[:10]} == {0.5}
    assert {seen.headers["authorization"] for seen in a.seen} == {"Bearer test-key-a"}


def test_columns_stay_at_home(client: holyroute.Client) -> None:
    """The result has what its row had, though it did not travel."""
    from holyroute.batch.row import Row

    rows = [
        Row(
            index=number, line=number + 2, columns={"n": number}, body={"messages": [{"role": "user", "content": "hi"}]}
        )
        for number in range(3)
    ]
    results = list(client.batch(rows, executor=Here(), ordered=True))

    assert [(one.line, one.columns) for one in results] == [(2, {"n": 0}), (3, {"n": 1}), (4, {"n": 2})]


def test_one_client_for_each_configuration(client: holyroute.Client) -> None:
    """A worker makes it once, and keeps its connections from chunk to chunk."""
    batching._DESKS.clear()
    list(client.batch(prompts(10), executor=Here(), chunk=2))
    list(client.batch(prompts(10), executor=Here(), chunk=2))

    assert len(batching._DESKS) == 1


def test_a_dead_worker_costs_no_row(client: holyroute.Client) -> None:
    """The rows of its chunk are asked for once more, each by itself, so that none takes the others along."""
    executor = Here()
    executor.fail_next = 1
    results = list(client.batch(prompts(8), executor=executor, chunk=4))

    assert answered(results) == once(8)
    assert sorted(len(items) for *_, items in executor.calls) == [1, 1, 1, 1, 4, 4]


def test_a_cap_holds_in_other_processes(client: holyroute.Client, a: Simulator) -> None:
    """Each row's allowance travels with it, and its bill comes back."""
    rows = [{**row, "max_tokens": 10} for row in prompts(200)]
    job = client.batch(rows, executor=Here(), chunk=4, max_cost="0.001", models=["ma"])
    results = list(job)

    assert job.stopped == "cost cap"
    assert answered(results) == once(len(results))
    assert job.progress.spent == sum(result.cost_usd or 0 for result in results)
    assert 0 < job.progress.spent < Decimal("0.001")
    assert a.attempts() == len(results)


def test_limits_are_shared_out(configured: Callable[..., Config]) -> None:
    """A provider limits the account: each of four processes keeps to a quarter."""
    config = configured(providers={"a": {"max_concurrency": 6}}, models={"ma": {"rpm": 600, "tpm": 3}})
    part = restored(dump(batching._shared_out(config, 4)))

    assert (part.models["ma"].rpm, part.models["ma"].tpm, part.models["mb"].rpm) == (150, 1, None)
    assert (part.providers["a"].max_concurrency, part.models["ma"].provider.max_concurrency) == (1, 1)
    assert batching._shared_out(config, 1) is config

    executor = Here()
    executor._max_workers = 4
    with holyroute.Client(config) as client:
        list(client.batch(prompts(1), executor=executor, models=["mb"]))

    assert restored(executor.calls[0][2]["settings"]) == replace(part, source=BUILT_IN)


def test_limits_are_waited_for_at_home(client: holyroute.Client, a: Simulator) -> None:
    """A worker comes back at once; the row goes again when the limit frees."""
    a.script("ma", "429:0.3")
    results = list(client.batch(prompts(6), executor=Here(), chunk=2, models=["ma"]))

    assert answered(results) == once(6)


def test_processes(
    processes: ProcessPoolExecutor, configured: Callable[..., Config], a: Simulator, b: Simulator
) -> None:
    """Two processes share the rows, every row is answered once, and the pool is still there."""
    with holyroute.Client(configured()) as client:
        results = list(client.batch(prompts(60), executor=processes, chunk=5))

    assert answered(results) == once(60)
    assert a.attempts() + b.attempts() == 60
    assert processes.submit(int, "7").result() == 7


@pytest.mark.timeout(60)
def test_a_process_that_is_killed(
    processes: ProcessPoolExecutor,
    configured: Callable[..., Config],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Python's own pool is broken by it; threads take over, and every row has one answer."""
    results = []
    with holyroute.Client(configured()) as client:
        for result in client.batch(prompts(200), executor=processes, chunk=5):
            results.append(result)
            if len(results) == 20:
                os.kill(next(iter(processes._processes)), signal.SIGKILL)

    assert answered(results) == once(200)
    assert "threads of this process take over" in caplog.text


@pytest.mark.timeout(60)
def test_loky(configured: Callable[..., Config]) -> None:
    """Joblib's executor works as it is."""
    with loky.ProcessPoolExecutor(2) as pool, holyroute.Client(configured()) as client:
        results = list(client.batch(prompts(30), executor=pool, chunk=5))

    assert answered(results) == once(30)


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore")  # a cluster that is ended warns of its sockets
def test_dask_with_a_worker_killed(configured: Callable[..., Config], a: Simulator) -> None:
    """A real cluster of two processes: one is killed under way, and every row has one answer in the output."""
    from distributed import Client, LocalCluster

    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
    results = []
    with LocalCluster(**settings) as cluster, Client(cluster) as dask, holyroute.Client(configured()) as client:
        pids = dask.run(os.getpid)
        for result in client.batch(prompts(300), executor=dask.get_executor(), chunk=5, max_in_flight=40):
            results.append(result)
            if len(results) == 100:
                os.kill(next(iter(pids.values())), signal.SIGKILL)

    assert answered(results) == once(300)
    assert a.attempts() >= 300
