"""Processes that share a queue, are killed while they use it, or fork."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it gets a name of its own


def fast(folder: Path) -> Path:
    """A folder that no disk slows down, where there is one: what a signal kills needs no fsync to survive."""
    return SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else folder


def python(*words: str, folder: Path) -> str:
    """What an interpreter of its own prints; temporary files go to a folder."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=18,
        env={**os.environ, "TMPDIR": str(folder)},
    )

    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("what", "most_again"), [("parking", 0), ("replaying", 4), ("draining", 16), ("race", 0)])
def test_killed_processes_lose_nothing(tmp_path: Path, what: str, most_again: int) -> None:
    """SIGKILL while parking and while replaying, and a race: nothing lost, nothing recorded twice (the benchmark)."""
    script = str(ROOT / "benchmarks" / "queue_kills.py")
    shown = python(script, "--kills", "4", "--race", "10", "--only", what, folder=fast(tmp_path))
    _, calls, lost, twice, again = map(int, shown.splitlines()[-1].strip("|").split("|")[1:])

    assert calls >= 4
    assert (lost, twice) == (0, 0)
    assert again <= most_again


FORKING = """
import json, os, sys, threading
from holyroute.config.schema import QueueSettings
from holyroute.deferred.parked import ParkedCall
from holyroute.deferred.queue import RetryQueue

def put(queue, name):
    return queue.put(ParkedCall(body={"name": name})).id

def keep_busy(queue, number):
    turn = 0
    while not over.is_set():
        put(queue, f"busy {number} {turn}")
        for lease in queue.lease(1):
            queue.complete(lease, None)
        turn += 1

file = RetryQueue.open(QueueSettings(path=sys.argv[1]))
memory = RetryQueue.open(QueueSettings(path=":memory:"))
put(memory, "the parent's"), put(file, "the parent's")
over = threading.Event()
threads = [threading.Thread(target=keep_busy, args=(queue, n)) for n in range(2) for queue in (file, memory)]
for thread in threads:
    thread.start()
statuses = []
for child in range(30):
    pid = os.fork()
    if pid == 0:
        try:
            put(file, f"child {child}")
            alone = memory.stats().ready == 0
            put(memory, f"child {child}")
            lent = memory.lease(10)
            os._exit(0 if alone and [one.call.body for one in lent] == [{"name": f"child {child}"}] else 1)
        except BaseException:
            os._exit(2)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
over.set()
for thread in threads:
    thread.join()
left = {str(lease.call.body) for lease in file.lease(1_000)}
stats = file.stats()
print(json.dumps([statuses, file.check(), stats.ready + stats.dead]))
"""


def test_a_fork_under_load_is_fine(tmp_path: Path) -> None:
    """Thirty children of a busy process use the queue at once; a queue in memory starts empty in each."""
    with tempfile.TemporaryDirectory(dir=fast(tmp_path)) as folder:
        shown = python("-c", FORKING, f"{folder}/queue.db", folder=tmp_path)

    assert shown == f"[{[0] * 30}, [], 0]\n"
