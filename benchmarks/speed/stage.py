"""The processes: one server, and one worker for each client, all in the same small environment."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ours import ENVIRONMENT, configuration

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent
VARIABLES = 30  # requests reads all of them at every call, so that their number decides what a call costs


class WorkerFailedError(RuntimeError):
    """A client could not be made, or died."""


class Stage:
    """The server, and what clients see. Use as a context manager.

    Args:
        headers: `plain` for 4 response headers, `provider` for 18 and the two of the body, as hosted models send.
    """

    def __init__(self, headers: str = "plain") -> None:
        self._headers = headers
        self._open = ExitStack()

    def __enter__(self) -> Self:
        command = [sys.executable, HERE / "server.py", "0", self._headers]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        server = self._open.enter_context(subprocess.Popen(command, text=True, **pipes))
        self._open.callback(server.stdin.close)
        port = int(server.stdout.readline())
        self.url = f"http://127.0.0.1:{port}"
        self._manager = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._open.callback(self._manager.close)
        home = Path(self._open.enter_context(tempfile.TemporaryDirectory()))
        (home / "holyroute.toml").write_text(configuration(self.url))
        self.environment = environment(home)
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def manage(self, path: str) -> dict[str, Any]:
        """Ask the server for its counts, or change it."""
        self._manager.request("GET", path)
        return json.loads(self._manager.getresponse().read())

    def command(self, name: str, connections: int, *what: str) -> list[str]:
        """How a worker is started."""
        return [sys.executable, str(HERE / "worker.py"), name, self.url, str(connections), *what]

    def workers(self, names: Iterable[str], connections: int = 1) -> dict[str, Worker]:
        """A process for each client; those that fail are reported and left out."""
        started = {name: Worker(self, name, connections) for name in names}
        ready = {}
        for name, worker in started.items():
            self._open.callback(worker.close)
            try:
                worker.read()
                ready[name] = worker
            except WorkerFailedError as failure:
                print(f"Left out: {name}: {failure}\n", flush=True)
        return ready


class Worker:
    """One client in its process."""

    def __init__(self, stage: Stage, name: str, connections: int) -> None:
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            stage.command(name, connections, "serve"),
            env=stage.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
        )

    def read(self) -> dict[str, float]:
        """What the worker has to say."""
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._complaints.seek(0)
        raise WorkerFailedError((self._complaints.read().strip() or "it ended").splitlines()[-1])

    def ask(self, calls: int, threads: int = 0) -> dict[str, float]:
        """One block of calls: seconds of `cpu` and `wall`."""
        print(json.dumps({"calls": calls, "threads": threads}), file=self._process.stdin, flush=True)
        return self.read()

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._complaints.close()


def environment(home: Path) -> dict[str, str]:
    """What every client sees: as many variables as the container of a service has, and an empty home."""
    chosen = {
        "PATH": os.defpath,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "HOLYROUTE_CONFIG": str(home / "holyroute.toml"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or its import asks the network
        **ENVIRONMENT,
    }
    return chosen | {f"SERVICE_SETTING_{number}": f"value-{number}" for number in range(len(chosen), VARIABLES)}
