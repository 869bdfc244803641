"""The Simulator: a provider on a real loopback socket, with faults to order."""

from __future__ import annotations

import math
import threading
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Self

from holyroute.core.clock import SYSTEM_CLOCK, Clock
from holyroute.simulator import answers, faults, reading
from holyroute.simulator.answers import Answer
from holyroute.simulator.exchange import Exchange, Fault
from holyroute.simulator.faults.named import PREFIX
from holyroute.simulator.journal import Journal, Seen
from holyroute.simulator.profiles import Behaviour, Limit, Profile, Window
from holyroute.simulator.schedule import Schedule
from holyroute.simulator.server import HOST, Server
from holyroute.simulator.wire import Connection, MalformedRequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holyroute.simulator.statistics import ModelStatistics

_OK = faults.ok()
_UNAVAILABLE = faults.status(503)
_MOST_NAMED = 1_000


@dataclass(eq=False)
class Simulator:
    """A provider which answers, fails, stalls and counts as told. A context manager.

    >>> with Simulator() as provider:
    ...     provider.script("gpt-4.1", faults.status(503), faults.ok())
    ...     requests.post(f"{provider.base_url}/chat/completions", json={"model": "gpt-4.1", "messages": [...]})

    A request is answered by the first of these which applies: 404 for an unknown path, 401 for a wrong key, 400 for a
    malformed body, 404 for an unknown model, 429 above a limit, the next scripted step, the standing fault, the fault
    in the model's name (`sim:503`, `sim:drip:0.5`), 503 when the profile says unavailable, the good answer.
    `holyroute.simulator.answers` documents the text and the tokens of the good answer.

    The path says in which form it speaks: OpenAI's below `{base_url}/chat/completions`, Anthropic's below
    `{base_url}/messages`, Azure's below `/openai/deployments/MODEL/chat/completions`.

    Attributes:
        models: name → profile; None answers for any model, at once and free of charge.
        port: 0 lets the system choose; afterwards, the port in use. Only 127.0.0.1 is bound.
        seed: of latencies and unavailability; each model has its own sequence.
        time_scale: factor for the latencies of the profiles and the window of the limits, not for the arguments of
            faults: 0.01 runs a benchmark a hundred times faster.
        api_keys: when given, a request needs one of them (bearer token, `api-key` or `x-api-key` header).
        path: base path of the API.
        limits: name of a model → `Limit`, enforced with 429 and Retry-After.
        keep: how many requests `seen` remembers; 0 for none. Counters are exact in any case.
        clock: stamps requests and moves the limits; one with a `sleep()` of its own, as `FakeClock`, also does all
            waiting.
    """

    models: Mapping[str, Profile] | None = None
    _: KW_ONLY
    port: int = 0
    seed: int = 0
    time_scale: float = 1.0
    api_keys: Collection[str] | None = field(default=None, repr=False)
    path: str = "/v1"
    limits: Mapping[str, Limit] = field(default_factory=dict)
    keep: int = 10_000
    clock: Clock = SYSTEM_CLOCK

    def __post_init__(self) -> None:
        self.path = self.path.rstrip("/")
        self._behaviours = {name: self._behaviour(name) for name in {*(self.models or ()), *self.limits}}
        self._journal = Journal(self.keep)
        self._schedule = Schedule()
        self._named: dict[str, Fault] = {}
        self._lock = threading.Lock()
        self._server = Server(self._serve, self.port, self.clock)

    def start(self) -> Self:
        """Bind the port and listen.

        Raises:
            OSError: when the port is taken.
        """
        self._server.start()
        self.port = self._server.port
        return self

    def close(self) -> None:
        """Close all connections and end all threads, within about a second. May be called twice."""
        self._server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """What a client is configured with: "http://127.0.0.1:PORT/v1"."""
        return f"http://{HOST}:{self.port}{self.path}"

    def script(self, model: str, *steps: faults.Step) -> None:
        """Plan one step for each of the next requests to a model ("*": to any); then it is healthy again.

        A step is a fault, its name ("silent", "429:2") or a status. Steps are added to those still to come.
        """
        self._schedule.script(model, [faults.as_fault(step) for step in steps])

    def always(self, model: str, step: faults.Step) -> None:
        """Answer every request to a model ("*": to any) with this step, until `heal()`."""
        self._schedule.always(model, faults.as_fault(step))

    def heal(self, model: str | None = None) -> None:
        """Forget all steps planned for this name (a model or "*"); None: for all names."""
        self._schedule.heal(model)
        with self._lock:
            if model is None:
                self._named.clear()
            else:
                self._named.pop(model, None)

    @property
    def seen(self) -> list[Seen]:
        """The last requests, in the order of their arrival."""
        return self._journal.seen()

    def attempts(self, model: str | None = None) -> int:
        """How many requests for a model arrived whole; None: all requests, whatever they asked for."""
        return self._journal.attempts(model)

    def wait_for(self, attempts: int, model: str | None = None, timeout: float = 5.0) -> bool:
        """Wait until so many requests arrived, as `attempts()` counts them.

        Returns:
            False when they did not arrive within `timeout` seconds.
        """
        return self._journal.wait_for(attempts, model, timeout)

    def statistics(self) -> dict[str, ModelStatistics]:
        """The figures and the bill of every model that was asked."""
        return self._journal.statistics(self.models or {})

    def unplug(self) -> None:
        """Pull the plug: living connections end, new ones are refused. The port stays reserved for `plug()`.

        When it returns, the calls which were in flight are booked as failures.
        """
        self._server.stop()

    def plug(self) -> None:
        """Listen again, on the same port."""
        self._server.start()

    def drop_connections(self) -> None:
        """End the living connections; new ones are welcome. Calls in flight are booked as failures."""
        self._server.drop()

    def _behaviour(self, model: str) -> Behaviour:
        limit = self.limits.get(model)
        window = Window(limit, 60.0 * self.time_scale) if limit else None
        return Behaviour((self.models or {}).get(model, Profile()), window, f"{self.seed}:{model}")

    def _serve(self, connection: Connection) -> None:
        while connection.open and connection.keep_alive:
            try:
                request = connection.read_request()
            except MalformedRequestError:
                connection.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            if request is None:
                return
            self._answer(Exchange(connection, request, self.clock, self._journal.finish))

    def _answer(self, exchange: Exchange) -> None:
        fault = self._receive(exchange)
        exchange.fault = fault.name
        try:
            fault.play(exchange)
        finally:
            exchange.finish()

    def _receive(self, exchange: Exchange) -> Fault:
        """Count a request and choose how to answer it."""
        request = exchange.request
        form = reading.form_of(request, self.path)
        if form is None:
            self._journal.arrive(exchange)
            return self._other(exchange)
        exchange.form = form
        model = exchange.model = reading.model_of(request)
        self._journal.arrive(exchange)
        if problem := self._unauthorized(exchange) or reading.mistake(request, model, form):
            return problem
        assert model is not None
        self._prepare(exchange, model)
        return self._choose(exchange, model)

    def _other(self, exchange: Exchange) -> Fault:
        if reading.path_of(exchange.request) != f"{self.path}/models" or exchange.request.method != "GET":
            message = f"Invalid URL ({exchange.request.method} {exchange.request.path})"
            return faults.status(404, faults.Error(code="unknown_url", message=message))
        body = answers.model_list(sorted(self.models or ()))
        return self._unauthorized(exchange) or Fault("models", lambda asked: asked.reply(200, body))

    def _unauthorized(self, exchange: Exchange) -> Fault | None:
        if self.api_keys is None or reading.has_key(exchange.request.headers, self.api_keys):
            return None
        return faults.status(401)

    def _prepare(self, exchange: Exchange, model: str) -> None:
        messages = reading.conversation(exchange.request)
        profile = (self.models or {}).get(model)
        tokens = profile.completion_tokens if profile else None
        content = answers.text_for(messages, tokens or 0)
        exchange.answer = Answer(
            id=f"{exchange.form.id_prefix}{exchange.number}",
            created=int(self.clock.wall()),
            model=model,
            content=content,
            prompt_tokens=answers.count_prompt_tokens(messages),
            completion_tokens=len(content.split()) if tokens is None else tokens,
        )

    def _choose(self, exchange: Exchange, model: str) -> Fault:
        if self.models is not None and model not in self.models and not model.startswith(PREFIX):
            return faults.model_not_found()
        behaviour = self._behaviours.get(model)
        available = True
        if behaviour is not None:
            tokens = exchange.answer.prompt_tokens + exchange.answer.completion_tokens
            if (wait := behaviour.admit(tokens, exchange.arrived)) > 0:
                return _over_limit(wait)
            latency, available = behaviour.draw()
            exchange.latency = latency * self.time_scale
        healthy = _OK if available else _UNAVAILABLE
        return self._schedule.take(model) or self._by_name(model) or healthy

    def _by_name(self, model: str) -> Fault | None:
        """The fault in a model's name; remembered, for some faults count."""
        if not model.startswith(PREFIX):
            return None
        with self._lock:
            if model not in self._named:
                if len(self._named) >= _MOST_NAMED:
                    self._named.clear()
                self._named[model] = _fault_of(model)
            return self._named[model]


def _fault_of(model: str) -> Fault:
    try:
        return faults.named(model.removeprefix(PREFIX))
    except ValueError as error:
        return faults.status(404, faults.Error(message=str(error)))


def _over_limit(wait: float) -> Fault:
    """429; the header counts whole seconds, its relative in milliseconds is exact, as at OpenAI."""
    exact = ("retry-after-ms", str(math.ceil(wait * 1000)))
    return faults.status(429, retry_after=math.ceil(wait), headers=[exact])
