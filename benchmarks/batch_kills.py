"""What a batch loses when its process is killed: nothing, and how many calls are made twice.

    python benchmarks/batch_kills.py [--rows 4000] [--kills 20] [--torn 2] [--workers 16]

`holyroute batch` asks for every row of a file, is killed (SIGKILL) at a random moment after its first request, and is
started again with the same command, again and again; after some of the kills the last line of the output is cut at a
random byte, as a power cut may leave it. Then it runs to its end. The same file is also run without a kill into another
output; both are put into the order of the input, and must be equal but for the seconds that each call took.

In flight at a kill is every call that the provider has got and of which the output has no line; that many have to be
made again: what the workers wait for, and a few answers that have come and are not written yet. Prints a Markdown
table; fails if a row is missing or there twice, if more was asked again than was in flight, if that was more than half
as much again as the workers, or if the outputs differ.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from holyroute.batch.printing import Ordered
from holyroute.simulator import Profile, Simulator

LATENCY = 0.05  # seconds of an answer
LONGEST = 0.4  # seconds from a process's first request to its end
SETTLE = 0.2  # seconds in which what a killed process has sent arrives

SETTINGS = """
[providers.simulator]
base_url = "{url}"
[models.m]
provider = "simulator"
[routes.general]
normal = ["m"]
"""


@dataclass
class Place:
    """A folder with an input, and a provider that it is sent to."""

    folder: Path
    provider: Simulator
    rows: int
    workers: int
    in_flight: list[int] = field(default_factory=list)  # at each kill

    def prepare(self) -> None:
        """Write input and settings."""
        (self.folder / "holyroute.toml").write_text(SETTINGS.format(url=self.provider.base_url))
        (self.folder / "holyroute.toml").chmod(0o600)
        with (self.folder / "in.jsonl").open("w") as file:
            for number in range(self.rows):
                file.write(json.dumps({"number": number, "text": f"sentence {number} " * 20}) + "\n")

    def start(self, output: str) -> subprocess.Popen[str]:
        """The command, the same each time."""
        command = [sys.executable, "-m", "holyroute", "batch", "in.jsonl", output, "--config", "holyroute.toml"]
        command += ["--template", "Translate {number}: {text}", "--workers", str(self.workers)]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, output: str) -> None:
        """Run it to its end."""
        with self.start(output) as process:
            _, errors = process.communicate()
        assert process.returncode == 0, errors

    def kill(self, output: str) -> None:
        """Run it to a random moment, and count what was in flight then."""
        before = self.provider.attempts()
        with self.start(output) as process:
            while self.provider.attempts() == before:
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.001)
            time.sleep(random.uniform(0, LONGEST))
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL, "it had ended before: more rows, or fewer kills"
        time.sleep(SETTLE)
        without_a_line = self.provider.attempts() - len(self.lines(output))
        self.in_flight.append(without_a_line - sum(self.in_flight))

    def tear(self, output: str) -> None:
        """Cut the last line somewhere."""
        path = self.folder / output
        data = path.read_bytes()
        last = data.rstrip(b"\n").rfind(b"\n") + 1
        if last < len(data):
            path.write_bytes(data[: random.randrange(last + 1, len(data) - 1)])
            self.in_flight[-1] += 1  # it has to be asked again as well

    def lines(self, output: str) -> list[bytes]:
        """The whole lines."""
        data = (self.folder / output).read_bytes()
        return data[: data.rfind(b"\n") + 1].splitlines()

    def ordered(self, output: str) -> list[dict[str, object]]:
        """The rows in order, without the seconds that each took."""
        rows = [json.loads(line) for line in Ordered([self.folder / output])]
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def measure(place: Place, kills: int, torn: int) -> str:
    """Kill, tear, finish, compare; a row of the table."""
    for kill in range(kills):
        place.kill("out.jsonl")
        if kill % (kills // torn) == 0 and kill // (kills // torn) < torn:
            place.tear("out.jsonl")
    place.finish("out.jsonl")
    again = place.provider.attempts() - place.rows
    indexes = Counter(json.loads(line)["index"] for line in place.lines("out.jsonl"))
    missing, twice = place.rows - len(indexes), sum(indexes.values()) - len(indexes)
    place.finish("whole.jsonl")
    assert place.ordered("out.jsonl") == place.ordered("whole.jsonl"), "the outputs differ"
    assert (missing, twice) == (0, 0)
    assert again <= sum(place.in_flight)
    assert sum(place.in_flight) <= 1.5 * place.workers * kills + torn, place.in_flight
    most = max(place.in_flight)
    return f"| {kills} | {torn} | {place.rows} | {missing} | {twice} | {again} | {sum(place.in_flight)} | {most} |"


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--torn", type=int, default=2)
    parser.add_argument("--workers", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Simulator({"m": Profile(mean=LATENCY)}, keep=10**6) as provider:
        place = Place(Path(folder), provider, arguments.rows, arguments.workers)
        place.prepare()
        row = measure(place, arguments.kills, arguments.torn)
    print("| kill -9 | torn tails | rows | missing | twice | asked again | in flight at the kills | most at one |")
    print("|---|---|---|---|---|---|---|---|")
    print(row)


if __name__ == "__main__":
    main()
