"""What an import costs a fresh interpreter: CPU, resident memory, modules, with a bare one's taken off."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tables import in_turns, ratio, table

if TYPE_CHECKING:
    from collections.abc import Iterable

BARE, BASE, OURS = "pass", "import requests", "import holyroute"
STATEMENTS = {
    BASE: "requests",
    OURS: "holyroute",
    "import holyroute; holyroute.Session()": "holyroute",
    "import holyroute; holyroute.Client()": "holyroute",
    "import httpx": "httpx",
    "import openai": "openai",
    "import litellm": "litellm",
}
PROBE = """
import json, resource, sys
{statement}
used = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/statm") as memory:
    pages = int(memory.read().split()[1])
megabytes = pages * resource.getpagesize() / 2**20
print(json.dumps([used.ru_utime + used.ru_stime, megabytes, len(sys.modules)]))
"""
ENVIRONMENT = {"HOME": "/", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


@dataclass(frozen=True, slots=True)
class Import:
    """Over a bare interpreter: CPU as a ratio to the baseline and in milliseconds, memory in MB."""

    ratio: float
    cpu: float
    memory: float
    modules: float


def measure(only: Iterable[str], rounds: int) -> dict[str, Import]:
    """What each statement costs whose package is installed."""
    wanted = [one for one, package in STATEMENTS.items() if find_spec(package) and _is_wanted(package, only)]
    for statement in wanted:
        _probe(statement)  # compiled files warm
    runs = in_turns([BARE, *wanted], rounds, _probe)
    bare = [statistics.median(column) for column in zip(*runs[BARE], strict=True)]
    base = [run[0] - bare[0] for run in runs[BASE]]
    return {statement: _import(runs[statement], bare, base) for statement in wanted}


def _is_wanted(package: str, names: Iterable[str]) -> bool:
    return package == "requests" or any(name.startswith(package) for name in names)


def _probe(statement: str) -> list[float]:
    command = [sys.executable, "-I", "-c", PROBE.format(statement=statement)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, env=ENVIRONMENT).stdout)


def _import(runs: list[list[float]], bare: list[float], base: list[float]) -> Import:
    cpu = [run[0] - bare[0] for run in runs]
    memory, modules = (statistics.median(run[column] for run in runs) - bare[column] for column in (1, 2))
    return Import(ratio(cpu, base), statistics.median(cpu) * 1e3, memory, modules)


def shown(imports: dict[str, Import]) -> str:
    """The table."""
    rows = [
        (statement, f"{one.ratio:.2f}", f"{one.cpu:.0f}", f"{one.memory:.1f}", f"{one.modules:.0f}")
        for statement, one in imports.items()
    ]
    return table(("statement", "CPU ratio", "CPU ms", "MB", "modules"), rows)
