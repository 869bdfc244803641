"""Spans and metrics for OpenTelemetry, by its conventions for generative AI. Needs the extra `otel`: the API alone.

    from holyroute.monitoring import otel

    otel.attach(client)                                  # or a Session, or a Router

A call is one span, a child of the caller's current one; each attempt is a span below it, and current while it runs,
so that what instruments requests or urllib3 puts its own below the attempt. Requests to a model are counted at the
attempts alone: operation, model and tokens stand there once, and the span of the call tells how it was routed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.trace import SpanKind, Status, StatusCode
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "spans and metrics need opentelemetry-api; install it with: pip install 'holyroute[otel]'", name=missing.name
    ) from missing

from holyroute._version import __version__
from holyroute.config.credentials import MASK, callers_credential
from holyroute.core import verdicts
from holyroute.core.explain import printable
from holyroute.monitoring import genai
from holyroute.monitoring.labels import Names, outcome, router_of, secrets_of
from holyroute.monitoring.log import SHORTEST_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from holyroute.core.call import Call
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.core.trace import AttemptRecord, Planned, Trace
    from holyroute.core.verdicts import Verdict

_SCOPE = "holyroute"
_SUPPRESS = "suppress_instrumentation"  # what all instrumentations look for in the context
_VERSIONS = 20  # names of models in answers that are told apart, per model asked: they carry dates


def attach(
    door: Any,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    capture_content: bool = False,
) -> Tracing:
    """Trace and measure what happens at a Client, a Session or a Router from now on.

    Doors with the same router are traced together; what was attached to it before is replaced.

    Args:
        door: whose router is traced.
        tracer_provider: makes the spans; by default the global one.
        meter_provider: makes the metrics; by default the global one.
        capture_content: put prompts and answers into the spans of attempts. They may hold what nobody but their owner
            should read, and spans travel far.
    """
    router = router_of(door)
    detach(router)
    tracing = Tracing(tracer_provider, meter_provider)
    tracing.names.add(router.config)
    if capture_content:
        tracing.secrets = partial(secrets_of, router)
    _attached[router] = ref(tracing)
    router.events.follow(tracing)
    return tracing


def detach(door: Any) -> None:
    """Trace no more calls of a door; those under way are traced to their end."""
    router = router_of(door)
    attached = _attached.pop(router, None)
    tracing = None if attached is None else attached()
    if tracing is not None:
        router.events.unfollow(tracing)


class Tracing:
    """Goes along with every call of a router. Safe to share between threads."""

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        self.tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        self.meters = Meters(metrics.get_meter(_SCOPE, __version__, meter_provider))
        self.names = Names(genai.OTHER)
        self.secrets: Callable[[], tuple[str, ...]] | None = None  # known keys, where content is captured

    def __call__(self, call: Call, trace: Trace) -> TracedCall | None:
        """A call begins; not traced where somebody wants nothing to be, as exporters do for their own requests."""
        return None if context.get_value(_SUPPRESS) else TracedCall(self, call, trace)


class Meters:
    """The instruments."""

    def __init__(self, meter: metrics.Meter) -> None:
        def histogram(name: str, unit: str, text: str, bounds: tuple[float, ...]) -> metrics.Histogram:
            return meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=bounds)

        seconds, tokens = genai.SECONDS, genai.TOKENS
        self.duration = histogram("gen_ai.client.operation.duration", "s", "GenAI operation duration.", seconds)
        self.tokens = histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", tokens
        )
        self.first_chunk = histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.", seconds
        )
        self.call_duration = histogram(
            "holyroute.call.duration", "s", "Duration of calls, waits and failed attempts included.", seconds
        )
        self.cost = meter.create_counter("holyroute.cost", "USD", "Spent, as far as price and usage are known.")
        self._versions: dict[str, set[str]] = {}

    def response_model(self, target: Target, model: str) -> str:
        """What an answer calls its model, if it is one of the first few names; a server may say anything."""
        known = self._versions.setdefault(target.key, set())
        if model not in known and len(known) < _VERSIONS:
            known.add(model)
        return model if model in known else genai.OTHER


class TracedCall:
    """One call, its span and that of the attempt under way."""

    def __init__(self, tracing: Tracing, call: Call, trace: Trace) -> None:
        self._tracing = tracing
        self._call = call
        self._trace = trace
        self._outer = context.get_current()
        asked = f" {printable(trace.asked)}" if trace.asked else ""
        self._span = tracing.tracer.start_span(
            f"holyroute{asked}", self._outer, SpanKind.INTERNAL, start_time=_ns(trace.began_wall)
        )
        self._context = _with(self._span, self._outer)
        self._attempt: Span | None = None
        self._attempt_context: Context | None = None
        self._token: Token[Context] | None = None
        self._first_chunk: float | None = None

    def sending(self, attempt: Planned) -> None:
        """The span of an attempt begins, and is the current one."""
        told = genai.of_target(attempt.target) | genai.of_request(self._call)
        told |= self._content(genai.prompt, self._call)
        span = self._tracing.tracer.start_span(
            f"chat {printable(attempt.target.model)}",
            self._context,
            SpanKind.CLIENT,
            told,
            start_time=self._at(attempt.started - self._trace.began),
        )
        self._attempt, self._attempt_context, self._first_chunk = span, _with(span, self._context), None
        self._token = context.attach(self._attempt_context)

    def sent(self, attempt: Planned, seconds: float) -> None:
        """The current span is the caller's again; a stream has begun."""
        if self._token is not None:
            context.detach(self._token)
            self._token = None
        if attempt.reader is not None and attempt.reader.begun:
            self._first_chunk = seconds

    def attempted(self, outcome: Outcome, record: AttemptRecord) -> None:
        """The span of an attempt ends, and its figures are known."""
        span, self._attempt = self._attempt, None
        if span is None:  # it began when nobody could tell us
            return
        try:
            told = self._masked(genai.of_answer(outcome.answer, record.usage))
            self._measure(record, told)
            if span.is_recording():
                said = self._content(genai.words, outcome.answer)
                span.set_attributes({**told, **said, **_facts(record, self._first_chunk)})
                _judge(span, record.verdict)
        finally:
            span.end(self._at(record.started + record.seconds))

    def finished(self, trace: Trace) -> None:
        """The span of the call ends."""
        verdict = trace.verdict
        assert verdict is not None
        labels = {"holyroute.route": self._tracing.names.asked(trace), "holyroute.outcome": outcome(verdict)}
        self._tracing.meters.call_duration.record(trace.seconds, labels, self._context)
        if self._span.is_recording():
            self._span.set_attributes(_story(trace, verdict))
            _judge(self._span, verdict)
        self._span.end(self._at(trace.seconds))

    def broken(self, error: BaseException, seconds: float) -> None:
        """An exception ended the call, and so its spans."""
        name = type(error).__qualname__
        for span in (self._attempt, self._span):
            if span is not None:
                span.set_attribute("error.type", name)
                span.set_status(Status(StatusCode.ERROR, name))
                span.end(self._at(seconds))

    def _measure(self, record: AttemptRecord, told: genai.Attributes) -> None:
        meters, where = self._tracing.meters, self._attempt_context
        labels = self._labels(record, told)
        error = _error_type(record.verdict)
        ended = labels if error is None else {**labels, "error.type": error}
        meters.duration.record(record.seconds, ended, where)
        if self._first_chunk is not None:
            meters.first_chunk.record(self._first_chunk, labels, where)
        for kind in ("input", "output"):
            if (tokens := told.get(f"gen_ai.usage.{kind}_tokens")) is not None:
                meters.tokens.record(tokens, {**labels, "gen_ai.token.type": kind}, where)
        if (cost := record.cost) is not None:
            meters.cost.add(float(cost), labels, where)

    def _labels(self, record: AttemptRecord, told: genai.Attributes) -> genai.Attributes:
        """The target, if it is configured; what scripts ask beyond that is one series per well-known provider."""
        target, provider = record.target, record.target.provider
        if not self._tracing.names.knows(target):
            known = genai.well_known_provider(provider.base_url, provider.dialect)
            return {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": known or genai.OTHER,
                "gen_ai.request.model": genai.OTHER,
            }
        labels = genai.of_target(target)
        model = told.get("gen_ai.response.model")
        if model is not None:
            labels["gen_ai.response.model"] = self._tracing.meters.response_model(target, model)
        return labels

    def _content(self, read: Callable[[Any], genai.Attributes], source: Any) -> genai.Attributes:
        """Prompt or answer, where they are asked for; no key that we know stands in them."""
        secrets = self._tracing.secrets
        return {} if secrets is None else self._masked(read(source), *secrets())

    def _masked(self, told: genai.Attributes, *secrets: str) -> genai.Attributes:
        """Without the key of a script, wherever its provider repeats it; keys of ours are masked before."""
        own = callers_credential(self._call)
        keys = [key for key in (*secrets, own.secret if own is not None else "") if len(key) >= SHORTEST_KEY]
        for key in keys:
            told = {name: _without(key, said) for name, said in told.items()}
        return told

    def _at(self, seconds: float) -> int:
        """Nanoseconds since the epoch, some seconds after the start of the call."""
        return _ns(self._trace.began_wall + seconds)


