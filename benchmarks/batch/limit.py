"""A provider that enforces 600 requests a minute, 50 workers, in real time."""

from __future__ import annotations

import time

from tables import table

import holyroute
from holyroute.simulator import Limit, Simulator, benchmark_profiles

RPM, ROWS, QUICK = 600, 1_800, 200
MODEL = "gpt-4.1"  # the slowest of the published table
HEAD = ("rows", "answered", "429", "share of calls", "seconds", "calls/min", "of the limit")


def shown(*, quick: bool, **_: object) -> str:
    """The table."""
    rows = QUICK if quick else ROWS
    with Simulator({MODEL: benchmark_profiles()[MODEL]}, limits={MODEL: Limit(rpm=RPM)}) as provider:
        client = holyroute.Client(
            providers={"p": {"base_url": provider.base_url}},
            models={MODEL: {"provider": "p", "rpm": RPM}},
            routes={"general": {"normal": [MODEL]}},
        )
        began = time.perf_counter()
        prompts = (f"question {number}" for number in range(rows))
        answered = sum(result.ok for result in client.batch(prompts, task="general", priority="normal"))
        seconds = time.perf_counter() - began
        calls, refused = provider.attempts(), sum(seen.status == 429 for seen in provider.seen)
    rate = answered / seconds * 60
    row = (rows, answered, refused, f"{refused / calls:.1%}", f"{seconds:.0f}", f"{rate:.0f}", f"{rate / RPM:.0%}")
    return table(HEAD, [row])
