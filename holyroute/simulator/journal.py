"""What a provider saw: every request, and exact counters per model."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holyroute.simulator.profiles import Profile
from holyroute.simulator.statistics import ModelStatistics, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.simulator.exchange import Exchange
    from holyroute.simulator.wire import Headers


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the provider saw it.

    Attributes:
        number: counts the requests of one simulator from 1.
        model: the model asked for; None when the request named none.
        path: with its query.
        json: the body as JSON; None when it is none.
        arrived, finished: monotonic seconds of the simulator's clock; `finished` is None while it is being answered.
        status: sent so far; None when no status line was sent.
        fault: name of the way it was answered, "ok" for a good answer.
        connection: counts the connections of one simulator from 1.
        prompt_tokens, completion_tokens: of the answer as generated, whether or not it arrived.
        billed: whether these tokens are on the bill.
    """

    number: int
    model: str | None
    method: str
    path: str
    headers: Headers
    body: bytes
    json: Any
    arrived: float
    finished: float | None
    status: int | None
    fault: str
    connection: int
    prompt_tokens: int
    completion_tokens: int
    billed: bool


class Journal:
    """Keeps the last `keep` requests; the counters forget nothing. Thread-safe."""

    def __init__(self, keep: int) -> None:
        self._lock = threading.Condition()
        self._last: deque[Exchange] = deque(maxlen=keep)
        self._attempts: Counter[str] = Counter()
        self._tallies: dict[str, Tally] = {}
        self._number = 0

    def arrive(self, exchange: Exchange) -> None:
        """Number a request and count it."""
        with self._lock:
            self._number += 1
            exchange.number = self._number
            self._last.append(exchange)
            if exchange.model is not None:
                self._attempts[exchange.model] += 1
                if exchange.model not in self._tallies:
                    self._tallies[exchange.model] = Tally()
            self._lock.notify_all()

    def finish(self, exchange: Exchange) -> None:
        """Book how a request ended."""
        if exchange.model is not None:
            with self._lock:
                self._tallies[exchange.model].add(exchange)

    def attempts(self, model: str | None) -> int:
        """Requests that arrived for a model; None: all, also those which named no model."""
        with self._lock:
            return self._count(model)

    def wait_for(self, attempts: int, model: str | None, timeout: float) -> bool:
        """Wait until so many requests arrived; False when they did not in time."""
        with self._lock:
            return self._lock.wait_for(lambda: self._count(model) >= attempts, timeout)

    def seen(self) -> list[Seen]:
        """The last requests in the order of their arrival."""
        with self._lock:
            return [_seen(exchange) for exchange in self._last]

    def statistics(self, profiles: Mapping[str, Profile]) -> dict[str, ModelStatistics]:
        """The figures of every model that was asked."""
        nothing = Profile()
        with self._lock:
            return {
                model: tally.statistics(self._attempts[model], profiles.get(model, nothing))
                for model, tally in self._tallies.items()
            }

    def _count(self, model: str | None) -> int:
        return self._number if model is None else self._attempts[model]


def _seen(exchange: Exchange) -> Seen:
    request, answer = exchange.request, exchange.answer
    return Seen(
        number=exchange.number,
        model=exchange.model,
        method=request.method,
        path=request.path,
        headers=request.headers,
        body=request.body,
        json=request.json,
        arrived=exchange.arrived,
        finished=exchange.finished,
        status=exchange.status,
        fault=exchange.fault,
        connection=exchange.connection.number,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        billed=exchange.finished is not None and (exchange.complete or exchange.billed),
    )
