"""The typed door: ask a question, get a completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from urllib3.util.timeout import Timeout

from holyroute import context
from holyroute.caching.key import NO_STORE
from holyroute.completing import CompletionStream, completed
from holyroute.config.credentials import is_disabled
from holyroute.config.environment import settings_for
from holyroute.config.load import load
from holyroute.config.schema import Config
from holyroute.core.call import Call, Selection
from holyroute.engine.router import Router
from holyroute.exceptions import ConfigurationError
from holyroute.failure import exception_of, without_key
from holyroute.queueing import depth, parking_for, worked_queue
from holyroute.transport.adapter import Adapter
from holyroute.transport.stream import timed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from requests import Response

    from holyroute.batch.job import Job
    from holyroute.caching.cache import ResponseCache
    from holyroute.core.cancel import CancelToken
    from holyroute.core.completion import Completion
    from holyroute.core.outcome import Outcome
    from holyroute.core.ticket import Ticket
    from holyroute.cost.ledger import Balance
    from holyroute.deferred.worked import WorkedQueue
    from holyroute.engine.attempt import Attempt
    from holyroute.monitoring.health import Health
    from holyroute.monitoring.sinks import Sink

OnFailure = Literal["raise", "return", "queue"]

_NO_QUEUE = "queue: expected one, as in Client(queue=True) or [queue] enabled = true"


class Client:
    """Asks chat models; somebody answers, or you are told why nobody could.

    Safe to share between threads: one client serves a whole thread pool.

    Args:
        config: a TOML file, a loaded Config, or None for the configuration found by the usual rules.
        task: default task of its calls, such as `simple_qa`; the configuration's if left out.
        priority: default priority: `fast`, `normal` or `high`.
        router: an engine to share with others.
        queue: park what nobody can answer, in this file, or True: in the configured one; False never. By default as
            the configuration says, which says no.
        settings: overrides in the shape of the TOML file, such as `time={"deadline": 30}`.

    Raises:
        ConfigurationError: a setting is wrong; the message names its path.
    """

    def __init__(
        self,
        config: Config | str | os.PathLike[str] | None = None,
        *,
        task: str | None = None,
        priority: str | None = None,
        router: Router | None = None,
        queue: bool | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        if queue is not None and isinstance(queue, Mapping):  # the table of the TOML file, as a keyword
            settings["queue"], queue = queue, None
        if router is not None and (config is not None or settings):
            raise ConfigurationError("router: expected an engine or a configuration, got both")
        if router is None:
            router = Router(_overridden(config, settings)) if settings else context.router_for(config)
        self.router = router
        self._selection = Selection(task=task, priority=priority)
        self._adapter = Adapter()
        self._where = router.config.queue.enabled if queue is None else queue
        self._queue: WorkedQueue | None = None

    @overload
    def ask(
        self, prompt: str, *, system: str | None = None, stream: Literal[True], **options: Any
    ) -> CompletionStream: ...

    @overload
    def ask(
        self, prompt: str, *, system: str | None = None, stream: Literal[False] = False, **options: Any
    ) -> Completion: ...

    def ask(self, prompt: str, *, system: str | None = None, **options: Any) -> Completion | CompletionStream:
        """Ask one question.

        Args:
            prompt: the question.
            system: instructions that stand before it.
            options: as for `chat`; `temperature` is 0.7 and `max_tokens` 2000 unless given.
        """
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        answer: Completion | CompletionStream
        answer = self.chat(messages, **{"temperature": 0.7, "max_tokens": 2000, **options})
        return answer

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[True], **options: Any
    ) -> CompletionStream: ...

    @overload
    def chat(
        self, messages: Sequence[Mapping[str, Any]], *, stream: Literal[False] = False, **options: Any
    ) -> Completion: ...

    def chat(  # noqa: PLR0913 - the parameters of the endpoint, and ours
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        models: Sequence[str] | None = None,
        task: str | None = None,
        priority: str | None = None,
        max_latency: str | None = None,
        order: str | None = None,
        deadline: float | None = None,
        cancel: CancelToken | None = None,
        cache: bool = True,
        stream: bool = False,
        on_failure: OnFailure = "raise",
        **parameters: Any,
    ) -> Completion | CompletionStream:
        """Complete a chat.

        Args:
            messages: as the chat completions endpoint takes them.
            model: the first choice, or a route such as `route:simple_qa/fast`; its failover list follows.
            models: exactly these, in this order.
            task: route by task; with `priority`, where no model is named.
            priority: `fast`, `normal` or `high`.
            max_latency: a latency class (`fast`, `normal`, `slow`); slower targets are asked last.
            order: `listed`, `cheapest`, `fastest` or `weighted`.
            deadline: seconds for the whole call, every attempt and wait included.
            cancel: calls the call off from another thread, within milliseconds.
            cache: False neither takes a kept answer nor keeps this one. Only calls with `temperature=0` or a `seed`,
                and without tools, are kept at all.
            stream: True gives the answer while it is written. Others are asked until its first words have come; from
                there on a broken stream raises `StreamInterrupted`, with what was said until then.
            on_failure: `raise`, or `return` a Completion with `success=False` and the error; `queue` is the same for
                a client that has a queue, where the Completion's `ticket` stands for the answer to come.
            parameters: everything else goes to the model as it is: `temperature`, `tools`, `seed` …

        Raises:
            InvalidRequest: the first target refused the request itself.
            ContentFiltered: the provider withheld the answer.
            AllTargetsFailed: nobody could answer, or the call was cancelled; DeadlineExceeded if the time ran out.
            ConfigurationError: an unknown model, or no key for any target.
        """
        if stream and on_failure != "raise":
            raise ValueError("on_failure: expected 'raise' for a stream, whose failures may come at any time")
        park = parking_for(self.router, self._where)
        if on_failure == "queue" and park is None:
            raise ConfigurationError(_NO_QUEUE)
        call = self._call(
            messages,
            model,
            self._selected(task, priority, _names(models), max_latency, order),
            {"stream": stream, "deadline": deadline, "cancel": cancel, "cache_control": "" if cache else NO_STORE},
            parameters,
        )
        outcome = self.router.send(call, self._transport, park)
        if outcome.is_answer:
            return CompletionStream(outcome) if stream else completed(outcome)
        error = exception_of(outcome)
        if on_failure == "raise":
            raise error
        return replace(completed(outcome), success=False, error=error)

    def submit(  # noqa: PLR0913 - as `chat`
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        models: Sequence[str] | None = None,
        task: str | None = None,
        priority: str | None = None,
        key: str | None = None,
        handler: str | None = None,
        attach: Mapping[str, Any] | None = None,
        **parameters: Any,
    ) -> Ticket:
        """Park a call at once; it is answered when the queue is replayed.

        That is done here after `client.queue.start()`, or in another process, such as `holyroute queue drain`.

        Args:
            messages: as for `chat`, or one question.
            model: as for `chat`; so are `models`, `task` and `priority`.
            models: exactly these, in this order.
            task: route by task.
            priority: `fast`, `normal` or `high`.
            key: idempotency key; what was submitted under it before is not submitted again.
            handler: name under which the replaying process registered what takes the answer.
            attach: JSON of your own for the handler, as its `answer.metadata`.
            parameters: everything else goes to the model as it is.

        Raises:
            ConfigurationError: an unknown model, or this client has no queue.
            QueueFull: its limit or the disk.
            InvalidItem: the call is no JSON or too large; SecretInPayload: a key stands in it.
        """
        from holyroute.deferred.parking import Delivery, Parking

        listed = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        call = self._call(listed, model, self._selected(task, priority, _names(models)), {}, parameters)
        self.router.candidates(call)  # raises what is wrong with the route
        delivery = Delivery(handler=handler, metadata=attach or {}, key=key)
        queue = self.queue
        ticket = queue.put(Parking(queue, self.router, delivery).parked(call))
        self.router.monitor.parked()
        return ticket

    def _selected(
        self,
        task: str | None,
        priority: str | None,
        models: tuple[str, ...] | None,
        max_latency: str | None = None,
        order: str | None = None,
    ) -> Selection:
        """How a call is routed: by its own wishes, then the client's, then those of the block it stands in."""
        own = self._selection
        wanted = _selection(
            task or own.task, priority or own.priority, models, order, max_latency, direct=is_disabled()
        )
        return context.selection(wanted)

    def batch(self, rows: Iterable[Any], **options: Any) -> Job:
        """Many calls as one job: rows in, results out as they come, failures as values.

        Args:
            rows: any iterable of prompts, lists of messages, request dicts (also lines of OpenAI's Batch API, and with
                `task`, `priority`, `models`), or `holyroute.batch.row.Row`s. Taken one by one, when there is room.
            options: `max_workers` (50), `executor`, `ordered`, `dedupe`, `max_cost` (USD), `deadline` (of all),
                `passes`, `chunk`, `max_in_flight`: see `holyroute.batch.options.Options`. For every row: `task`,
                `priority`, `model`, `models`, `system`, `call_deadline`, `max_latency`, `order`, `cache`, and whatever
                else the endpoint takes.

        Raises:
            ConfigurationError: an option is wrong; the message names it.
        """
        from holyroute.batching import start

        return start(self.router, self._transport, self._selection, rows, options)

    def _call(
        self,
        messages: Sequence[Mapping[str, Any]],
        model: str | None,
        selection: Selection,
        terms: dict[str, Any],
        parameters: Mapping[str, Any],
    ) -> Call:
        if terms.get("stream"):
            parameters = {"stream": True, "stream_options": {"include_usage": True}, **parameters}
        time = self.router.config.time
        if terms.get("deadline") is None:
            terms["deadline"] = time.deadline
        return Call(
            model=model,
            body={"model": model, "messages": list(messages), **parameters},
            connect=time.connect,
            read=time.read,
            limit=time.read,
            first_byte=time.first_byte,
            selection=selection,
            **terms,
        )

    @property
    def queue(self) -> WorkedQueue:
        """The parked calls, and who replays them: `start()`, `drain()`, `get(id)`, `dead()`, `stats()` and more.

        Raises:
            ConfigurationError: this client parks nothing.
        """
        with context.SHARED.lock:
            if self._queue is None:
                if not self._where:
                    raise ConfigurationError(_NO_QUEUE)
                self._queue = worked_queue(self.router, self._where, send=self._replay, record=_record)
            return self._queue

    def _replay(self, call: Call, key: str) -> Outcome:
        """One parked call, with its idempotency key on every attempt."""
        return self.router.send(call, partial(self._transport, key=key))

    @property
    def cache(self) -> ResponseCache:
        """The answers that are kept in memory: `clear()`, `info()`, `len()`."""
        return self.router.cache

    def balance(self, reference: str | None = None) -> Balance:
        """What was spent, beside what the same tokens would have cost at a reference model.

        Args:
            reference: a model's name; by default the configured one, else the dearest.
        """
        from holyroute.engine.health import reference_of

        known = self.router.selector.known(reference) if reference else reference_of(self.router)
        return self.router.ledger.balance(known)

    def health(self) -> Health:
        """How everything stands: each model's state, latencies and errors, each route, what was spent, the queue.

        Raises:
            ConfigurationError: `[monitoring] enabled = false`.
        """
        from holyroute.engine.health import health_of

        return health_of(self.router, queue=depth(self.router, self._where))

    def health_report(self) -> str:
        """The same as text for people, at most 80 columns wide."""
        from holyroute.monitoring.report import report

        return report(self.health())

    def on_alert(self, sink: Sink) -> Sink:
        """Have a function called with every alert that begins or is over, in a thread of its own.

        @client.on_alert
        def page(alert): ...       # an `AlertNote`; `alert.ended` is None while it goes on
        """
        self.router.sinks.add(sink, getattr(sink, "__name__", type(sink).__name__))
        return sink

    def close(self) -> None:
        """Stop replaying, and close the idle connections; a later call opens new ones.

        Alerts under way are waited for, `[alerts] flush` seconds at most.
        """
        if self._queue is not None:
            self._queue.stop()
        self._adapter.close()
        self.router.sinks.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _transport(self, attempt: Attempt, key: str | None = None) -> Response:
        request = attempt.request()
        if key is not None:
            request.headers["Idempotency-Key"] = key
        settings = settings_for(attempt.target.provider)
        timeout: Any = _timeout(attempt.patience.connect, attempt.patience.read)
        settings["stream"] = attempt.call.stream
        send = partial(self._adapter.send, request, timeout=timeout, **settings)
        return without_key(attempt, request, lambda: timed(attempt, send))


