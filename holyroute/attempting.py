"""What holds while an attempt is under way: it is not routed once more, and its session shows what it needs.

The attempt runs on the session itself, so that whatever a class keeps in it (counters, locks, caches) stays in one
place. Only its adapters, and at another host its cookies and auth, are others for as long as the attempt lasts, and
only for the code that runs it: other threads see the session as ever.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from requests import PreparedRequest, Session

    PlainSession = Session
else:
    # Requests' own class, also where `requests_cache.install_cache()` has put another one in its place.
    PlainSession = next(cls for cls in requests.sessions.Session.__mro__ if cls.__module__ == "requests.sessions")

_MARK = "_holyroute_attempt"  # the attribute of a request that is an attempt's own
_NAMES = ("adapters", "auth", "cookies")


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """One attempt: its session, and the attributes that the session shows it instead of its own."""

    session: Session
    shown: Mapping[str, Any] = field(default_factory=dict)

    @contextmanager
    def around(self, request: PreparedRequest | None = None) -> Iterator[None]:
        """The attempt is what runs in this block, and wherever the request goes: also to another thread."""
        token = _scope.set(self)
        marked = {} if request is None or hasattr(request, _MARK) else vars(request)
        marked[_MARK] = self
        try:
            yield
        finally:
            _scope.reset(token)
            del marked[_MARK]


_scope: ContextVar[Scope | None] = ContextVar("holyroute_attempt", default=None)


def scope_of(request: object) -> Scope | None:
    """The attempt that a send belongs to: redirects call `send` again, and a thread starts with an empty context."""
    return _scope.get() or getattr(request, _MARK, None)


def show_attempts(cls: type[Session]) -> None:
    """Let the sessions of a class show an attempt what it needs."""
    for name in _NAMES:
        setattr(cls, name, _OfAttempt(cls, name))


def show_attempts_no_more(cls: type[Session]) -> None:
    """Give a class back as it was."""
    for name in _NAMES:
        delattr(cls, name)


class _OfAttempt:
    """An attribute of a session, kept where it always was; a property of the same name in a class below goes first."""

    def __init__(self, owner: Any, name: str) -> None:
        self._owner = owner
        self._name = name

    def _property_below(self, session: Any) -> Any:
        cls: Any = type(session)
        return _property_below(self._owner, cls, self._name)

    def __get__(self, session: Session | None, cls: type[Session]) -> Any:
        if session is None:
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {self._name!r}")
        scope = _scope.get()
        if scope is not None and scope.session is session and self._name in scope.shown:
            return scope.shown[self._name]
        if self._name in vars(session) and self._property_below(session) is None:
            return vars(session)[self._name]
        return getattr(super(self._owner, session), self._name)

    def __set__(self, session: Session, value: Any) -> None:
        below = self._property_below(session)
        if below is None:
            vars(session)[self._name] = value
        else:
            below.__set__(session, value)

    def __delete__(self, session: Session) -> None:
        below = self._property_below(session)
        if below is not None:
            below.__delete__(session)
        elif vars(session).pop(self._name, _MARK) is _MARK:
            raise AttributeError(self._name)


@lru_cache(maxsize=256)
def _property_below(owner: Any, cls: Any, name: str) -> Any:
    """What a class after the owner puts in the place of an attribute, if it is more than a value and not ours."""
    after = [vars(one)[name] for one in cls.__mro__[cls.__mro__.index(owner) + 1 :] if name in vars(one)]
    found = next((one for one in after if not isinstance(one, _OfAttempt)), None)
    return found if hasattr(found, "__set__") else None
