"""Each process on a core of its own, so that the server does not slow its client down."""

from __future__ import annotations

import os


def pin(core: int) -> None:
    """Keep this process on the first (0) or the last (1) core that it may use."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-core]})
