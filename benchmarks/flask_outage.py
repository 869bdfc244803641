"""A web app under load while its provider dies: no view fails, and nobody gets somebody else's answer.

    python benchmarks/flask_outage.py [--views 4000] [--threads 32] [--workers 4]

`gunicorn -w 4 --preload examples.flask_app:app`, asked by threads of this process, plain views and streams in turn. The
first provider is well for a third of the views, then dies in the middle of its answers, and for the last third is back
with 503; the second one is well all the time. Each question is asked once and must be echoed in its own answer. In the
end the workers' own figures are added up and compared with what the providers counted.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from holyroute.simulator import Profile, Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
TOKEN = "token-of-this-benchmark"  # noqa: S105 - opens nothing else
PATIENCE = 60  # seconds for a view, and for gunicorn to start
BROKEN = "\n[the answer broke off here]"  # as the app says it
MODELS = "first-choice", "substitute"
PROFILE = Profile(mean=0.005, p95=0.015)  # so that answers are on their way when the provider dies
ROUTE = 'general.normal = ["first-choice", "substitute"]'


@dataclass
class Load:
    """What became of the views."""

    url: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: int = 0
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    broken: int = 0  # streams that broke off after their first words, and said so
    seconds: list[float] = field(default_factory=list)

    def view(self, number: int) -> None:
        """Ask one question of its own; every second one as a stream."""
        question = f"question {number} of {os.getpid()}: what is {number} + {number}?"
        began = time.monotonic()
        try:
            said = self._ask("/chat" if number % 2 else "/ask", question)
        except (requests.RequestException, ValueError, KeyError) as error:
            said, failure = "", repr(error)
        else:
            failure = ""
        with self.lock:
            self.done += 1
            self.seconds.append(time.monotonic() - began)
            if failure:
                self.failed.append(failure)
            elif said.endswith(BROKEN) and f"Answer to: {question}".startswith(said.removesuffix(BROKEN)):
                self.broken += 1
            elif said != f"Answer to: {question}":
                self.mixed.append(f"{question} -> {said}")

    def _ask(self, view: str, question: str) -> str:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(self.url + view, json={"question": question}, timeout=PATIENCE)
        answer.raise_for_status()
        return answer.text if view == "/chat" else str(answer.json()["answer"])


@contextmanager
def app(workers: int, providers: tuple[Simulator, Simulator]) -> Iterator[str]:
    """The address of the example app under gunicorn."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "holyroute.toml"
        lines = [
            f'[providers.{model}]\nbase_url = "{provider.base_url}"\n[models.{model}]\nprovider = "{model}"\n'
            for model, provider in zip(MODELS, providers, strict=True)
        ]
        config.write_text("".join(lines) + f"[routes]\n{ROUTE}\n")
        environment = {**os.environ, "HOLYROUTE_CONFIG": str(config), "CHAT_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
        command = [sys.executable, "-m", "gunicorn", "-w", str(workers), "--preload", "-b", "127.0.0.1:0"]
        process = subprocess.Popen(
            [*command, "examples.flask_app:app"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            yield listening(process)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def listening(process: subprocess.Popen[str]) -> str:
    """Where gunicorn listens; what else it says goes on to stderr."""
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        told.append(line)
        found = re.search(r"Listening at: (http://\S+)", line)
        if found:
            threading.Thread(target=sys.stderr.writelines, args=[loud(process.stderr)], daemon=True).start()
            return found[1]
    raise SystemExit("".join(told))


def loud(lines: Any) -> Iterator[str]:
    """What is worth seeing of a log: not that workers come and go."""
    return (line for line in lines if "[INFO]" not in line)


def play(load: Load, views: int, threads: int, first: Simulator) -> None:
    """All views; after each third the next thing breaks."""

    def back_with_503() -> None:
        first.always("*", 503)
        first.plug()

    thirds = {views // 3: first.unplug, 2 * views // 3: back_with_503}
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(load.view, number) for number in range(views)]
        for number, future in enumerate(futures):
            if number in thirds:
                thirds[number]()
            future.result()


def processes(url: str, workers: int) -> dict[int, dict[str, Any]]:
    """The figures of every worker, by process; each request is answered by whoever takes it."""
    found: dict[int, dict[str, Any]] = {}
    for _ in range(200 * workers):
        if len(found) == workers:
            break
        answer = requests.get(
            f"{url}/holyroute/api",
            headers={"Authorization": f"Bearer {TOKEN}"},
            proxies={"http": ""},
            timeout=PATIENCE,
        )
        told = answer.json()
        found[told["pid"]] = told
    return found


def show(load: Load, told: dict[int, dict[str, Any]], providers: tuple[Simulator, Simulator]) -> bool:
    """Print what happened; True if nothing was lost."""
    seconds = sorted(load.seconds)
    attempts: Counter[str] = Counter()
    for one in told.values():
        attempts.update({target["target"]: target["total"]["count"] for target in one["targets"]})
    calls = [one["calls"]["count"] for one in told.values()]
    print(f"views: {load.done:,}, failed: {len(load.failed)}, mixed up: {len(load.mixed)}")
    print(f"streams that broke off after their first words: {load.broken}")
    print(f"seconds of a view: p50 {seconds[len(seconds) // 2]:.3f}, slowest {seconds[-1]:.3f}")
    print(f"processes: {len(told)}, calls by their own figures: {sum(calls):,} ({', '.join(map(str, sorted(calls)))})")
    for model, provider in zip(MODELS, providers, strict=True):
        print(f"attempts at {model}: {attempts[model]:,} by the processes, {provider.attempts():,} arrived")
    for line in [*load.failed, *load.mixed][:10]:
        print(f"  {line}")
    return not load.failed and not load.mixed


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--views", type=int, default=4_000)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    first, second = (Simulator({model: PROFILE}, keep=0) for model in MODELS)
    with first, second, app(options.workers, (first, second)) as url:
        load = Load(url)
        play(load, options.views, options.threads, first)
        told = processes(url, options.workers)
        good = show(load, told, (first, second))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
