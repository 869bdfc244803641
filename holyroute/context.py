"""What holds for a block of code, and the routers that all doors of this process share."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from holyroute.config.load import load
from holyroute.config.schema import Config
from holyroute.core import forks
from holyroute.core.call import Selection
from holyroute.engine.router import Router

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from requests import Response

    from holyroute.core.trace import Trace

_NOTHING = Selection()
_block: ContextVar[Selection] = ContextVar("holyroute_selection", default=_NOTHING)


class _Shared:
    """The routers that all doors share; a child begins with a lock that nobody holds."""

    def __init__(self) -> None:
        self.routers: dict[tuple[Path | None, bool], Router] = {}
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """The thread that may have held the lock stayed behind. One thread may take it twice."""
        self.lock = threading.RLock()


SHARED = _Shared()

TRACE = "_holyroute_trace"  # the attribute of a Response


@contextmanager
def routing(task: str | None = None, priority: str | None = None) -> Iterator[None]:
    """Default task and priority for the calls of a block, in this thread; an inner block adds to the outer one.

    Threads of a pool do not see it: give their Session a `task=` of its own.
    """
    outer = _block.get()
    with _selecting(replace(outer, task=task or outer.task, priority=priority or outer.priority)):
        yield


@contextmanager
def direct() -> Iterator[None]:
    """No substitution in this block: each call goes to its first candidate only, for evaluations and pinning."""
    with _selecting(replace(_block.get(), direct=True)):
        yield


@contextmanager
def _selecting(selection: Selection) -> Iterator[None]:
    token = _block.set(selection)
    try:
        yield
    finally:
        _block.reset(token)


def selection(own: Selection) -> Selection:
    """What a call is to be routed by: its own wishes, then those of the block it stands in."""
    block = _block.get()
    if block is _NOTHING:
        return own
    return replace(
        own,
        task=own.task or block.task,
        priority=own.priority or block.priority,
        direct=own.direct or block.direct,
    )


def trace_of(response: Response | BaseException) -> Trace | None:
    """Everything that happened to the call behind a response, or behind what was raised in its place.

    None where holyroute did not handle it.
    """
    trace: Trace | None = getattr(response, TRACE, None)
    return trace


def router_for(config: Config | str | os.PathLike[str] | None = None, *, cwd_file: bool = True) -> Router:
    """The router of this process for a configuration file; a Config record gets one of its own.

    None is the default router: its configuration is found by the usual rules when it is first needed, with or without
    `./holyroute.toml`; where that makes no difference, there is one router for both.
    """
    if isinstance(config, Config):
        return Router(config)
    path = None if config is None else Path(config).expanduser().resolve()
    key = path, cwd_file or path is not None
    router = SHARED.routers.get(key)
    if router is None:
        with SHARED.lock:
            router = SHARED.routers.get(key)
            if router is None:
                router = SHARED.routers[key] = _router(load(path, cwd_file=cwd_file))
    return router


def _router(config: Config) -> Router:
    return next((one for one in SHARED.routers.values() if one.config == config), None) or Router(config)


def reset() -> None:
    """Forget the routers of this process, with all they learnt. Sessions and Clients that exist keep theirs."""
    with SHARED.lock:
        SHARED.routers.clear()
