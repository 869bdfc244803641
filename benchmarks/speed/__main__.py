"""What a call costs with holyroute, beside its peers: ratios to `requests.Session.post`, all taken in this run.

    python benchmarks/speed [--quick] [--instructions] [--write] [--part calls] [--only holyroute,httpx]
    python benchmarks/speed --profile client

* calls: CPU of the client's process, user and system, for calls one after another. Blocks of all clients in turns, each
  client in a fresh process on the last core, the server on the first; medians of the ratios of each round.
* threads: 1,000 calls on 50 threads. * import: in fresh interpreters. * primitives: the parts of the engine.
* --instructions adds counts by callgrind, which hardly vary; needs valgrind, takes minutes.

Every client sees the same 30 environment variables, sends the same 509 bytes, decodes the same 939, and is checked to
have sent what it should. Peers that are not installed are left out (`pip install -r benchmarks/requirements.txt`).
Linux only. Prints Markdown; `--write` puts it into the README beside it, with a picture.
"""

from __future__ import annotations

import argparse
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import batches
import calls
import goals
import imports
import instructions
import primitives
import report
from contestants import CLIENTS, chosen, installed
from ours import CHAT, DROP_IN, HIT, UNROUTED
from peers import BASELINE
from stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILES = {"client": CHAT, "dropin": DROP_IN, "unrouted": UNROUTED, "hit": HIT, "requests": BASELINE}


@dataclass(frozen=True, slots=True)
class Effort:
    """How often everything is done."""

    rounds: int
    calls: int
    batches: int
    imports: int
    loops: int
    few: int
    more: int


@dataclass(frozen=True, slots=True)
class Run:
    """What every part has to know, and where it leaves its figures."""

    effort: Effort
    names: list[str]
    headers: str
    results: goals.Results


FULL = Effort(rounds=15, calls=200, batches=5, imports=11, loops=5_000, few=20, more=100)
QUICK = Effort(rounds=3, calls=30, batches=1, imports=3, loops=200, few=5, more=20)


def main() -> None:
    """Measure what was asked for; print, and write."""
    arguments = parsed()
    if arguments.profile:
        profile(PROFILES[arguments.profile])
        return
    results = goals.Results()
    sections = []
    for section in measured(arguments, results):
        print(section, flush=True)
        sections.append(section)
    if arguments.write:
        report.write(sections, results.calls)


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it works, not to quote")
    parser.add_argument("--instructions", action="store_true", help="count instructions too")
    parser.add_argument("--write", action="store_true", help="put tables and picture into benchmarks/")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--only", default="", help="rows whose name contains one of these words, separated by commas")
    parser.add_argument("--headers", choices=("plain", "provider"), default="plain", help="4 or 20 response headers")
    parser.add_argument("--profile", choices=PROFILES, help="print where a call's time goes, and nothing else")
    arguments = parser.parse_args()
    if arguments.write and (arguments.part or arguments.only or arguments.quick):
        parser.error("--write: expected a full run")
    usual = PARTS.keys() - {"instructions"}
    arguments.part = {*(arguments.part or usual), *(["instructions"] if arguments.instructions else [])}
    return arguments


def measured(arguments: argparse.Namespace, results: goals.Results) -> Iterator[str]:
    """Each part as it is done, as Markdown."""
    wanted = chosen(arguments.only)
    names = installed(wanted)
    yield report.versions(names)
    if missing := {CLIENTS[name].package: None for name in wanted if name not in names}:
        yield f"Not installed: {', '.join(missing)}.\n"
    run = Run(QUICK if arguments.quick else FULL, names, arguments.headers, results)
    for part, measure in PARTS.items():
        if part in arguments.part:
            yield measure(run)
    yield f"### Goals\n\n{goals.shown(results)}"


def of_calls(run: Run) -> str:
    """CPU of calls one after another."""
    run.results.calls = calls.measure(run.names, run.effort.rounds, run.effort.calls, run.headers)
    title = f"### One call (rounds: {run.effort.rounds}, calls in each: {run.effort.calls})"
    return f"{title}\n\n{calls.shown(run.results.calls)}"


def of_instructions(run: Run) -> str:
    """The same, counted."""
    if instructions.VALGRIND is None:
        return "Instructions are not counted: valgrind is not installed.\n"
    run.results.instructions = instructions.measure(run.names, run.effort.few, run.effort.more, run.headers)
    return f"### Instructions of one call\n\n{instructions.shown(run.results.instructions)}"


def of_threads(run: Run) -> str:
    """Batches."""
    run.results.threads = batches.measure(run.names, run.effort.batches)
    return f"### 1,000 calls on 50 threads (rounds: {run.effort.batches})\n\n{batches.shown(run.results.threads)}"


def of_imports(run: Run) -> str:
    """Fresh interpreters."""
    run.results.imports = imports.measure(run.names, run.effort.imports)
    return f"### Import (rounds: {run.effort.imports})\n\n{imports.shown(run.results.imports)}"


def of_primitives(run: Run) -> str:
    """Tight loops."""
    return f"### Parts of the engine\n\n{primitives.shown(primitives.measure(run.effort.loops))}"


PARTS = {
    "calls": of_calls,
    "instructions": of_instructions,
    "threads": of_threads,
    "import": of_imports,
    "primitives": of_primitives,
}


def profile(name: str) -> None:
    """Run a client under the profiler; its process prints."""
    with Stage() as stage:
        subprocess.run(stage.command(name, 1, "profile", "2000"), env=stage.environment, check=True)


if __name__ == "__main__":
    main()
