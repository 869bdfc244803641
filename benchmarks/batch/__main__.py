"""Batches: memory, speed beside peers, a model that dies under way, a limit that is enforced, and the order of work.

    python benchmarks/batch [--part memory] [--quick] [--data DIR]

* memory: a million rows that ask nobody. * speed: 1,000 calls on 50 threads beside peers, by the means of
  `benchmarks/speed`. * death: 1,000 calls on 50 threads, and after the first 500 the preferred model is gone; beside a
  hand-written loop, and LiteLLM where it is installed. * limit: a provider that enforces 600 requests a minute, in real
  time. * order: whether it pays to start long rows first, simulated.

Prints Markdown. Everything takes about ten minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1]
sys.path += [str(FOLDER), str(FOLDER / "speed")]

import death  # noqa: E402 - they are found by the line above
import limit  # noqa: E402
import memory  # noqa: E402
import order  # noqa: E402
import peers_beside  # noqa: E402

PARTS = {
    "memory": memory.shown,
    "speed": peers_beside.shown,
    "death": death.shown,
    "limit": limit.shown,
    "order": order.shown,
}


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--quick", action="store_true", help="little of everything: to see that it works, not to quote")
    parser.add_argument("--data", type=Path, help="folder with mmlu_pro_answers.csv: recorded lengths for `order`")
    arguments = parser.parse_args()
    for part in arguments.part or PARTS:
        print(f"### {part}\n\n{PARTS[part](quick=arguments.quick, data=arguments.data)}", flush=True)


if __name__ == "__main__":
    main()
