"""What must start afresh in a forked child: locks that another thread held, pools and threads that stayed behind."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewed(Protocol):
    """Something that can start afresh."""

    def after_fork(self) -> None:
        """Forget the parent; called in the child before anything else runs."""


_owners: WeakSet[Renewed] = WeakSet()


def register(owner: Renewed) -> None:
    """Renew something in every child that is forked from now on, for as long as it lives."""
    _owners.add(owner)


def _renew() -> None:
    for owner in list(_owners):
        owner.after_fork()


os.register_at_fork(after_in_child=_renew)
