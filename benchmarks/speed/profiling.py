"""Where the time of a call goes, function by function.

The profiler charges Python functions more than it does C, so that its microseconds are too many; they show what to look
at. Whether it helped, the ratios and the instructions say.
"""

from __future__ import annotations

import cProfile
import pstats
from typing import TYPE_CHECKING, NamedTuple

from tables import table

if TYPE_CHECKING:
    from exchange import Call

TOP = 25
HEAD = ("own µs", "with callees", "times", "function")
WAITING = "<method 'recv_into' of '_socket.socket' objects>"


class Line(NamedTuple):
    """One function, per call: microseconds, how often, where it stands."""

    own: float
    whole: float
    times: float
    function: str

    def row(self) -> tuple[str, ...]:
        """As it is shown."""
        return f"{self.own:.1f}", f"{self.whole:.0f}", f"{self.times:g}", self.function


def profiled(call: Call, calls: int) -> str:
    """The functions with the most time of their own, then those with the most in all."""
    watch = cProfile.Profile()
    watch.enable()
    for _ in range(calls):
        call()
    watch.disable()
    found = pstats.Stats(watch).stats.items()
    lines = [
        Line(own / calls * 1e6, whole / calls * 1e6, times / calls, f"{'/'.join(file.split('/')[-2:])}:{at} {name}")
        for (file, at, name), (_, times, own, whole, _) in found
        if name != WAITING
    ]
    total = f"{sum(line.own for line in lines):.0f} µs a call under the profiler, waiting left out\n"
    by_own = sorted(lines, key=lambda line: -line.own)[:TOP]
    by_whole = sorted(lines, key=lambda line: -line.whole)[: 2 * TOP]
    return "\n".join([total, *(table(HEAD, [line.row() for line in lines]) for lines in (by_own, by_whole))])
