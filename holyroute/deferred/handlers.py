"""Who takes the answers of parked calls: functions, by the name that stands in the call."""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from holyroute.deferred.parked import check_name
from holyroute.exceptions import InvalidItem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    Handler = Callable[["Delivered"], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The answer to a parked call, for the handler that it named. It is recorded already."""

    id: str  # of the ticket
    key: str | None
    result: Mapping[str, Any] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)


OF_PROCESS: dict[str, Handler] = {}  # those that every queue which is replayed in this process knows


def of_queue() -> ChainMap[str, Handler]:
    """The handlers of one queue: its own, which go first, and those of the process."""
    return ChainMap({}, OF_PROCESS)


def register(handlers: MutableMapping[str, Handler], name: str) -> Callable[[Handler], Handler]:
    """A decorator that adds a function under a name; the latest one counts.

    Raises:
        InvalidItem: It is no name, or was forgotten: `@handler` instead of `@handler("save")`.
    """
    if callable(name):
        raise InvalidItem('handler: expected a name, as in @handler("save")')
    check_name("handler", name, optional=False)

    def add(function: Handler) -> Handler:
        handlers[name] = function
        return function

    return add
