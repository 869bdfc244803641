"""Every store that the contract holds for, on a clock that is moved by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from holyroute.config.schema import QueueSettings
from holyroute.stores.memory import MemoryStore
from holyroute.stores.sqlite import SqliteStore
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holyroute.stores.base import QueueStore


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a queue may lie; its folder is made with it."""
    return tmp_path / "queue" / "queue.db"


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, path: Path, clock: FakeClock) -> Iterator[Callable[..., QueueStore]]:
    """Makes the store under test with some settings."""
    made: list[QueueStore] = []

    def make_one(**settings: float) -> QueueStore:
        chosen = QueueSettings(**settings)  # type: ignore[arg-type]
        made.append(MemoryStore(chosen, clock) if request.param == "memory" else SqliteStore(path, chosen, clock))
        return made[-1]

    yield make_one
    for store in made:
        store.close()


@pytest.fixture
def store(make: Callable[..., QueueStore]) -> QueueStore:
    """The store under test with its defaults."""
    return make()