def _without(key: str, said: Any) -> Any:
    if isinstance(said, list):
        return [_without(key, one) for one in said]
    return said.replace(key, MASK) if isinstance(said, str) else said


def _story(trace: Trace, verdict: Verdict) -> genai.Attributes:
    """How a call was routed."""
    told: genai.Attributes = {
        "error.type": _error_type(verdict),
        "holyroute.outcome": outcome(verdict),
        "holyroute.attempts": len(trace.attempts),
        "holyroute.failovers": trace.failovers,
        "holyroute.asked": trace.asked,
        "holyroute.why": trace.why,
        "holyroute.answered_by": trace.answered_by.name if trace.answered_by is not None else None,
        "holyroute.cached": trace.cached,
        "holyroute.ticket": trace.ticket.id if trace.ticket is not None else None,
        "holyroute.skipped": [str(skip) for skip in trace.skipped] or None,
        "holyroute.cost_usd": float(cost) if (cost := trace.cost) is not None else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _facts(record: AttemptRecord, first_chunk: float | None) -> genai.Attributes:
    """How an attempt went."""
    told: genai.Attributes = {
        "http.response.status_code": record.status,
        "gen_ai.response.time_to_first_chunk": first_chunk,
        "holyroute.attempt.kind": None if record.kind == "normal" else record.kind,
        "error.type": _error_type(record.verdict),
    }
    return {name: value for name, value in told.items() if value is not None}


def _error_type(verdict: Verdict) -> str | None:
    """`error.type`: a row of the error table; None for answers, and for streams that their caller had enough of."""
    return None if verdict.is_answer or verdict.name == verdicts.LEFT.name else outcome(verdict)


def _judge(span: Span, verdict: Verdict) -> None:
    if _error_type(verdict) is not None:
        span.set_status(Status(StatusCode.ERROR, verdict.name))


def _with(span: Span, outer: Context) -> Context:
    return trace.set_span_in_context(span, outer)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


_attached: WeakKeyDictionary[Any, ref[Tracing]] = WeakKeyDictionary()  # its router keeps it
