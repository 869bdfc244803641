"""What the commands share: how lines, tables, money and failures are shown."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence
    from decimal import Decimal

    from rich.console import Console

    from holyroute.config.credentials import Keyring
    from holyroute.core.target import Provider

FAILED = 1  # exit code
UNKNOWN = "unknown"
NONE = "-"
GAP = 2  # spaces between columns, and before what belongs to the line above

config_option = click.option(
    "--config",
    "path",
    metavar="FILE",
    help="Settings; by default HOLYROUTE_CONFIG, ./holyroute.toml or your own.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Failure(click.ClickException):
    """It did not work: one message on stderr, exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:  # noqa: ARG002 - click's signature
        """Print the message on stderr; further lines are indented."""
        first, *others = self.message.splitlines() or [""]
        show(f"holyroute: {first}", *(f"  {line}" for line in others), err=True)


class Misuse(Failure):
    """Wrong usage or settings: exit code 2."""

    exit_code = 2


def console(*, err: bool = False) -> Console:
    """A console that leaves lines as they are: nothing is cut, wrapped or coloured unasked."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Plain(stderr=err, highlight=False, markup=False, emoji=False, soft_wrap=True)


def show(*lines: str, style: str | None = None, err: bool = False) -> None:
    """Print prose, on a terminal wrapped between words and in a style such as `bold` or `dim`."""
    screen = console(err=err)
    for line in lines:
        screen.print(line, style=style, soft_wrap=not screen.is_terminal)


def show_exactly(*lines: str) -> None:
    """Print lines that somebody may copy: never wrapped."""
    screen = console()
    for line in lines:
        screen.print(line)


def show_json(value: Any) -> None:
    """Print a value as JSON; amounts of money become numbers."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=float))


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, err: bool = False) -> None:
    """Print a table as wide as it needs; where the terminal is narrower, each first cell gets a line of its own."""
    screen = console(err=err)
    head, *body = table(headers, rows, left=left, width=screen.width if screen.is_terminal else None)
    screen.print(head, style="bold")
    for line in body:
        screen.print(line)


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, width: int | None = None
) -> list[str]:
    """The lines of a table: the first `left` columns start at the left, all others end at the right."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines = [_line(cells, widths, left) for cells in (headers, *rows)]
    if width is None or max(map(len, lines)) <= width:
        return lines
    rest = [_line(cells[1:], widths[1:], left - 1) for cells in (headers, *rows)]
    stacked = [line for row, more in zip(rows, rest[1:], strict=True) for line in (row[0], " " * GAP + more)]
    return [" " * GAP + rest[0], *stacked]


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [
        cell.ljust(width) if column < left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return (" " * GAP).join(padded).rstrip()


def wrapped(text: str) -> list[str]:
    """A paragraph in lines that fit the terminal, 80 columns elsewhere."""
    import textwrap

    return textwrap.wrap(text, console().width, break_long_words=False, break_on_hyphens=False)


def usd(amount: Decimal | None, digits: int = 4) -> str:
    """An amount in US dollars."""
    return UNKNOWN if amount is None else f"{amount:,.{digits}f}"


def seconds(value: float | None) -> str:
    """A duration."""
    return NONE if value is None else f"{value:.2f} s"


def share(part: int, whole: int) -> str:
    """A part of a whole in percent."""
    return f"{part / whole:.1%}" if whole else NONE


def key_names(provider: Provider, keyring: Keyring) -> str:
    """The variables that may hold a provider's keys, and whether they do; never a key."""
    missing = keyring.missing(provider)
    names = (f"{name} ({'not set' if name in missing else 'set'})" for name in provider.api_key_env)
    return ", ".join(names) or "no key needed"


def has_key(provider: Provider, keyring: Keyring) -> bool:
    """Whether a provider can be asked: a key is there, or none is needed."""
    return not provider.api_key_env or len(keyring.missing(provider)) < len(provider.api_key_env)


def how_to_get_a_key(providers: Sequence[Provider]) -> str:
    """What to do where no key is there."""
    lines = ["no key is there for any model of this call; set one of these variables:"]
    for provider in dict.fromkeys(providers):
        lines += [f"export {name}=...   # a key for {provider.base_url}" for name in provider.api_key_env]
    lines.append("Keys come from the provider's own site, under that address. `holyroute demo` needs no key.")
    return "\n".join(lines)
