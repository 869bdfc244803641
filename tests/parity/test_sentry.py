"""Sentry hooks into `http.client`, below everything: each attempt is a span. It stays there, so it has a process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from holyroute.simulator import Simulator

WATCHED = """
import json, sys
import requests, sentry_sdk
from sentry_sdk.transport import Transport
import holyroute

class Keeping(Transport):
    events = []
    def capture_envelope(self, envelope):
        self.events += [item.payload.json for item in envelope.items]

sentry_sdk.init("https://public@sentry.example.test/1", transport=Keeping(), traces_sample_rate=1.0)
if sys.argv[2] == "install":
    holyroute.install()
    post = requests.post
else:
    post = holyroute.Session().post
with sentry_sdk.start_transaction(name="a call", op="test"):
    answer = post(sys.argv[1], json={"model": "ma", "messages": []}, timeout=5)
spans = [
    (span["description"], span["data"]["http.response.status_code"])
    for event in Keeping.events for span in event["spans"] if span["op"] == "http.client"
]
print(json.dumps([answer.json()["model"], spans]))
"""


@pytest.mark.parametrize("door", ["install", "Session"])
def test_each_attempt_has_a_span(a: Simulator, b: Simulator, tmp_path: Path, door: str) -> None:
    """With its own URL and status, and the trace goes along."""
    config = tmp_path / "owner.toml"
    config.write_text(f"""
[providers.b]
base_url = "{b.base_url}"
[models.mb]
provider = "b"
[failover]
"127.0.0.1:{a.port}" = ["mb"]
""")
    urls = [f"{one.base_url}/chat/completions" for one in (a, b)]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, urls[0], door],
        env={"HOME": str(tmp_path), "HOLYROUTE_CONFIG": str(config)},
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["mb", [[f"POST {urls[0]}", 503], [f"POST {urls[1]}", 200]]]
    assert all(one.seen[0].headers.get("sentry-trace") for one in (a, b))
