"""What Prometheus and OpenTelemetry cost a call: the same client with and without them, blocks in turns, CPU time.

    python benchmarks/telemetry_export.py [--rounds 60] [--calls 100]

Each block is paired with that of the bare client in its round; the ratio is the median of the pairs. The last two rows
are for comparison: a script's session, and what requests' own instrumentation costs it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import holyroute
from holyroute.engine.router import Router
from holyroute.monitoring import otel, prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

SPEED = Path(__file__).parent / "speed"
sys.path.insert(0, str(SPEED))
from exchange import BASE, HEADERS, KEY, MESSAGES, MODEL, OPTIONS, PATH, PAYLOAD, TIMEOUT  # noqa: E402 - the suite's
from tables import in_turns, ratio  # noqa: E402

BARE = "nothing attached"


class Dropped(SpanExporter):
    """Takes spans, and sends them nowhere: what a collector costs is not ours."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Done."""
        del spans
        return SpanExportResult.SUCCESS


def sdk() -> dict[str, Any]:
    """Spans in batches, metrics in memory."""
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Dropped()))
    return {"tracer_provider": tracers, "meter_provider": MeterProvider([InMemoryMetricReader()])}


ATTACHED: dict[str, Callable[[Router], object]] = {
    BARE: lambda router: router,
    "nothing attached, again": lambda router: router,
    "Prometheus": prometheus.attach,
    "OpenTelemetry, API alone": otel.attach,
    "OpenTelemetry, SDK": lambda router: otel.attach(router, **sdk()),
}
SCRIPT = "a session, nothing attached"
INSTRUMENTED = "a session, requests' own instrumentation, SDK"


def router_of(port: int) -> Router:
    """An engine of its own for each row."""
    config = holyroute.load(
        env={},
        cwd_file=False,
        providers={"a": {"base_url": f"http://127.0.0.1:{port}{BASE}", "api_key_env": "KEY"}},
        models={MODEL: {"provider": "a", "price": {"input": 0.15, "output": 0.6}}},
    )
    return Router(config, env={"KEY": KEY})


def asking(router: Router) -> Callable[[], object]:
    """One call of the typed door."""
    client = holyroute.Client(router=router)
    return lambda: client.chat(MESSAGES, model=MODEL, **OPTIONS)


def posting(router: Router, port: int) -> Callable[[], object]:
    """One call of a script."""
    session = holyroute.Session(router=router)
    return lambda: session.post(f"http://127.0.0.1:{port}{PATH}", json=PAYLOAD, headers=HEADERS, timeout=TIMEOUT).json()


def block(call: Callable[[], object], calls: int) -> float:
    """CPU microseconds of a call."""
    began = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - began) / calls * 1e6


def measure(port: int, rounds: int, calls: int) -> dict[str, list[float]]:
    """All rows, in turns."""
    doors = {}
    for name, attach in ATTACHED.items():
        router = router_of(port)
        attach(router)
        doors[name] = asking(router)
    doors |= {name: posting(router_of(port), port) for name in (SCRIPT, INSTRUMENTED)}
    instrumentor, options = RequestsInstrumentor(), sdk()

    def run(name: str) -> float:
        if name != INSTRUMENTED:
            return block(doors[name], calls)
        instrumentor.instrument(**options)
        try:
            return block(doors[name], calls)
        finally:
            instrumentor.uninstrument()

    in_turns(doors, 2, run)  # warm
    return in_turns(doors, rounds, run)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=100)
    options = parser.parse_args()
    command = [sys.executable, SPEED / "server.py", "0", "plain"]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        measured = measure(int(server.stdout.readline()), options.rounds, options.calls)
        server.stdin.close()
    for name, values in measured.items():
        base = measured[SCRIPT if name in {SCRIPT, INSTRUMENTED} else BARE]
        extra = statistics.median(value - other for value, other in zip(values, base, strict=True))
        shown = f"{statistics.median(values):5.0f} µs of CPU a call, × {ratio(values, base):.2f} ({extra:+.0f} µs)"
        print(f"{name:46} {shown}")


if __name__ == "__main__":
    main()
