"""The typed door: ask a question, get a completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args, overload

from holyroute import context
from holyroute.caching.key import NO_STORE
from holyroute.calling import Caller
from holyroute.completing import CompletionStream, completed, recorded
from holyroute.config.load import load
from holyroute.config.schema import Config
from holyroute.core.call import Selection
from holyroute.engine.router import Router
from holyroute.exceptions import ConfigurationError
from holyroute.failure import exception_of
from holyroute.queueing import depth, parking_for, worked_queue

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from holyroute.batch.job import Job
    from holyroute.caching.cache import ResponseCache
    from holyroute.core.cancel import CancelToken
    from holyroute.core.completion import Completion
    from holyroute.core.ticket import Ticket
    from holyroute.cost.ledger import Balance
    from holyroute.deferred.worked import WorkedQueue
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
        self._caller = Caller(router, Selection(task=task, priority=priority))
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
        if on_failure not in get_args(OnFailure):
            raise ValueError(f"on_failure: expected one of {', '.join(get_args(OnFailure))}, got {on_failure!r}")
        if stream and on_failure != "raise":
            raise ValueError("on_failure: expected 'raise' for a stream, whose failures may come at any time")
        park = parking_for(self.router, self._where)
        if on_failure == "queue" and park is None:
            raise ConfigurationError(_NO_QUEUE)
        call = self._caller.call(
            messages,
            model,
            self._caller.select(task, priority, models, max_latency, order),
            {"stream": stream, "deadline": deadline, "cancel": cancel, "cache_control": "" if cache else NO_STORE},
            parameters,
        )
        outcome = self.router.send(call, self._caller.send, park)
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
        call = self._caller.call(listed, model, self._caller.select(task, priority, models), {}, parameters)
        self.router.candidates(call)  # raises what is wrong with the route
        delivery = Delivery(handler=handler, metadata=attach or {}, key=key)
        queue = self.queue
        ticket = queue.put(Parking(queue, self.router, delivery).parked(call))
        self.router.monitor.parked()
        return ticket

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

        return start(self.router, self._caller.send, self._caller.selection, rows, options)

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
                self._queue = worked_queue(self.router, self._where, send=self._caller.replay, record=recorded)
            return self._queue

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
        self._caller.adapter.close()
        self.router.sinks.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _overridden(config: Config | str | os.PathLike[str] | None, settings: dict[str, Any]) -> Config:
    if isinstance(config, Config):
        raise ConfigurationError(
            "config: expected a file beside keyword settings, got a Config that is already checked"
        )
    return load(config, **settings)
