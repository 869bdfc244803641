"""The batch benchmarks run as the documents say; how fast anything is, no test asserts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BATCH = Path(__file__).parents[2] / "benchmarks" / "batch"


def test_a_quick_run_prints_its_tables() -> None:
    """The parts that need no peers, made small."""
    command = [sys.executable, BATCH, "--quick", "--part", "memory", "--part", "order"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=18)

    assert done.returncode == 0, done.stderr
    assert "| rows | order | first result, ms | MB after 1,000 | most MB after that | rows/s |" in done.stdout
    assert "| 20,000 | of the rows |" in done.stdout
    assert "| published, mean 1.8 s, p95 3.5 s | 1,000 |" in done.stdout
