"""What holds for all tests: nothing of the developer's own settings gets in."""

from __future__ import annotations

import itertools
import logging
import os
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from holyroute import context
from holyroute.monitoring import health as states

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Names of folders. `mktemp` looks through all that it made before, for each of thousands of tests."""
    root = tmp_path_factory.mktemp("homes")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, homes: Iterator[Path]) -> Iterator[Path]:
    """No variables, no user file, no `./holyroute.toml`, no proxies, no router of another test."""
    for name in os.environ:
        if name.startswith(("HOLYROUTE_", "HOLYSHEEP_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = next(homes)
    home.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    context.reset()
    yield home
    context.reset()
    logging.getLogger("holyroute").handlers.clear()  # the demo's, which keeps warnings out of its display


@pytest.fixture
def busy_health() -> states.Health:
    """An app in the middle of an outage, with something in every part; the third model's name is hostile."""
    failing = states.TargetHealth(
        target="deepseek-chat",
        provider="gateway-a",
        host="gateway-a.example",
        state="open",
        retry_in=4.2,
        recent=states.Figures(count=412, answers=380, errors=32, latency=_latency(0.81)),
        total=states.Figures(count=1_204, answers=1_172, errors=32, latency=_latency(0.8)),
        latency_class="fast",
        retries=3,
        prompt_tokens=48_160,
        completion_tokens=175_800,
        cost_usd=Decimal("0.0738"),
        errors_by_reason={"server unavailable": 29, "connection reset": 3},
        history=(
            states.StateChange(at=1_700_000_100, before="closed", after="open", reason="5 failures in a row"),
            states.StateChange(at=1_700_000_105, before="open", after="half-open", reason="time for a probe"),
            states.StateChange(at=1_700_000_106, before="half-open", after="open", reason="the probe failed"),
        ),
        sparkline=(0.7, 0.75, 0.72, 0.8, 0.9, 0.85, 1.2, 1.9, 2.2, 2.4, None, None),
    )
    well = states.TargetHealth(
        target="gpt-4.1-mini",
        provider="gateway-b",
        host="gateway-b.example",
        state="closed",
        recent=states.Figures(count=318, answers=317, errors=1, latency=_latency(0.42)),
        total=states.Figures(count=318, answers=317, errors=1, latency=_latency(0.42)),
        latency_class="fast",
        prompt_tokens=12_720,
        completion_tokens=47_550,
        cost_usd=Decimal("0.0812"),
        errors_by_reason={"internal error": 1},
        sparkline=(None, None, None, 0.4, 0.41, 0.44, 0.39, 0.42, 0.46, 0.4, 0.41, 0.43),
    )
    hostile = states.TargetHealth(
        target=HOSTILE,
        provider='"><img src=x onerror=document.title="owned">',
        host="127.0.0.1:8080",
        state="half-open",
        recent=states.Figures(count=1, errors=1),
        total=states.Figures(count=1, errors=1),
        latency_class="normal",
        errors_by_reason={HOSTILE: 1},
        sparkline=(None,) * 12,
    )
    benched = states.TargetHealth(
        target="claude-3-5-sonnet-latest",
        provider="anthropic",
        host="api.anthropic.example",
        state="closed",
        benched="key rejected",
        recent=states.Figures(count=3, errors=3),
        total=states.Figures(count=3, errors=3),
        latency_class="slow",
        errors_by_reason={"key rejected": 3},
        sparkline=(None,) * 12,
    )
    return states.Health(
        at=1_700_000_130,
        since=1_700_000_000,
        pid=4_711,
        window=300,
        calls=states.Figures(count=1_486, answers=1_486, latency=_latency(0.71)),
        failovers=35,
        cache_hits=20,
        targets=(failing, well, hostile, benched),
        routes=(
            states.RouteHealth(
                route="simple_qa/fast",
                recent=states.Figures(count=1_400, answers=1_400, latency=_latency(0.7)),
                total=states.Figures(count=1_400, answers=1_400, latency=_latency(0.7)),
                failovers=33,
                cache_hits=20,
            ),
            states.RouteHealth(route=HOSTILE, recent=states.Figures(), total=states.Figures(count=86, answers=86)),
        ),
        spent_usd=Decimal("0.155"),
        saved_usd=Decimal("1.6021"),
        reference="gpt-4.1",
        unknown_cost=2,
        recent_failovers=(
            states.FailoverNote(
                at=1_700_000_129,
                asked="simple_qa/fast",
                answered_by="gpt-4.1-mini",
                reason="circuit open",
            ),
            states.FailoverNote(
                at=1_700_000_128, asked="simple_qa/fast", answered_by="gpt-4.1-mini", reason="circuit open"
            ),
            states.FailoverNote(at=1_700_000_101, asked=HOSTILE, answered_by=None, reason=HOSTILE),
        ),
        alerts=(
            states.AlertNote(
                rule="circuit_open", subject="deepseek-chat", message="its circuit is open", began=1_700_000_100
            ),
            states.AlertNote(
                rule="error_rate", subject=HOSTILE, message=HOSTILE, began=1_700_000_050, ended=1_700_000_090
            ),
        ),
        queue=states.QueueDepth(ready=12, leased=1, done=87, dead=2),
    )


HOSTILE = "<script>alert(1)</script>"


def _latency(average: float) -> states.Latency:
    return states.Latency(average=average, p50=average * 0.9, p95=average * 1.7, p99=average * 2.4)
