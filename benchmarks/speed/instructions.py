"""Instructions of one call, counted by callgrind: steady where clocks are not. The kernel's are not counted."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from contestants import CLIENTS
from ours import CHAT, DROP_IN, HIT, UNROUTED
from peers import BASELINE, FLOOR
from stage import Stage
from tables import table

if TYPE_CHECKING:
    from collections.abc import Iterable

VALGRIND = shutil.which("valgrind")
ROWS = {FLOOR, BASELINE, CHAT, DROP_IN, UNROUTED, HIT}  # it takes seconds a row, and minutes where an import is large


def measure(names: Iterable[str], few: int, more: int, headers: str) -> dict[str, float]:
    """Instructions of a call: what more calls took than few, so that the start does not count."""
    counts = {}
    with Stage(headers) as stage:
        for name in (name for name in names if name in ROWS):
            # the first of three compiles what was changed, which takes more than many calls
            _, *runs = [_count(stage, name, calls) for calls in (1, few, more)]
            if stage.manage("/served")["served"] == (1 + few + more) * CLIENTS[name].reaches_server + 3:
                counts[name] = (runs[1] - runs[0]) / (more - few)
            else:
                print(f"Left out: {name}: its calls are not answered from a cache\n", flush=True)
    return counts


def _count(stage: Stage, name: str, calls: int) -> int:
    command = [VALGRIND, "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += stage.command(name, 1, "run", str(calls))
    done = subprocess.run(command, env=stage.environment, capture_output=True, text=True, check=True)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def shown(counts: dict[str, float]) -> str:
    """The table."""
    base = counts[BASELINE]
    rows = [(name, f"{count / base:.2f}", f"{count / 1e3:.0f}") for name, count in counts.items()]
    return table(("client", "ratio", "thousand instructions"), rows)
