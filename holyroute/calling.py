"""How a `Client` calls: keywords become a call, and an attempt becomes a request on a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from urllib3.util.timeout import Timeout

from holyroute import context
from holyroute.config.credentials import is_disabled
from holyroute.config.environment import settings_for
from holyroute.core.call import Call, Selection
from holyroute.exceptions import ConfigurationError
from holyroute.failure import without_key
from holyroute.transport.adapter import Adapter
from holyroute.transport.stream import timed

if TYPE_CHECKING:
    from requests import Response

    from holyroute.core.outcome import Outcome
    from holyroute.engine.attempt import Attempt
    from holyroute.engine.router import Router

_A_MESSAGE = '{"role": "user", "content": "…"}'


class Caller:
    """What all calls of one client share. Safe to share between threads.

    Attributes:
        router: the engine.
        selection: the client's own task and priority.
        adapter: connections.
    """

    def __init__(self, router: Router, selection: Selection) -> None:
        self.router = router
        self.selection = selection
        self.adapter = Adapter()

    def select(
        self,
        task: str | None,
        priority: str | None,
        models: Sequence[str] | None,
        max_latency: str | None = None,
        order: str | None = None,
    ) -> Selection:
        """How a call is routed: by its own wishes, then the client's, then those of the block it stands in.

        Raises:
            ConfigurationError: `models` is no list of names, or something else no name.
        """
        own, names = self.selection, _names(models)
        wishes = task or own.task, priority or own.priority, names, order, max_latency
        try:
            wanted = _selection(*wishes, direct=is_disabled())
        except TypeError:
            raise ConfigurationError(_no_names(*wishes)) from None
        return context.selection(wanted)

    def call(
        self,
        messages: Sequence[Mapping[str, Any]],
        model: str | None,
        selection: Selection,
        terms: dict[str, Any],
        parameters: Mapping[str, Any],
    ) -> Call:
        """One chat completion.

        Args:
            messages: as the endpoint takes them.
            model: as the caller named it.
            selection: how it is routed.
            terms: further fields of the call; without a `deadline`, the configured one holds.
            parameters: further fields of the body.

        Raises:
            TypeError: `messages` is no list of messages.
            ValueError: there are none; or the deadline is no number of seconds.
        """
        _check(messages)
        if terms.get("stream"):
            parameters = {"stream": True, "stream_options": {"include_usage": True}, **parameters}
        time = self.router.config.time
        deadline = terms.get("deadline")
        if deadline is None:
            terms["deadline"] = time.deadline
        elif isinstance(deadline, bool) or not isinstance(deadline, int | float) or deadline != deadline:  # noqa: PLR0124 - NaN
            raise ValueError(f"deadline: expected seconds, got {deadline!r}")
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

    def send(self, attempt: Attempt, key: str | None = None) -> Response:
        """The transport of all attempts; an idempotency key goes along where there is one."""
        request = attempt.request()
        if key is not None:
            request.headers["Idempotency-Key"] = key
        settings = settings_for(attempt.target.provider)
        timeout: Any = _timeout(attempt.patience.connect, attempt.patience.read)
        settings["stream"] = attempt.call.stream
        send = partial(self.adapter.send, request, timeout=timeout, **settings)
        return without_key(attempt, request, lambda: timed(attempt, send))

    def replay(self, call: Call, key: str) -> Outcome:
        """One parked call, with its idempotency key on every attempt."""
        return self.router.send(call, partial(self.send, key=key))


def _check(messages: Any) -> None:
    """A text, or one message, would be taken apart into what no model understands."""
    if type(messages) is list and messages and all(type(one) is dict for one in messages):
        return  # as usual
    if isinstance(messages, str | bytes | Mapping) or not hasattr(messages, "__iter__"):
        expected = f"expected a list such as [{_A_MESSAGE}]"
        raise TypeError(f"messages: {expected}, got {_short(messages)}; ask() takes a text")
    if isinstance(messages, Sequence):
        if not messages:
            raise ValueError("messages: expected at least one")
        for number, message in enumerate(messages):
            if not isinstance(message, Mapping):
                raise TypeError(f"messages[{number}]: expected {_A_MESSAGE}, got {_short(message)}")


def _short(value: Any) -> str:
    """The beginning of a wrong value: prompts are long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _names(models: Sequence[str] | None) -> tuple[str, ...] | None:
    if models is None:
        return None
    if isinstance(models, str) or not models:
        raise ConfigurationError(f"models: expected a list of names, got {models!r}")
    return tuple(models)


def _no_names(*wishes: Any) -> str:
    """What is wrong with wishes that cannot be looked up, such as a list."""
    for name, wish in zip(("task", "priority", "models", "order", "max_latency"), wishes, strict=True):
        if name == "models":
            if any(not isinstance(one, str) for one in wish or ()):
                return f"models: expected a list of names, got {list(wish)!r}"
        elif wish is not None and not isinstance(wish, str):
            return f"{name}: expected a name, got {wish!r}"
    raise AssertionError("every wish is a name")


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
