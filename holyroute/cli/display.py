"""Lines that stay, and on a terminal a live part below them; elsewhere a line of progress now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from holyroute.cli.output import console

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import Progress

LINES = 5  # of progress, where there is no terminal
REFRESH = 8  # times per second


class Display:
    """Shows how far a number of calls has come. A context manager, used from one thread.

    Args:
        total: calls to be made.
        err: show on stderr, because stdout is for something else.
    """

    def __init__(self, total: int, *, err: bool = False) -> None:
        self._screen = console(err=err)
        self._total = total
        self._done = 0
        self._facts: tuple[str, ...] = ()
        self._progress: Progress | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._screen.is_terminal and not self._screen.is_dumb_terminal:
            self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str, style: str | None = None) -> None:
        """Print a line that stays."""
        self._screen.print(line, style=style, soft_wrap=not self._screen.is_terminal)

    def advance(self, *facts: str) -> None:
        """One more call is over; the facts stand below the bar, or behind a line of progress."""
        self._done += 1
        self._facts = facts
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=self._done)
        elif self._done * LINES // self._total > (self._done - 1) * LINES // self._total:
            self.say("  " + ", ".join([f"{self._done:,} of {self._total:,} done", *facts]))

    def _begin(self) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        self._progress = Progress(BarColumn(28), MofNCompleteColumn(), TimeElapsedColumn(), console=self._screen)
        self._progress.add_task("", total=self._total)
        self._live = Live(console=self._screen, get_renderable=self._render, refresh_per_second=REFRESH, transient=True)
        self._live.start()

    def _render(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        assert self._progress is not None
        return Group(self._progress, *(Text(fact) for fact in self._facts))
