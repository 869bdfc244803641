"""`holyroute batch` in a process of its own: signals, kills, a full disk. Nothing that was paid for is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.simulator import Profile, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(90)  # several processes one after the other, on a machine that may be busy

PATIENCE = 40.0  # seconds
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "batch_kills.py"
ROWS = 40
WORKERS = 4
SETTINGS = """
[providers.simulated]
base_url = "{url}"
[models.first]
provider = "simulated"
[routes.general]
normal = ["first"]
"""
# A limit on the size of files is told as a full disk is.
SMALL_FILES = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
runpy.run_module("holyroute", run_name="__main__", alter_sys=True)
"""
JOB = ("batch", "in.jsonl", "out.jsonl", "--template", "Say {text}", "--workers", str(WORKERS))


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Simulator]:
    with Simulator({"first": Profile()}) as simulator:
        (tmp_path / "holyroute.toml").write_text(SETTINGS.format(url=simulator.base_url))
        (tmp_path / "holyroute.toml").chmod(0o600)
        (tmp_path / "in.jsonl").write_text("".join(f'{{"text": "word {number}"}}\n' for number in range(ROWS)))
        yield simulator


def start(
    folder: Path, *words: str, program: tuple[str, ...] = ("-m", "holyroute"), **options: Any
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(folder: Path, *words: str) -> tuple[int, str]:
    with start(folder, *words) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out + err


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def told(process: subprocess.Popen[str], word: str) -> str:
    """Everything on stderr up to a line with a word."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if word in line:
            return said
    raise AssertionError(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_drains(provider: Simulator, tmp_path: Path, number: signal.Signals) -> None:
    """What was in flight is waited for and written; exit code 130 with the command that asks the rest."""
    provider.always("first", faults.late(0.3))
    with start(tmp_path, *JOB) as process:
        assert provider.wait_for(WORKERS, timeout=PATIENCE)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    provider.heal()
    asked = provider.attempts()

    assert process.returncode == 130, err
    assert "stopping: rows in flight are waited for; Ctrl-C again calls them off" in err
    assert "go on with: holyroute batch in.jsonl out.jsonl --template 'Say {text}' --workers 4\n" in err
    assert len(lines(tmp_path)) == asked < ROWS
    assert all(row["ok"] for row in lines(tmp_path))

    code, _ = finish(tmp_path, *JOB)

    assert code == 0
    assert sorted(row["index"] for row in lines(tmp_path)) == list(range(ROWS))
    assert provider.attempts() == ROWS


def test_the_second_signal_calls_off(provider: Simulator, tmp_path: Path) -> None:
    """Rows that nobody answers are not waited for, and count as not asked."""
    provider.always("first", "silent")
    with start(tmp_path, *JOB) as process:
        assert provider.wait_for(WORKERS, timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        told(process, "stopping")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)

    assert process.returncode == 130
    assert "calling off what is in flight" in err
    assert "called off: " in out
    assert lines(tmp_path) == []

    provider.heal()

    assert finish(tmp_path, *JOB)[0] == 0
    assert len(lines(tmp_path)) == ROWS


def test_the_third_signal_leaves(provider: Simulator, tmp_path: Path) -> None:
    """At once, whatever is under way: here a pipe that is full, because nobody reads it and nobody closes it."""
    (tmp_path / "in.jsonl").write_text("".join(f'{{"text": "{number} {"long " * 4_000}"}}\n' for number in range(ROWS)))
    with start(tmp_path, "batch", "in.jsonl", "-", "--template", "{text}") as process:
        assert provider.wait_for(4, timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        told(process, "stopping")
        process.send_signal(signal.SIGINT)
        told(process, "calling off")
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=PATIENCE) == 130


def test_a_pipe_that_pauses_holds_nothing_back(provider: Simulator, tmp_path: Path) -> None:
    """What is answered is written before the next row comes; the first signal ends it, and the next run goes on."""
    with start(tmp_path, "batch", "-", "-", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(2):
            process.stdin.write(json.dumps({"prompt": f"hello {number}"}) + "\n")
            process.stdin.flush()

            assert json.loads(process.stdout.readline())["content"].endswith(f"hello {number}")

        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=PATIENCE) == 130

    assert provider.attempts() == 2


def test_a_canary_takes_its_rows_from_a_pipe(provider: Simulator, tmp_path: Path) -> None:
    """Each row once, in whichever of the two jobs."""
    words = ("batch", "-", "out.jsonl", "--canary", "3", "--workers", "2")
    with start(tmp_path, *words, stdin=subprocess.PIPE) as process:
        given = "".join(f'{{"prompt": "word {number}"}}\n' for number in range(ROWS))
        _, err = process.communicate(given, timeout=PATIENCE)

    assert process.returncode == 0, err
    assert "canary: 3 rows answered" in err
    assert sorted(row["index"] for row in lines(tmp_path)) == list(range(ROWS))
    assert provider.attempts() == ROWS


def test_a_full_disk_stops_and_loses_nothing(provider: Simulator, tmp_path: Path) -> None:
    """The output keeps whole lines, what came in afterwards is rescued, and with room the same command goes on."""
    with start(tmp_path, *JOB, program=("-c", SMALL_FILES)) as process:
        _, err = process.communicate(timeout=PATIENCE)
    asked = provider.attempts()
    written = lines(tmp_path)

    assert process.returncode == 3, err
    assert "stopped: out.jsonl: File too large" in err
    assert "go on with: holyroute batch" in err
    assert 0 < len(written) < asked < ROWS

    (rescued,) = tmp_path.glob("holyroute-rescued-*.jsonl")
    command = f"cat {rescued} >> out.jsonl"
    assert command in err.splitlines()
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=True)

    assert len(lines(tmp_path)) == asked
    assert finish(tmp_path, *JOB)[0] == 0
    assert sorted(row["index"] for row in lines(tmp_path)) == list(range(ROWS))
    assert provider.attempts() == ROWS


def test_nobody_reads_on(provider: Simulator, tmp_path: Path) -> None:
    """A pipe that is closed ends the run; no row is asked for nobody."""
    provider.always("first", faults.late(0.1))
    with start(tmp_path, "batch", "in.jsonl", "-", "--template", "{text}", "--workers", "1") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.wait(timeout=PATIENCE) == 3

    assert first["ok"]
    assert provider.attempts() < ROWS


def test_kills_lose_nothing() -> None:
    """The benchmark, small: every row once, only what was in flight asked again, the output as without a kill."""
    command = [sys.executable, BENCHMARK, "--rows", "40", "--kills", "2", "--torn", "1", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)

    assert done.returncode == 0, done.stderr
    assert "| 2 | 1 | 40 | 0 | 0 | " in done.stdout
