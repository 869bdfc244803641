"""Texts with fields that each row fills in: `Translate: {text}`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class MissingFieldError(Exception):
    """A row lacks a field of the template; the message says which."""


@dataclass(frozen=True, slots=True)
class Template:
    """A text with fields in braces; a brace that is meant is doubled.

    Fields are names of columns and nothing else: no attributes, no indexing, no formats.
    """

    text: str
    _pieces: tuple[tuple[str, str | None], ...]  # literal text, then a field

    @classmethod
    def parse(cls, text: str, option: str) -> Template:
        """Read a template.

        Raises:
            ConfigurationError: it is none; `option` says where it came from.
        """
        hint = "a brace that belongs to the text is doubled: {{ }}"
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(f"{option}: {error}; {hint}") from None
        for _, field, form, conversion in parts:
            if field is not None and (not field or form or conversion):
                shown = field + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
                raise ConfigurationError(f"{option}: expected the name of a column, got {{{shown}}}; {hint}")
        return cls(text, tuple((literal, field) for literal, field, _, _ in parts))

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that it wants."""
        return tuple(dict.fromkeys(field for _, field in self._pieces if field is not None))

    def fill(self, columns: Mapping[str, Any]) -> str:
        """The text for a row.

        Raises:
            MissingFieldError: the row lacks a field, or has null there.
        """
        return "".join(
            literal if field is None else literal + _shown(columns, field) for literal, field in self._pieces
        )


def _shown(columns: Mapping[str, Any], field: str) -> str:
    value = columns.get(field)
    if value is None:
        known = ", ".join(map(repr, list(columns)[:10])) or "nothing"
        raise MissingFieldError(f"no field {field!r}, which the template wants; it has {known}")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
