"""A headless Chromium, driven by the WebDriver protocol.

Without one the tests are skipped, unless `HOLYROUTE_TEST_BROWSER=required`: then they fail.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import pytest
import requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REQUIRED = os.environ.get("HOLYROUTE_TEST_BROWSER") == "required"  # read before the tests clear our variables
PATIENCE = 40  # seconds for anything that a browser does
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
]

# What a process is started with that ends with the one that starts it: a pytest that is killed leaves nothing behind.
TIED = ["setpriv", "--pdeathsig=KILL"] if shutil.which("setpriv") else []

# Calls back when the condition holds, or with what the page shows when it has not for long enough.
WAITING = """
const [condition, patience, done] = arguments;
const holds = new Function(`return (${condition})`);
const until = performance.now() + 1000 * patience;
(function look() {
  if (holds()) done("");
  else if (performance.now() > until) done(document.body.innerText || "an empty page");
  else setTimeout(look, 50);
})();
"""


class Browser:
    """One window."""

    def __init__(self, driver: str, binary: str, arguments: list[str]) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._url = f"{driver}/session"
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments, "binary": binary}}
        session = self._do("", capabilities={"alwaysMatch": wanted, "firstMatch": [{}]})
        self._url += f"/{session['sessionId']}"
        self._do("/timeouts", script=1_000 * PATIENCE, pageLoad=1_000 * PATIENCE)

    def open(self, url: str) -> None:
        """Go to a page."""
        self._do("/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body in JavaScript returns."""
        return self._do("/execute/sync", script=script, args=list(arguments))

    def wait_for(self, condition: str) -> None:
        """Wait until an expression in JavaScript is true."""
        shown = self._do("/execute/async", script=WAITING, args=[condition, PATIENCE - 10])

        assert shown == "", f"{condition} did not come true on this page:\n{shown}"

    def text(self, selector: str) -> str:
        """What a part of the page says."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def look(self, *, width: int = 1_400, height: int = 1_000, dark: bool = False) -> None:
        """How wide the window is, and which colours the reader prefers."""
        self._command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Keep the whole page as an image."""
        shot = self._command("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the console holds since the last look: errors and violations of the policy."""
        entries = self._do("/se/log", type="browser")
        return [entry["message"] for entry in entries]

    def close(self) -> None:
        """End the browser."""
        self._session.delete(self._url, timeout=PATIENCE)
        self._session.close()

    def _command(self, name: str, **parameters: Any) -> Any:
        return self._do("/goog/cdp/execute", cmd=name, params=parameters)

    def _do(self, path: str, **body: Any) -> Any:
        answer = self._session.post(self._url + path, json=body, timeout=PATIENCE)
        value = answer.json()["value"]

        assert answer.ok, value
        return value


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a driver of its own."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        (pytest.fail if REQUIRED else pytest.skip)("needs chromium and chromedriver: apt-get install chromium-driver")
    log = tmp_path_factory.mktemp("driver") / "log"
    port = _free_port()
    command = [*TIED, "chromedriver", f"--port={port}", f"--log-path={log}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            assert any("started successfully" in line for line in process.stdout), log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _free_port() -> int:
    """The driver's own choice fails where many connections ended lately: it asks for one that is free for IPv6."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


@pytest.fixture(scope="session")
def window(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser for all tests: it takes seconds to start."""
    folder = tmp_path_factory.mktemp("browser")
    binary = folder / "chromium"
    binary.write_text(f'#!/bin/sh\nexec {" ".join([*TIED, "chromium"])} "$@"\n')
    binary.chmod(0o700)
    browser = Browser(driver, str(binary), [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"])
    yield browser
    browser.close()


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """The browser as it is at first."""
    window.look()
    window.complaints()  # those of the test before
    yield window
    window.open("about:blank")
