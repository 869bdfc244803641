"""Reads tables key by key: what passes its check is handed on, what does not becomes a problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from holyroute.config.problems import BUILT_IN, Place, Problems, WrongValueError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from holyroute.config.values import Check


class Reader:
    """Merged tables, and who wrote each place in them last."""

    def __init__(self, tables: Mapping[str, Any], origins: Mapping[Place, str]) -> None:
        self.problems = Problems(origins)
        self._tables = tables
        self._origins = origins

    def section(self, name: str) -> Mapping[str, Any]:
        """One section; empty if nobody wrote it."""
        return self.table((name,), self._tables.get(name, {}))

    def table(self, place: Place, value: Any) -> Mapping[str, Any]:
        """A table; empty, with a problem noted, if it is something else."""
        if isinstance(value, Mapping):
            return value
        self.problems.add_wrong(place, WrongValueError("expected a table, got {}", value))
        return {}

    def record(
        self, place: Place, value: Any, checks: Mapping[str, Check], required: Collection[str] = ()
    ) -> dict[str, Any]:
        """The checked fields of one table; wrong ones are left out."""
        table = self.table(place, value)
        if table is value:
            for key in required:
                if key not in table:
                    self.problems.add((*place, key), "missing")
        self.known(place, table, checks, "key")
        return self.checked(place, {key: table[key] for key in table if key in checks}, lambda key: checks[key])

    def checked(self, place: Place, table: Mapping[str, Any], check_of: Callable[[str], Check]) -> dict[str, Any]:
        """Those values of a table that pass the check for their key."""
        result = {}
        for key, value in table.items():
            try:
                result[key] = check_of(key)(value)
            except WrongValueError as error:
                self.problems.add_wrong((*place, key), error)
        return result

    def known(self, place: Place, table: Collection[str], names: Collection[str], kind: str) -> None:
        """Note every key that is none of the known names."""
        for key in table:
            if key not in names:
                self.problems.add((*place, key), unknown(kind, key, names))

    def named(self, place: Place, table: Collection[str], check: Check) -> None:
        """Check the keys themselves, where the owner chooses them."""
        for key in table:
            try:
                check(key)
            except WrongValueError as error:
                self.problems.add_wrong((*place, key), error)

    def is_owned(self, place: Place) -> bool:
        """Whether somebody other than the built-in catalogue wrote a place last."""
        return self._origins.get(place, BUILT_IN) != BUILT_IN