@lru_cache(maxsize=64)
def _timeout(connect: float, read: float) -> Timeout:
    """What requests makes of the two; most calls have the same."""
    return Timeout(connect=connect, read=read)


@lru_cache(maxsize=256)
def _selection(
    task: str | None,
    priority: str | None,
    models: tuple[str, ...] | None,
    order: str | None,
    max_latency: str | None,
    *,
    direct: bool,
) -> Selection:
    """One record for all calls that want the same."""
    return Selection(task=task, priority=priority, models=models, order=order, max_latency=max_latency, direct=direct)


def _record(outcome: Outcome) -> dict[str, Any]:
    """An answer as it is kept: figures are exact, those of money as text."""
    answer = completed(outcome)
    return {
        "content": answer.content,
        "model": answer.model,
        "model_asked": answer.model_asked,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.usage.prompt_tokens if answer.usage else None,
        "completion_tokens": answer.usage.completion_tokens if answer.usage else None,
        "cost_usd": None if answer.cost_usd is None else str(answer.cost_usd),
        "raw": dict(answer.raw),
    }


def _overridden(config: Config | str | os.PathLike[str] | None, settings: dict[str, Any]) -> Config:
    if isinstance(config, Config):
        raise ConfigurationError(
            "config: expected a file beside keyword settings, got a Config that is already checked"
        )
    return load(config, **settings)


def _names(models: Sequence[str] | None) -> tuple[str, ...] | None:
    if models is None:
        return None
    if isinstance(models, str) or not models:
        raise ConfigurationError(f"models: expected a list of names, got {models!r}")
    return tuple(models)
