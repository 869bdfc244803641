"""What holds for all tests: nothing of the developer's own settings gets in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from holyroute import context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No variables, no user file, no `./holyroute.toml`, no proxies, no router of another test."""
    for name in os.environ:
        if name.startswith(("HOLYROUTE_", "HOLYSHEEP_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    context.reset()
    yield home
    context.reset()
