"""What a queue of parked calls loses when its processes are killed: nothing, and how many calls are made twice.

    python benchmarks/queue_kills.py [--kills 40] [--race 150] [--only parking replaying draining race]

Parking: a process parks calls one after the other and names each ticket it got; it is killed (SIGKILL) at a random
moment, again and again. Lost is a ticket that the queue does not know. Replaying: a process leases four calls at a
time, asks a provider on a real socket, and records the answers; it is killed in the same way. Then everything is
answered in peace. Asked for again: the provider got the same call twice, which cannot be avoided for what is in flight
at a kill (here one call) between its answer and our commit. Draining: the same with `Client.queue.drain`, which has up
to four calls in flight. Race: four processes park and answer in one queue at once, and nobody is killed; then nothing
may be asked for again. Prints a Markdown table; fails if anything was lost or recorded twice, or more was asked for
again than was in flight.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import requests

from holyroute import Client
from holyroute.config.schema import QueueSettings
from holyroute.deferred.parked import ParkedCall
from holyroute.deferred.queue import RetryQueue
from holyroute.exceptions import UnknownTicket
from holyroute.simulator import Simulator

LEASE = 3.0  # seconds: what a killed process held comes back soon; a call takes milliseconds
LONG_LEASE = 60.0  # where nobody is killed
BATCH = 4  # calls leased at a time
STOCK = 40  # calls that wait at least, so that every kill finds work
LONGEST = 0.25  # seconds from a process's first deed to its end
RACERS = 4  # processes


def queue_at(path: str, lease: float = LEASE) -> RetryQueue:
    """The queue that all processes share."""
    return RetryQueue.open(QueueSettings(path=path, lease=lease))


def call(name: str) -> ParkedCall:
    """A prompt of 1.5 KB that the provider repeats the beginning of."""
    body = {"model": "m", "messages": [{"role": "user", "content": f"{name} {'and so on ' * 150}"}]}
    return ParkedCall(body=body, model="m", handler="tell")


# --- what the processes do --------------------------------------------------------------------------------------------


def park(path: str) -> None:
    """Park for ever; a line for every ticket, once it is there."""
    queue = queue_at(path)
    for number in range(10**9):
        print(queue.put(call(f"{os.getpid()}/{number}")).id, flush=True)


def replay(path: str, url: str) -> None:
    """Answer until nothing is left; a line for every answer that was recorded."""
    answer_all(queue_at(path), url)


def drain(path: str, url: str) -> None:
    """The real replay, until nothing is left; a line for every answer that was recorded."""
    client = Client(
        queue={"enabled": True, "path": path, "lease": LEASE, "concurrency": BATCH},
        providers={"simulator": {"base_url": url}},
        models={"m": {"provider": "simulator"}},
        time={"deadline": LEASE / 2},
    )
    client.queue.handler("tell")(lambda answer: os.write(1, f"{answer.id}\n".encode()))  # whole lines, from threads
    client.queue.drain(until_empty=True)


def race(path: str, url: str, calls: str) -> None:
    """Park so many calls, then help to answer all that there are, whoever parked them."""
    queue = queue_at(path, LONG_LEASE)
    for number in range(int(calls)):
        queue.put(call(f"{os.getpid()}/{number}"))
    answer_all(queue, url)


def answer_all(queue: RetryQueue, url: str) -> None:
    """Until nothing waits, and nobody holds anything."""
    session = requests.Session()
    while (stats := queue.stats()).ready + stats.leased:
        for lease in queue.lease(BATCH):
            headers = {"Idempotency-Key": lease.id}
            answer = session.post(f"{url}/chat/completions", json=lease.call.body, headers=headers, timeout=30)
            if queue.complete(lease, answer.json()):
                print(lease.id, flush=True)
        time.sleep(0.01)


ROLES = {"park": park, "replay": replay, "drain": drain, "race": race}


def start(*words: str) -> subprocess.Popen[str]:
    """A process with a role."""
    return subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)


def run(*words: str, kill: bool) -> list[str]:
    """Run a process, to its end or to a random moment after its first line; the lines that it finished."""
    with start(*words) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        if kill:
            time.sleep(random.uniform(0, LONGEST))
            process.send_signal(signal.SIGKILL)
        lines = first + process.stdout.read()
    return [line.rstrip() for line in lines.splitlines(keepends=True) if line.endswith("\n")]


# --- what is measured -------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """Counts: all of them but the first and the last have to be 0."""

    calls: int
    lost: int = 0
    twice: int = 0  # recorded
    again: int = 0  # asked for


def measure_parking(path: str, kills: int) -> Row:
    """Tickets that were given, and what the queue knows of them."""
    tickets = [ticket for _ in range(kills) for ticket in run("park", path, kill=True)]
    queue, row = queue_at(path), Row(len(tickets))
    for ticket in tickets:
        try:
            queue.get(ticket)
        except UnknownTicket:
            row.lost += 1
    prompts = Counter(str(lease.call.body) for lease in queue.lease(10**6))
    row.twice = sum(prompts.values()) - len(prompts)
    assert queue.check() == ()
    return row


def measure_replaying(path: str, kills: int, role: str = "replay") -> Row:
    """Calls that were parked, and what became of them when everything is answered."""
    queue = queue_at(path)
    wanted: dict[str, str] = {}
    recorded: list[str] = []
    with Simulator(keep=10**6) as provider:
        for turn in range(kills + 1):
            while turn < kills and queue.stats().ready < STOCK:
                name = f"call {len(wanted)} "
                wanted[queue.put(call(name)).id] = name
            recorded += run(role, path, provider.base_url, kill=turn < kills)
        asked = Counter(seen.headers["Idempotency-Key"] for seen in provider.seen)
    row = Row(len(wanted), twice=len(recorded) - len(set(recorded)), again=sum(asked.values()) - len(asked))
    for ticket, name in wanted.items():
        item = queue.get(ticket)
        is_own = item.state == "done" and f"Answer to: {name}" in str(item.result)
        row.lost += not is_own
    assert queue.check() == ()
    assert set(asked) == set(wanted)
    return row


def measure_race(path: str, calls: int) -> Row:
    """Calls that all processes parked, and how often they were answered."""
    with Simulator(keep=10**6) as provider:
        racers = [start("race", path, provider.base_url, str(calls)) for _ in range(RACERS)]
        recorded = [ticket for racer in racers for ticket in racer.communicate()[0].split()]
        asked = Counter(seen.headers["Idempotency-Key"] for seen in provider.seen)
    row = Row(RACERS * calls, twice=len(recorded) - len(set(recorded)), again=sum(asked.values()) - len(asked))
    row.lost = row.calls - queue_at(path).stats().done
    return row


def main() -> None:
    """Measure, print."""
    if sys.argv[1:2] and sys.argv[1] in ROLES:
        ROLES[sys.argv[1]](*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--race", type=int, default=150)
    parser.add_argument("--only", nargs="+", default=["parking", "replaying", "draining", "race"])
    arguments = parser.parse_args()
    kills = arguments.kills
    measures = {
        "parking": (measure_parking, kills, 0),
        "replaying": (measure_replaying, kills, kills),
        "draining": (partial(measure_replaying, role="drain"), kills, BATCH * kills),
        "race": (measure_race, arguments.race, 0),
    }
    print("| what | kill -9 | calls | lost | recorded twice | asked for again |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.only:
            measure, number, most = measures[name]
            row = measure(f"{folder}/{name}.db", number)
            killed = 0 if name == "race" else kills
            print(f"| {name} | {killed} | {row.calls} | {row.lost} | {row.twice} | {row.again} |", flush=True)
            assert (row.lost, row.twice) == (0, 0)
            assert row.again <= most


if __name__ == "__main__":
    main()
