"""A million rows that ask nobody: what the machinery itself takes."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from tables import table

from holyroute.batch.crew import Threads
from holyroute.batch.ending import Ending
from holyroute.batch.governor import Governor
from holyroute.batch.job import Job, Means
from holyroute.batch.options import options_of
from holyroute.batch.reading import rows_of
from holyroute.batch.row import RowResult
from holyroute.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from holyroute.batch.crew import Crew, Errand, Mailbox

ROWS, QUICK, WORKERS, PAGE = 1_000_000, 20_000, 50, 4096
HEAD = ("rows", "order", "first result, ms", "MB after 1,000", "most MB after that", "rows/s")


def resident() -> float:
    """MB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


def nothing(errand: Errand) -> Ending:
    """An answer at once."""
    return Ending(result=RowResult(index=errand.row.index, ok=True, cost_usd=Decimal(0)))


def crew(mailbox: Mailbox) -> Crew:
    """The threads that a client's batch has."""
    return Threads(nothing, ThreadPoolExecutor(WORKERS), WORKERS, mailbox, own=True)


def run(rows: int, *, ordered: bool) -> tuple[object, ...]:
    """One batch."""
    gc.collect()
    means = Means(
        crew=crew,
        spare=crew,
        governor=Governor(),
        price=lambda _: None,
        finish=lambda: None,
        clock=SYSTEM_CLOCK,
        patience=300.0,
    )
    began = time.perf_counter()
    job = Job(rows_of((f"row {number}" for number in range(rows)), {}), options_of({"ordered": ordered}), means)
    next(job)
    first = time.perf_counter() - began
    start = most = 0.0
    for number, _ in enumerate(job, 2):
        if number % 1_000 == 0:
            now = resident()
            start, most = start or now, max(most, now)
    seconds = time.perf_counter() - began
    assert job.progress.answered == rows
    how = "of the rows" if ordered else "as they end"
    return f"{rows:,}", how, f"{first * 1e3:.1f}", f"{start:.1f}", f"{most:.1f}", f"{rows / seconds:,.0f}"


def shown(*, quick: bool, **_: object) -> str:
    """The table."""
    rows = QUICK if quick else ROWS
    return table(HEAD, [run(rows, ordered=ordered) for ordered in (False, True)])
