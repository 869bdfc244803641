"""Which calls may be cached, and which of them are the same."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest

from holyroute.caching.key import directives, is_deterministic, key_of
from holyroute.core.call import Call, Selection

MESSAGES = [{"role": "user", "content": "hello"}]
CALL = Call(model="m", body={"messages": MESSAGES, "temperature": 0}, deadline=1, connect=1, read=1)


def with_body(**body: Any) -> Call:
    return replace(CALL, body={"messages": MESSAGES, **body})


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": -0.0}, True),
        ({"temperature": 0, "tools": [], "stream": False, "functions": None}, True),
        ({"seed": 7}, True),
        ({"seed": 0, "temperature": 0.7}, True),
        ({}, False),
        ({"temperature": 0.7}, False),
        ({"temperature": False}, False),
        ({"temperature": "0"}, False),
        ({"temperature": None, "seed": None}, False),
        ({"temperature": math.nan}, False),
        ({"temperature": 0, "tools": [{"type": "function"}]}, False),
        ({"temperature": 0, "functions": [{"name": "f"}]}, False),
        ({"temperature": 0, "web_search_options": {"user_location": None}}, False),
        ({"temperature": 0, "data_sources": [{"type": "azure_search"}]}, False),
        ({"temperature": 0, "mcp_servers": [{"type": "url"}]}, False),
        ({"temperature": 0, "plugins": [{"id": "web"}]}, False),
        ({"temperature": 0, "search_parameters": {"mode": "on"}}, False),
        ({"temperature": 0, "stream": True}, False),
    ],
)
def test_what_is_deterministic(parameters: dict[str, Any], expected: bool) -> None:
    """Temperature 0 or a seed; whatever looks at the world, or comes as a stream, is not."""
    assert is_deterministic({"messages": MESSAGES, **parameters}) is expected


@pytest.mark.parametrize(
    "selection",
    [
        Selection(task="t"),
        Selection(priority="t"),
        Selection(models=("t",)),
        Selection(models=("t", "u")),
        Selection(models=("u", "t")),
        Selection(order="t"),
        Selection(max_latency="t"),
        Selection(direct=True),
    ],
)
def test_the_route_is_part_of_the_key(selection: Selection) -> None:
    """Who may answer changes the answer."""
    assert key_of(replace(CALL, selection=selection)) != key_of(CALL)


def test_every_field_of_a_selection_is_part_of_the_key() -> None:
    """A new way to choose targets cannot be forgotten in the key."""
    ways: list[Any] = [replace(Selection(), **{field.name: ("x",)}) for field in fields(Selection)]

    assert len({key_of(replace(CALL, selection=way)) for way in ways} | {key_of(CALL)}) == len(ways) + 1


def test_model_and_scope_are_part_of_the_key() -> None:
    """What was asked by somebody else, or of another model, is another call."""
    calls = [CALL, replace(CALL, model=None), replace(CALL, model="n"), replace(CALL, scope="s")]

    assert len(set(map(key_of, calls))) == 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"n": 1}, {"n": 1.0}),
        ({"n": 1}, {"n": True}),
        ({"n": 0}, {"n": False}),
        ({"n": 0}, {"n": None}),
        ({"n": 1}, {"n": "1"}),
        ({"n": None}, {}),
        ({"n": []}, {"n": {}}),
        ({"n": "é"}, {"n": "e\u0301"}),
        ({"n": "\ud800"}, {"n": "?"}),
        ({"n": 2**53}, {"n": 2**53 + 1}),
        ({"n": 0.1}, {"n": 0.1 + 1e-17 * 2}),
        ({"n": ["a", "b"]}, {"n": ["a,b"]}),
        ({"n": ["a", "b"]}, {"n": ["b", "a"]}),
        ({"temperature": 0}, {"temperature": 0, "seed": 1}),
        ({"messages": []}, {"messages": [{}]}),
        ({"messages": MESSAGES}, {"messages": MESSAGES * 2}),
        ({"messages": [{"content": "a"}, {"content": "b"}]}, {"messages": [{"content": "b"}, {"content": "a"}]}),
        ({"messages": [{"content": "a "}]}, {"messages": [{"content": "a"}]}),
        ({"response_format": {"a": {}, "b": {}}}, {"response_format": {"b": {}, "a": {}}}),
    ],
)
def test_what_differs_has_another_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    """No value passes for another: types, order and white space count."""
    keys = {key_of(with_body(**one)), key_of(with_body(**other))}

    assert (len(keys), None in keys) == ((1, False) if one == other and repr(one) == repr(other) else (2, False))


def test_the_same_in_other_words_has_the_same_key() -> None:
    """The order of parameters and of a message's fields means nothing, nor whether a list is a tuple."""
    one = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "stop": ["a"]}
    other = {"stop": ("a",), "temperature": 0, "messages": ({"content": "hello", "role": "user"},)}

    assert key_of(replace(CALL, body=one)) == key_of(replace(CALL, body=other))


def test_time_is_no_part_of_the_key() -> None:
    """How long a caller waits changes no answer."""
    patient = replace(CALL, deadline=9, connect=9, read=9, limit=9, background=True, cache_control="no-cache")

    assert key_of(patient) == key_of(CALL)


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {"a"}, b"a", object(), 1j, {1: "a", "1": "b"}, CIRCLE],
    ids=lambda value: str(value)[:9],
)
def test_what_is_no_json_has_no_key(value: Any) -> None:
    """It is left to the call itself to say so."""
    assert key_of(with_body(messages=[{"content": value}])) is None


@pytest.mark.parametrize("value", [math.nan, {"a"}, CIRCLE], ids=lambda value: str(value)[:9])
def test_a_parameter_that_is_no_json_has_no_key(value: Any) -> None:
    """As with messages."""
    assert key_of(with_body(seed=value)) is None


def test_a_key_tells_nothing() -> None:
    """It is a hash: 16 bytes, whatever the question."""
    assert [len(key_of(call) or b"") for call in (CALL, with_body(prompt="x" * 9_999))] == [16, 16]


@pytest.mark.parametrize(
    ("header", "expected"),
    [("", set()), ("no-store", {"no-store"}), ("Max-Age=0 , NO-CACHE", {"max-age=0", "no-cache"})],
)
def test_directives(header: str, expected: set[str]) -> None:
    """In any case, with spaces or without."""
    assert directives(header) == expected
