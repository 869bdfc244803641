"""What watching costs a call: the default (monitor, alerts and log, nothing configured) against no observer at all.

    python benchmarks/telemetry.py [--rounds 200] [--instructions]

* call: one process with two equal clients, one of which nobody watches, in turns: CPU of a call, user and system, with
  the server of `benchmarks/speed` on the other core. The median of the ratios of neighbouring blocks, with quartiles.
* parts: tight loops, the best of several, in microseconds a call: what the call itself has to do (publish its events),
  and with it the adding up that one call in 64 does for all.
* --instructions counts by callgrind, which hardly varies; needs valgrind, takes a minute.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parent / "speed"))

from exchange import MESSAGES, MODEL, OPTIONS  # noqa: E402 - the benchmark beside this one
from pinning import pin  # noqa: E402
from stage import Stage  # noqa: E402
from tables import table  # noqa: E402

import holyroute  # noqa: E402
from holyroute.core import verdicts  # noqa: E402
from holyroute.core.call import Call  # noqa: E402
from holyroute.core.clock import SYSTEM_CLOCK  # noqa: E402
from holyroute.core.completion import Usage  # noqa: E402
from holyroute.core.events import AttemptFinished, Events  # noqa: E402
from holyroute.core.outcome import Outcome  # noqa: E402
from holyroute.core.trace import AttemptRecord, Trace  # noqa: E402
from holyroute.engine.router import Router  # noqa: E402
from holyroute.monitoring.log import log_events  # noqa: E402
from holyroute.monitoring.monitor import BATCH, Monitor  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 25  # calls
FEW, MORE = 50, 550  # calls that are counted


def client(*, watched: bool) -> holyroute.Client:
    """The fully routed client of `benchmarks/speed`."""
    made = holyroute.Client(router=Router(holyroute.load(os.environ["HOLYROUTE_CONFIG"])))
    if not watched:
        made.router.events.unsubscribe(made.router.monitor)
        made.router.events.unsubscribe(log_events)
    return made


def block(one: holyroute.Client, calls: int) -> float:
    """Seconds of CPU."""
    began = time.process_time()
    for _ in range(calls):
        one.chat(MESSAGES, model=MODEL, **OPTIONS)
    return time.process_time() - began


def compare(rounds: int) -> None:
    """In turns; prints the ratio."""
    pin(1)
    clients = {watched: client(watched=watched) for watched in (False, True)}
    for one in clients.values():
        block(one, 2 * BLOCK)
    ratios, seconds = [], {False: [], True: []}
    for number in range(rounds):
        order = (False, True) if number % 2 else (True, False)
        taken = {watched: block(clients[watched], BLOCK) for watched in order}
        ratios.append(taken[True] / taken[False])
        for watched, one in taken.items():
            seconds[watched].append(one / BLOCK * 1e6)
    low, middle, high = statistics.quantiles(ratios, n=4)
    counted = clients[True].health().calls.count
    if counted != (rounds + 2) * BLOCK:
        raise SystemExit(f"the monitor counted {counted} calls, expected {(rounds + 2) * BLOCK}")
    rows = [
        ("CPU µs of a call, nobody watches", f"{statistics.median(seconds[False]):.1f}"),
        ("CPU µs of a call, watched", f"{statistics.median(seconds[True]):.1f}"),
        ("ratio (quartiles)", f"{middle:.3f} ({low:.3f} – {high:.3f})"),
    ]
    print(table((f"{rounds} rounds of {BLOCK} calls", ""), rows), flush=True)


def instructions(stage: Stage) -> None:
    """What more calls take than few; prints the ratio."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("Instructions are not counted: valgrind is not installed.\n")
        return
    counts = {}
    for watched in ("off", "on"):
        runs = []
        for calls in (1, FEW, MORE):  # the first one compiles what was changed
            command = [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, HERE]
            done = subprocess.run(
                [*command, f"--count={watched}", f"--calls={calls}"],
                env=stage.environment,
                capture_output=True,
                text=True,
                check=True,
            )
            runs.append(int(re.search(r"Collected : (\d+)", done.stderr)[1]))
        counts[watched] = (runs[2] - runs[1]) / (MORE - FEW)
    rows = [
        ("nobody watches", f"{counts['off'] / 1e3:.1f}"),
        ("watched", f"{counts['on'] / 1e3:.1f}"),
        ("ratio", f"{counts['on'] / counts['off']:.3f}"),
    ]
    print(table(("thousand instructions of a call", ""), rows), flush=True)


def parts() -> None:
    """Tight loops; prints microseconds."""
    config = holyroute.load(os.devnull, env={})
    target = config.models["gpt-4.1"]
    trace = Trace(Call(model="gpt-4.1", body={}, deadline=300, connect=10, read=120), SYSTEM_CLOCK, lambda _: None)
    record = AttemptRecord(
        target=target,
        kind="normal",
        verdict=verdicts.ANSWERED,
        status=200,
        detail="",
        started=0.0,
        seconds=0.7,
        retry_after=None,
        usage=Usage(100, 50),
    )
    trace.attempts.append(record)
    trace.close(Outcome(verdict=verdicts.ANSWERED))
    rows = []
    for name, observers in {
        "no observer": lambda: (),
        "monitor, without adding up": lambda: (_lazy(Monitor(config, SYSTEM_CLOCK, print)),),
        "monitor": lambda: (Monitor(config, SYSTEM_CLOCK, print),),
        "monitor and log": lambda: (Monitor(config, SYSTEM_CLOCK, print), log_events),
    }.items():
        rows.append((name, f"{_microseconds(observers, trace, record):.2f}"))
    print(table(("events of a call, published to", "µs"), rows))


def _lazy(monitor: Monitor) -> Monitor:
    monitor._add_up = lambda **_: monitor._waiting.clear()  # noqa: SLF001 - what the call itself has to do
    return monitor


def _microseconds(observers: Callable[[], tuple], trace: Trace, record: AttemptRecord) -> float:
    from holyroute.core.events import CallFinished

    def run() -> float:
        events = Events(observers())

        def publish() -> None:
            events.publish(AttemptFinished(1, record))
            events.publish(CallFinished(trace))

        return timeit.timeit(publish, number=400 * BATCH) / (400 * BATCH) * 1e6

    return min(run() for _ in range(7))


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--instructions", action="store_true", help="count instructions too")
    parser.add_argument("--count", choices=("on", "off"), help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--compare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.count:
        block(client(watched=arguments.count == "on"), arguments.calls)
    elif arguments.compare:
        compare(arguments.rounds)
    else:
        parts()
        with Stage() as stage:
            command = [sys.executable, HERE, "--compare", f"--rounds={arguments.rounds}"]
            subprocess.run(command, env=stage.environment, check=True)
            if arguments.instructions:
                instructions(stage)


if __name__ == "__main__":
    main()
