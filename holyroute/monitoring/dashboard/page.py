"""Hands out the page and its figures, whoever serves them: Flask and the demo ask the same function."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.monitoring.health import Health

PAGE, API, HEALTH = "dashboard", "api", "health"  # paths below wherever they are served

_FILES = {
    PAGE: ("page.html", "text/html; charset=utf-8"),
    f"{PAGE}/page.css": ("page.css", "text/css; charset=utf-8"),
    f"{PAGE}/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
PATHS = (*_FILES, API, HEALTH)

# Nothing but the files above, from the same address; no frame around them, no guessing, nothing kept.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a path gives, to be sent with `HEADERS`."""

    content_type: str
    body: bytes


def reply(path: str, health: Callable[[], Health]) -> Reply | None:
    """What stands under a path; None where nothing does.

    The page holds no figures: it polls `api`, so that a model's name is never part of markup.

    Args:
        path: relative, one of `PATHS`.
        health: the figures of now; called only for `api` and `health`.
    """
    if path in _FILES:
        name, content_type = _FILES[path]
        return Reply(content_type, _file(name))
    if path == API:
        return as_json(health().as_dict())
    if path == HEALTH:
        return as_json(_summary(health()))
    return None


def as_json(facts: Mapping[str, Any]) -> Reply:
    """Facts that every JSON parser reads: what is not finite becomes null."""
    try:
        text = json.dumps(facts, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(facts))
    return Reply("application/json", text.encode())


def _summary(health: Health) -> dict[str, Any]:
    """The short form, for whoever asks often: is it well, and what is not."""
    return {
        "is_healthy": health.is_healthy,
        "at": health.at,
        "since": health.since,
        "pid": health.pid,
        "targets": dict(_states(health)),
        "alerts": [f"{one.subject}: {one.message}" for one in health.alerts if one.ended is None],
    }


def _states(health: Health) -> Iterator[tuple[str, str]]:
    """Each model once; one that several providers have, with its provider: none hides another."""
    known = Counter(one.target for one in health.targets)
    for one in health.targets:
        name = one.target if known[one.target] == 1 else f"{one.target} at {one.provider}"
        yield name, one.state if one.benched is None else one.benched


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@cache
def _file(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()
