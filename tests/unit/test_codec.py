"""JSON is the same with orjson and without."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holyroute.core import codec

Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Word(StrEnum):
    ONE = "one"


@pytest.fixture(params=["orjson", "json"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "json":
        monkeypatch.setattr(codec, "orjson", None)


@pytest.mark.parametrize("with_orjson", [True, False])
@given(value=Json)
def test_what_is_written_is_read_back(value: Any, *, with_orjson: bool) -> None:
    """By us and by the standard library, whatever the value."""
    with pytest.MonkeyPatch.context() as patch:
        if not with_orjson:
            patch.setattr(codec, "orjson", None)
        data = codec.dumps(value)

        assert json.loads(data) == value
        assert codec.loads(json.dumps(value)) == value


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": None, "b": -math.inf}])
def test_what_is_no_number_is_refused(value: Any) -> None:
    """The other one, orjson, would write null for it."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        codec.dumps(value)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("value", [datetime.now(UTC), {1, 2}, b"bytes", object()])
def test_what_json_has_no_form_for_is_refused(value: Any) -> None:
    """Also what orjson would have a form for: a script must not depend on what is installed."""
    with pytest.raises(TypeError):
        codec.dumps({"a": value})


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize(
    ("value", "expected"),
    [({1: "a"}, {"1": "a"}), ("\ud800", "\ud800"), (2**70, 2**70), (Word.ONE, "one"), (("a",), ["a"])],
    ids=["a number as a key", "half a pair", "a large number", "a subclass", "a tuple"],
)
def test_odd_values_are_written_as_the_standard_library_does(value: Any, expected: Any) -> None:
    """What orjson does not know is not refused."""
    assert json.loads(codec.dumps(value)) == expected


@pytest.mark.usefixtures("_either")
def test_other_encodings_and_nan_are_read() -> None:
    """As by `Response.json`, which scripts are used to."""
    assert codec.loads('{"a": "ü"}'.encode("utf-16")) == {"a": "ü"}
    assert math.isnan(codec.loads(b"[NaN]")[0])


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("data", [b"", b"<html>", b'{"a": 1', b"\xff\xfe\xff", "{'a': 1}"])
def test_rubbish_is_a_value_error(data: Any) -> None:
    """One exception for all of it."""
    with pytest.raises(ValueError):  # noqa: PT011 - JSON and Unicode errors are both ValueErrors, with many texts
        codec.loads(data)
