"""The page on telemetry works as shown, and names what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from holyroute.monitoring import prometheus
from holyroute.simulator import Simulator

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text()


def test_every_snippet_runs(tmp_path: Path) -> None:
    """One after the other, as a reader would: the figures are printed, the span is told."""
    snippets = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    with Simulator() as provider:
        config = tmp_path / "holyroute.toml"
        config.write_text(
            f"""
            [providers.here]
            base_url = "{provider.base_url}"
            [models."gpt-4.1"]
            provider = "here"
            """
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", "\n".join([*snippets, "tracers.shutdown(); print(body.decode())"])],
            env={**os.environ, "HOLYROUTE_CONFIG": str(config)},
            capture_output=True,
            text=True,
            check=False,
            timeout=15,
        )

    assert len(snippets) == 2
    assert done.returncode == 0, done.stderr
    assert 'holyroute_attempts_total{model="gpt-4.1",outcome="answered",provider="here"} 1.0' in done.stdout
    assert '"name": "chat gpt-4.1"' in done.stdout


def test_the_table_names_every_metric() -> None:
    """With its labels, and no others."""
    rows = re.findall(r"^\| `(holyroute_\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    exporter = prometheus.Exporter(CollectorRegistry())
    figures = {
        f"{figure._name}{'_total' if figure._type == 'counter' else ''}": figure._labelnames
        for figure in exporter._figures.all.values()
    }
    (queue,) = exporter.queues.describe()

    assert {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == {**figures, queue.name: ("state",)}


def test_the_page_names_what_the_spans_have() -> None:
    """Every attribute and metric of OpenTelemetry that the code knows by its whole name."""
    code = "".join((ROOT / "holyroute" / "monitoring" / name).read_text() for name in ("genai.py", "otel.py"))
    names = set(re.findall(r'"((?:gen_ai|holyroute|server|http|error)\.[\w.]+)"', code))
    told_by_family = {"gen_ai.request.choice.count", "gen_ai.request.stream", "gen_ai.output.type"}
    labels = {"gen_ai.token.type", "holyroute.route", "holyroute.attempt.kind"}

    assert {name for name in names - told_by_family - labels if f"`{name}`" not in PAGE} == set()
