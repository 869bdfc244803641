"""The README's section and its picture."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from contestants import CLIENTS
from picture import drawn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from calls import Cost

FOLDER = Path(__file__).parents[1]
README, PICTURE = FOLDER / "README.md", FOLDER / "speed.svg"
BEGIN, END = "<!-- speed: begin -->\n", "<!-- speed: end -->"


def versions(names: Iterable[str]) -> str:
    """Of everything that takes part."""
    packages = dict.fromkeys(CLIENTS[name].package for name in names if CLIENTS[name].package)
    found = [f"{package.replace('_', '-')} {version(package)}" for package in (*packages, "holyroute")]
    return f"CPython {platform.python_version()}, {', '.join(found)}.\n"


def write(sections: Iterable[str], costs: dict[str, Cost]) -> None:
    """Put what was printed between the README's two marks, and draw it."""
    text = README.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    README.write_text(before + "\n" + "\n".join(sections) + "\n" + after)
    if costs:
        PICTURE.write_text(drawn({name: one.ratio for name, one in costs.items()}))
