"""What a batch is told: how many at a time, how long, how much, and what holds for every row."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from typing import Any

from holyroute.exceptions import ConfigurationError

WORKERS = 50  # calls at a time
CHUNK = 32  # rows that another executor is given at a time: a few seconds of work, which is what a dead worker repeats
ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What holds for every row that does not say otherwise; the names are those of `Client.chat`."""

    task: str | None = None
    priority: str | None = None
    model: str | None = None
    models: tuple[str, ...] | None = None
    system: str | None = None  # instructions before the messages of a row that has none
    max_latency: str | None = None
    order: str | None = None
    call_deadline: float | None = None  # seconds for one call; the configuration's
    cache: bool = True
    direct: bool = False  # no substitution
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of the endpoint: temperature, max_tokens …


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a batch is run. Times in seconds, money in USD.

    Attributes:
        max_workers: calls at a time; with an `executor` of processes, those of one chunk.
        executor: any `concurrent.futures.Executor` to run on; ours by default. It is never shut down.
        ordered: results in the order of the rows. What is held back for that counts as in flight.
        dedupe: of equal rows that are under way only one is sent, also where two answers may differ. Rows with
            `temperature=0` or a `seed` are shared in any case.
        max_cost: no row is started that might exceed it; rows whose worst case is unknown are refused.
        deadline: for the whole batch.
        passes: further rounds for rows that failed on every model, if time may mend it.
        chunk: rows that another executor is given at a time.
        max_in_flight: rows that are taken from the input and not yet answered.
        defaults: for every row.
    """

    max_workers: int = WORKERS
    executor: Executor | None = None
    ordered: bool = False
    dedupe: bool = False
    max_cost: Decimal | None = None
    deadline: float | None = None
    passes: int = ROUNDS
    chunk: int | None = None
    max_in_flight: int | None = None
    defaults: Defaults = field(default_factory=Defaults)


_OWN = {one.name for one in fields(Options)} - {"defaults"}
_OF_ROWS = {one.name for one in fields(Defaults)} - {"parameters"}
_NOT_HERE = {
    "stream": "answers of a batch come whole",
    "on_failure": "failures of a batch are values",
    "cancel": "use the cancel() of what batch() returns",
    "messages": "expected in each row",
}


def options_of(given: Mapping[str, Any]) -> Options:
    """The options among some keywords; what is neither ours nor misspelt is a parameter of the endpoint.

    Raises:
        ConfigurationError: one of them is wrong; the message names it.
    """
    for name in given:
        _check_name(name)
    own = {name: _CHECKS[name](name, value) for name, value in given.items() if name in _OWN}
    of_rows = {name: _CHECKS[name](name, value) for name, value in given.items() if name in _OF_ROWS}
    parameters = {name: value for name, value in given.items() if name not in _OWN | _OF_ROWS}
    if own.get("chunk") is not None and own.get("executor") is None:
        raise ConfigurationError("chunk: expected together with executor; our own threads take one row at a time")
    return Options(**own, defaults=Defaults(**of_rows, parameters=parameters))


def _check_name(name: str) -> None:
    if name in _NOT_HERE:
        raise ConfigurationError(f"{name}: {_NOT_HERE[name]}")
    if name not in _OWN | _OF_ROWS and (near := difflib.get_close_matches(name, _OWN | _OF_ROWS, n=1, cutoff=0.85)):
        raise ConfigurationError(f"{name}: unknown; did you mean {near[0]!r}?")


def _wrong(name: str, expected: str, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{name}: expected {expected}, got {value!r}")


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise _wrong(name, "a whole number from 1 on", value)
    return value


def _rounds(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise _wrong(name, "a whole number from 0 on", value)
    return value


def _count_or_none(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "True or False", value)
    return value


def _executor(name: str, value: Any) -> Executor | None:
    if value is not None and not isinstance(value, Executor):
        raise _wrong(name, "a concurrent.futures.Executor", value)
    return value


def _seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise _wrong(name, "seconds above 0", value)
    return float(value)


def _money(name: str, value: Any) -> Decimal | None:
    if value is None:
        return None
    try:
        amount = Decimal(str(value)) if isinstance(value, (str, int, float, Decimal)) else Decimal("NaN")
    except InvalidOperation:
        amount = Decimal("NaN")
    if isinstance(value, bool) or not amount.is_finite() or amount < 0:
        raise _wrong(name, "USD from 0 on", value)
    return amount


def _text(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise _wrong(name, "a text", value)
    return value


def _names(name: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    listed = () if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
    if not listed or not all(isinstance(one, str) and one for one in listed):
        raise _wrong(name, "a list of names", value)
    return listed


_CHECKS: dict[str, Any] = {
    "max_workers": _count,
    "executor": _executor,
    "ordered": _flag,
    "dedupe": _flag,
    "max_cost": _money,
    "deadline": _seconds,
    "passes": _rounds,
    "chunk": _count_or_none,
    "max_in_flight": _count_or_none,
    "task": _text,
    "priority": _text,
    "model": _text,
    "models": _names,
    "system": _text,
    "max_latency": _text,
    "order": _text,
    "call_deadline": _seconds,
    "cache": _flag,
    "direct": _flag,
}
