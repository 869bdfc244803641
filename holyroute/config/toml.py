"""How keys and values are written in TOML; the standard library only reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def key(name: str) -> str:
    """A key, quoted only where it must be: `rpm`, `"gpt-4.1"`."""
    return name if _BARE_KEY.fullmatch(name) else string(name)


def string(text: str) -> str:
    """A basic string: JSON's escapes, and DEL, which TOML does not take raw."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def value(item: Any) -> str:
    """A string, boolean, number, list or inline table."""
    if isinstance(item, str):
        return string(item)
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, Mapping):
        pairs = ", ".join(f"{key(name)} = {value(inner)}" for name, inner in item.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(item, list | tuple):
        return f"[{', '.join(map(value, item))}]"
    return str(item)
