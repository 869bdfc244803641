"""What `import holyroute` costs beside `import requests`: CPU time, memory, modules, in fresh interpreters.

    python benchmarks/importing.py [--rounds 21]

Prints medians over interleaved rounds, and the ratio; a bare interpreter is taken off both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

PROBE = """
import json, resource, sys
{statement}
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, len(sys.modules)]))
"""
STATEMENTS = {
    "bare interpreter": "",
    "import requests": "import requests",
    "import holyroute": "import holyroute",
    "holyroute.Session": "import holyroute; holyroute.Session",
    "holyroute.Client()": "import holyroute; holyroute.Client()",
}


def probe(statement: str) -> list[float]:
    """CPU seconds, peak MB and modules of a fresh interpreter that runs a statement."""
    command = [sys.executable, "-I", "-c", PROBE.format(statement=statement)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def main() -> None:
    """Measure in turns, print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    for statement in STATEMENTS.values():  # compiled files warm
        probe(statement)
    runs = {name: [] for name in STATEMENTS}
    for _ in range(rounds):
        for name, statement in STATEMENTS.items():
            runs[name].append(probe(statement))
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in runs.items()}
    bare = medians.pop("bare interpreter")
    base = medians["import requests"][0] - bare[0]
    print("| | CPU ms | ratio to requests | MB | modules |\n|---|---|---|---|---|")
    for name, (cpu, memory, modules) in medians.items():
        over = cpu - bare[0]
        more = f"{memory - bare[1]:.1f} | {modules - bare[2]:.0f}"
        print(f"| {name} | {over * 1e3:.0f} | {over / base:.2f} | {more} |")


if __name__ == "__main__":
    main()
