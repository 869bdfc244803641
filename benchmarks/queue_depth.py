"""What an operation of the queue costs when much is waiting: the same at any depth.

    python benchmarks/queue_depth.py [--depths 100 10000 100000] [--turns 200]

Queues of each depth side by side on the disk of the temporary folder, payloads of 1.5 KB in ten groups; one put, then
one lease and complete as the replay does them (it looks which groups there are, and takes a call of the last of them),
on each queue in turn, so that a noisy machine disturbs all alike. Median milliseconds, and ratios to the first depth.
Most of it are fsyncs: what the disk does with them is in every figure. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from holyroute.config.schema import QueueSettings
from holyroute.deferred.parked import ParkedCall
from holyroute.deferred.queue import RetryQueue
from holyroute.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = QueueSettings(max_items=10**6)
# Copies of the first row, all at once: parking a hundred thousand calls one by one takes minutes.
FILL = """
WITH RECURSIVE copies(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < ?)
INSERT INTO item(id, digest, grp, state, payload, crc, attempts, leases, not_before, expires, created)
SELECT hex(randomblob(16)), hex(randomblob(16)), grp + n % 10, state, payload, crc, 0, 0, not_before, expires + n,
created FROM copies, (SELECT * FROM item WHERE seq = 1)
"""


def call(number: int) -> ParkedCall:
    """A prompt of 1.5 KB."""
    return ParkedCall(body={"messages": [{"role": "user", "content": f"{number} {'and so on ' * 150}"}]})


def filled(path: Path, depth: int) -> RetryQueue:
    """A queue in which so many calls wait."""
    store = SqliteStore(path, SETTINGS)
    queue = RetryQueue(store, SETTINGS)
    queue.put(call(-1))
    with store._writing() as (db, _):  # noqa: SLF001 - what the benchmark needs, nobody else may do
        db.execute(FILL, (depth - 1,))
    assert queue.stats().ready == depth
    return queue


def answer(queue: RetryQueue) -> None:
    """Lease one call, of one group only, and complete it."""
    (lease,) = queue.lease(1, shares={queue.groups()[-1]: 1})
    assert queue.complete(lease, {"ok": True})


def timed(operation: Callable[[], object]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    operation()
    return (time.perf_counter() - began) * 1e3


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--turns", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        queues = {depth: filled(Path(folder) / f"{depth}.db", depth) for depth in arguments.depths}
        puts: dict[int, list[float]] = {depth: [] for depth in queues}
        answers: dict[int, list[float]] = {depth: [] for depth in queues}
        for turn in range(arguments.turns):
            for depth, queue in queues.items():
                puts[depth].append(timed(lambda queue=queue, turn=turn: queue.put(call(turn))))
                answers[depth].append(timed(lambda queue=queue: answer(queue)))
    print("| depth | put ms | ratio | lease + complete ms | ratio |\n|---|---|---|---|---|")
    first = None
    for depth in queues:
        found = statistics.median(puts[depth]), statistics.median(answers[depth])
        first = first or found
        columns = (f"{value:.2f} | {value / base:.2f}" for value, base in zip(found, first, strict=True))
        print(f"| {depth} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
