"""How far a batch is: a live display on a terminal, elsewhere a line every half minute."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from holyroute.cli.output import console, usd

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

    from holyroute.cli.batch_run import Snapshot
    from holyroute.core.clock import Clock

EVERY = 30.0  # seconds between two lines, where there is no terminal
WINDOW = 60.0  # seconds that a rate is taken over
_BAR = 28
_HOUR, _MINUTE = 3_600, 60


class BatchDisplay:
    """Shows a run on stderr. A context manager, used from one thread.

    Args:
        clock: when to print a line, and for rates.
        total: rows to be done by this run; None if unknown.
        before: USD spent by earlier runs.
    """

    def __init__(self, clock: Clock, total: int | None, before: Decimal = Decimal(0)) -> None:
        self._screen = console(err=True)
        self._clock = clock
        self._total = total
        self._before = before
        self._last = clock.now()
        self._points: deque[tuple[float, int]] = deque()
        self._snapshot: Snapshot | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._screen.is_terminal and not self._screen.is_dumb_terminal:
            from rich.live import Live

            self._live = Live(console=self._screen, get_renderable=self._render, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._screen.print(line, soft_wrap=not self._screen.is_terminal)

    def show(self, snapshot: Snapshot) -> None:
        """Refresh, or print a line if the last one is long ago."""
        now = self._clock.now()
        self._snapshot = snapshot
        self._points.append((now, snapshot.done))
        while self._points[0][0] < now - WINDOW:
            self._points.popleft()
        if self._live is not None:
            self._live.refresh()
        elif now - self._last >= EVERY:
            self._last = now
            self.say(", ".join([self._how_far(snapshot), *self._facts(snapshot)]))

    @property
    def _rate(self) -> float:
        """Rows per second of late."""
        (then, before), (now, done) = self._points[0], self._points[-1]
        return (done - before) / (now - then) if now > then else 0.0

    def _how_far(self, snapshot: Snapshot) -> str:
        if self._total is None:
            return f"{snapshot.done:,} rows done"
        share = f" ({snapshot.done / self._total:.0%})" if self._total else ""
        return f"{snapshot.done:,} of {self._total:,} rows done{share}"

    def _facts(self, snapshot: Snapshot) -> list[str]:
        facts = [f"{self._rate:,.1f} rows/s"]
        left = None if self._total is None else self._total - snapshot.done
        if left and self._rate:
            facts.append(f"about {duration(left / self._rate)} left")
        facts.append(self._money(snapshot, left))
        if snapshot.failed:
            facts.append(f"{snapshot.failed:,} failed")
        if snapshot.waiting:
            facts.append(f"{snapshot.waiting:,} put off")
        return facts

    def _money(self, snapshot: Snapshot, left: int | None) -> str:
        spent = self._before + snapshot.spent
        if not left or not snapshot.done:
            return f"{usd(spent)} USD"
        return f"{usd(spent)} USD, {usd(spent + snapshot.spent / snapshot.done * left)} when done"

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        snapshot = self._snapshot
        if snapshot is None:
            return Group()
        bar = ProgressBar(total=self._total or None, completed=snapshot.done, width=_BAR, pulse=not self._total)
        first = Table.grid(padding=(0, 1))
        first.add_row(bar, Text(self._how_far(snapshot)))
        lines = [", ".join(self._facts(snapshot)), *self._tallies(snapshot)]
        return Group(first, *(Text(line, no_wrap=False, overflow="fold") for line in lines))

    def _tallies(self, snapshot: Snapshot) -> list[str]:
        minutes = snapshot.seconds / _MINUTE
        models = [f"{name}: {count:,} ({count / minutes:,.0f}/min)" for name, count in largest(snapshot.models)]
        causes = [f"{cause}: {count:,}" for cause, count in largest(snapshot.failures)]
        shown = [f"answered by {', '.join(models)}"] if models and minutes else []
        return [*shown, f"failed: {', '.join(causes)}"] if causes else shown


def largest(counts: object) -> list[tuple[str, int]]:
    """Names and counts, the largest first."""
    assert isinstance(counts, dict)
    return sorted(counts.items(), key=lambda one: -one[1])


def duration(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 3 h 05 min."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / _MINUTE), _MINUTE)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"
