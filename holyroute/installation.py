"""`install()`: requests itself is routed, for scripts, libraries and sessions that know nothing of holyroute.

`requests.sessions.Session.send` is replaced in place: the class stays the same object, so it does not matter who
imported or made what before. Nothing is loaded or read before the first request.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from holyroute.attempting import PlainSession, show_attempts, show_attempts_no_more
from holyroute.core import forks
from holyroute.core.call import Selection
from holyroute.door import RoutingOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from requests import PreparedRequest, Response, Session

    from holyroute.config.schema import Config
    from holyroute.engine.router import Router

    Send = Callable[..., Response]


def install(
    config: Config | str | os.PathLike[str] | None = None,
    *,
    task: str | None = None,
    priority: str | None = None,
    router: Router | None = None,
) -> None:
    """Route the chat completions of every `requests` session in this process, made before or after.

    Everything else goes through untouched. Installing again changes the settings only.

    Args:
        config: a TOML file, a loaded Config, or None for `HOLYROUTE_CONFIG`, the user's own file, or what is built in.
            `./holyroute.toml` is never read: who runs a script in a folder has not read what lies there.
        task: default task of the calls, such as `simple_qa`.
        priority: default priority: `fast`, `normal` or `high`.
        router: an engine to share with others.
    """
    options = RoutingOptions(config=config, selection=Selection(task=task, priority=priority))
    _PATCH.use(everywhere=_Installed(options, router))


def uninstall() -> None:
    """Give `requests` back as it was. Blocks of `installed()` last until they end."""
    _PATCH.use(everywhere=None)


@contextmanager
def installed(
    config: Config | str | os.PathLike[str] | None = None,
    *,
    task: str | None = None,
    priority: str | None = None,
    router: Router | None = None,
) -> Iterator[None]:
    """As `install()` for a block, in all threads. Blocks nest; the settings of the one that began last count."""
    options = RoutingOptions(config=config, selection=Selection(task=task, priority=priority))
    with _PATCH.block(_Installed(options, router)):
        yield


class _Installed:
    """A door: the settings that plain sessions are routed by."""

    def __init__(self, options: RoutingOptions, router: Router | None) -> None:
        self.routing_options = options
        self._router = router

    @property
    def router(self) -> Router:
        """The engine, shared with all doors that have the same settings."""
        if self._router is None:
            from holyroute import context

            with context.SHARED.lock:
                if self._router is None:
                    self._router = context.router_for(self.routing_options.config, cwd_file=False)
        return self._router


class _Patch:
    """Our `send` in the place of requests' own, for as long as somebody wants it there."""

    def __init__(self) -> None:
        self._everywhere: _Installed | None = None
        self._blocks: tuple[_Installed, ...] = ()
        self._send: Send | None = None
        self.door: _Installed | None = None  # None: our `send` is inert, wherever it may still be called from
        self.after_fork()
        forks.register(self)

    def after_fork(self) -> None:
        """The thread that may have held the lock stayed behind."""
        self._lock = threading.Lock()

    def use(self, *, everywhere: _Installed | None) -> None:
        """Set what holds outside of blocks."""
        with self._lock:
            self._everywhere = everywhere
            self._apply()

    @contextmanager
    def block(self, door: _Installed) -> Iterator[None]:
        """A door for a block."""
        with self._lock:
            self._blocks += (door,)
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._blocks = tuple(one for one in self._blocks if one is not door)
                self._apply()

    def _apply(self) -> None:
        was_on, door = self.door is not None, next(reversed(self._blocks), self._everywhere)
        if door is not None and not was_on:
            show_attempts(PlainSession)
        if door is not None and not _is_called(self._send):
            self._send = PlainSession.send = self._before(PlainSession.send)  # type: ignore[method-assign]
        self.door = door
        if door is None and was_on:
            self._take_out()
            show_attempts_no_more(PlainSession)

    def _take_out(self) -> None:
        """Put back what was there; where somebody has patched over us, our `send` stays, inert."""
        if self._send is not None and vars(PlainSession)["send"] is self._send:
            PlainSession.send = self._send.__wrapped__  # type: ignore[attr-defined,method-assign]

    def _before(self, below: Send) -> Send:
        @wraps(below, updated=())  # marks that others set on their own patch are not ours
        def send(self: Session, request: PreparedRequest, **kwargs: Any) -> Response:
            door = _PATCH.door
            if door is None:
                return below(self, request, **kwargs)
            from holyroute.dropin import Sending

            return Sending(door, self, partial(below, self), kwargs).send(request)

        return send


def _is_called(ours: Send | None) -> bool:
    """Whether our `send` is in its place, or below what others have put around it."""
    send: Any = vars(PlainSession)["send"]
    while send is not None and send is not ours:
        send = getattr(send, "__wrapped__", None)
    return send is not None


_PATCH = _Patch()
