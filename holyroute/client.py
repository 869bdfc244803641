"""The typed door: ask a question, get a completion."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

from holyroute import context
from holyroute.config.credentials import is_disabled
from holyroute.config.environment import settings_for
from holyroute.config.load import load
from holyroute.config.schema import Config
from holyroute.core.call import Call, Selection
from holyroute.core.completion import Completion
from holyroute.engine.router import Router
from holyroute.exceptions import ConfigurationError
from holyroute.failure import exception_of, without_key
from holyroute.transport.adapter import Adapter, cutting

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from requests import Response

    from holyroute.caching.cache import ResponseCache
    from holyroute.core.cancel import CancelToken
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Target
    from holyroute.cost.ledger import Balance
    from holyroute.engine.attempt import Attempt

OnFailure = Literal["raise", "return"]


class Client:
    """Asks chat models; somebody answers, or you are told why nobody could.

    Safe to share between threads: one client serves a whole thread pool.

    Args:
        config: a TOML file, a loaded Config, or None for the configuration found by the usual rules.
        task: default task of its calls, such as `simple_qa`; the configuration's if left out.
        priority: default priority: `fast`, `normal` or `high`.
        router: an engine to share with others.
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
        **settings: Any,
    ) -> None:
        if router is not None and (config is not None or settings):
            raise ConfigurationError("router: expected an engine or a configuration, got both")
        if router is None:
            router = Router(_overridden(config, settings)) if settings else context.router_for(config)
        self.router = router
        self._selection = Selection(task=task, priority=priority)
        self._adapter = Adapter()

    def ask(self, prompt: str, *, system: str | None = None, **options: Any) -> Completion:
        """Ask one question.

        Args:
            prompt: the question.
            system: instructions that stand before it.
            options: as for `chat`; `temperature` is 0.7 and `max_tokens` 2000 unless given.
        """
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        return self.chat(messages, **{"temperature": 0.7, "max_tokens": 2000, **options})

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
        on_failure: OnFailure = "raise",
        **parameters: Any,
    ) -> Completion:
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
            on_failure: `raise`, or `return` a Completion with `success=False` and the error.
            parameters: everything else goes to the model as it is: `temperature`, `tools`, `seed` …

        Raises:
            InvalidRequest: the first target refused the request itself.
            ContentFiltered: the provider withheld the answer.
            AllTargetsFailed: nobody could answer, or the call was cancelled; DeadlineExceeded if the time ran out.
            ConfigurationError: an unknown model, or no key for any target.
        """
        if parameters.get("stream"):
            raise ValueError(
                "stream: expected a whole answer; for a stream use holyroute.Session.post(..., stream=True)"
            )
        own = Selection(
            task=task or self._selection.task,
            priority=priority or self._selection.priority,
            models=_names(models),
            max_latency=max_latency,
            order=order,
            direct=is_disabled(),
        )
        time = self.router.config.time
        call = Call(
            model=model,
            body={"model": model, "messages": list(messages), **parameters},
            deadline=time.deadline if deadline is None else deadline,
            connect=time.connect,
            read=time.read,
            limit=time.read,
            cancel=cancel,
            cache_control="" if cache else "no-store",
            selection=context.selection(own),
        )
        return self._complete(self.router.send(call, self._transport), on_failure)

    @property
    def cache(self) -> ResponseCache:
        """The answers that are kept in memory: `clear()`, `info()`, `len()`."""
        return self.router.cache

    def balance(self, reference: str | None = None) -> Balance:
        """What was spent, beside what the same tokens would have cost at a reference model.

        Args:
            reference: a model's name; by default the configured one, else the dearest.
        """
        name = reference or self.router.config.routing.reference
        return self.router.ledger.balance(self.router.selector.known(name) if name else self._dearest())

    def _dearest(self) -> Target | None:
        priced = [target for target in self.router.config.models.values() if target.price is not None]
        return max(priced, key=lambda one: one.price.blended if one.price else 0, default=None)

    def close(self) -> None:
        """Close the idle connections; a later call opens new ones."""
        self._adapter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _transport(self, attempt: Attempt) -> Response:
        request = attempt.request()
        settings = settings_for(attempt.target.provider)
        patience = (attempt.connect, attempt.read)
        with cutting(attempt.token, attempt.limit, attempt.note_resend):
            return without_key(attempt, request, lambda: self._adapter.send(request, timeout=patience, **settings))

    def _complete(self, outcome: Outcome, on_failure: OnFailure) -> Completion:
        trace = outcome.trace
        assert trace is not None
        completion = Completion(
            content=_text_of(outcome.answer) if outcome.is_answer else "",
            model=trace.answered_by.name if trace.answered_by else None,
            model_asked=trace.asked,
            latency_ms=trace.seconds * 1_000,
            usage=outcome.usage,
            cost_usd=trace.cost,
            finish_reason=_finish_reason(outcome.answer),
            cached=outcome.cached is not None,
            raw=outcome.answer or {},
            trace=trace,
        )
        if outcome.is_answer:
            return completion
        error = exception_of(outcome)
        if on_failure == "raise":
            raise error
        return replace(completion, success=False, error=error)


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


def _first_choice(answer: Mapping[str, Any] | None) -> Mapping[str, Any]:
    choices = (answer or {}).get("choices") or [{}]
    return choices[0] if isinstance(choices[0], dict) else {}


def _finish_reason(answer: Mapping[str, Any] | None) -> str | None:
    reason = _first_choice(answer).get("finish_reason")
    return reason if isinstance(reason, str) else None


def _text_of(answer: Mapping[str, Any] | None) -> str:
    """The text of the first choice; parts of a structured content are joined."""
    content = (_first_choice(answer).get("message") or {}).get("content")
    if isinstance(content, list):
        parts = (part.get("text", "") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
