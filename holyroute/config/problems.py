"""What is wrong with the settings, in words that name the place, what was expected and what stood there instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from holyroute.config import toml
from holyroute.exceptions import ConfigurationError

Place = tuple[str | int, ...]  # ("routes", "simple_qa", "fast", 1)

BUILT_IN = "built-in"
ENVIRONMENT = "environment"
KEYWORDS = "keywords"

_SECRET_KEY = re.compile(r"key|token|secret|password", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"//.*[@?#]|^\s*(sk-|pk-|rk-|gsk_|hf_|xai-)|^\s*(bearer|basic)\s", re.IGNORECASE | re.DOTALL)
_URL_PLACES = {"base_url", "proxies"}  # where an @ comes after a password
_LONGEST_SHOWN = 80  # characters of a value
_MOST_NAMED = 12  # known names in one message


class WrongValueError(ValueError):
    """One wrong value. `{}` in the message is where the value is shown, `at` where it stands within the one checked."""

    def __init__(self, message: str, value: Any, at: Place = ()) -> None:
        super().__init__(message)
        self.message = message
        self.value = value
        self.at = at


class Problems:
    """Collects every problem, so that one run tells them all.

    `origins` knows which source wrote which place last; a place that nobody wrote belongs to its nearest table.
    """

    def __init__(self, origins: Mapping[Place, str]) -> None:
        self._origins = origins
        self._lines: list[str] = []

    def add(self, place: Place, message: str) -> None:
        """Note a problem at a place."""
        source = self._source(place)
        where = variable(place) if source == ENVIRONMENT else dotted(place)
        self._lines.append(f"{source}: {where}: {message}")

    def add_wrong(self, place: Place, error: WrongValueError) -> None:
        """Note a value that a check refused."""
        place = place + error.at
        self.add(place, error.message.replace("{}", shown(place, error.value), 1))

    def check(self) -> None:
        """Raise what was noted, one line per problem.

        Raises:
            ConfigurationError: If anything was.
        """
        if self._lines:
            raise ConfigurationError("\n".join(self._lines))

    def _source(self, place: Place) -> str:
        for length in range(len(place), 0, -1):
            if place[:length] in self._origins:
                return self._origins[place[:length]]
        return BUILT_IN


def dotted(place: Place) -> str:
    """A place as TOML writes it: `models."gpt-4.1".price.input`, `routes.simple_qa.fast[1]`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{toml.key(part)}" for part in place)
    return "".join(parts).removeprefix(".")


def variable(place: Place) -> str:
    """The environment variable of a scalar setting: `HOLYROUTE_TIME_DEADLINE`."""
    return "_".join(["HOLYROUTE", *map(str, place)]).upper()


def shown(place: Place, value: Any) -> str:
    """A value for a message; never one that may hold a secret."""
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple | set | frozenset):
        return "a list"
    if _may_be_secret(place, str(value)):
        return "a value that is not shown"
    if not isinstance(value, str | int | float | Decimal | None):
        return f"an object of type {type(value).__name__}"
    text = toml.value(value) if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    """`unknown key; did you mean 'price'?`; a kind such as `model {}` leaves room for the value."""
    import difflib

    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names[:_MOST_NAMED])}"
    return f"unknown {kind}; {hint}"


def _may_be_secret(place: Place, text: str) -> bool:
    if any(_SECRET_KEY.search(str(part)) for part in place) or _SECRET_VALUE.search(text):
        return True
    return "@" in text and not _URL_PLACES.isdisjoint(place)
