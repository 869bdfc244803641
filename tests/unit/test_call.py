"""What a call says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from holyroute.core.call import Call, Selection


def call(model: str | None = None, body: Any = None, **selection: Any) -> Call:
    return Call(model=model, body=body or {}, deadline=1, connect=1, read=1, selection=Selection(**selection))


@pytest.mark.parametrize(
    ("model", "selection", "expected"),
    [
        ("m", {}, "m"),
        ("m", {"task": "t"}, "m"),
        ("m", {"models": ("a", "b")}, "a"),
        (None, {}, None),
        (None, {"task": "t"}, "route:t"),
        (None, {"task": "t", "priority": "fast"}, "route:t/fast"),
        ("route:t/fast", {"task": "other"}, "route:t/fast"),
    ],
)
def test_what_was_asked_for(model: str | None, selection: Any, expected: str | None) -> None:
    """The model, the first of several, the route, or nothing."""
    assert call(model, **selection).asked == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (None, None),
        ("m", None),
        ("my-route:x", None),
        ("route:", ("", "")),
        ("route:t", ("t", "")),
        ("route:t/p", ("t", "p")),
        ("route:t/p/q", ("t", "p/q")),
    ],
)
def test_a_virtual_name_has_two_parts(model: str | None, expected: tuple[str, str] | None) -> None:
    """Task and priority, either of which may be left out."""
    assert call(model).route_name == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, set()),
        ({"tools": [], "functions": None, "stream": False, "response_format": {"type": "text"}}, set()),
        ({"tools": [{}]}, {"tools"}),
        ({"functions": [{}]}, {"tools"}),
        ({"stream": True}, {"stream"}),
        ({"response_format": {"type": "json_object"}}, {"json_object"}),
        ({"response_format": {"type": "json_schema"}}, {"json_schema"}),
        ({"response_format": "json"}, set()),
        ({"messages": [{"content": "text"}, {"content": [{"type": "text"}]}, "odd", {"content": ["odd"]}]}, set()),
        ({"messages": [{"content": [{"type": "text"}, {"type": "image_url"}]}]}, {"vision"}),
    ],
)
def test_what_a_target_must_be_able_to_do(body: Any, expected: set[str]) -> None:
    """Read from the body; odd bodies need nothing."""
    assert call(body=body).needs == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": 5.0}, None),
    ],
)
def test_the_length_limit(body: Any, expected: int | None) -> None:
    """A whole number under either name."""
    assert call(body=body).max_tokens == expected


def test_a_call_shows_no_prompt() -> None:
    """Bodies are private: they do not enter logs by way of a repr."""
    assert "secret" not in repr(call(body={"messages": [{"content": "secret"}]}))
