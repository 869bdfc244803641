"""A stream means the same wherever its bytes are split."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from holyroute.core.sse import Decoder, Event

LINE_ENDS = ("\n", "\r\n", "\r")

texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
fields = st.sampled_from(["data", "event", "id", "retry", "", "other"])
lines = st.tuples(fields, st.sampled_from([":", ": ", ""]), texts).map("".join)
streams = st.lists(lines | st.just(""), max_size=12).flatmap(
    lambda written: st.tuples(*(st.sampled_from(LINE_ENDS) for _ in written)).map(
        lambda ends: "".join(line + end for line, end in zip(written, ends, strict=True)).encode()
    )
)
events = st.builds(Event, st.lists(texts, min_size=1).map("\n".join), texts.map(str.strip))


def decoded(*chunks: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.finish()


@given(stream=streams | st.binary(max_size=60), cuts=st.lists(st.integers(0, 80), max_size=6))
def test_splitting_changes_nothing(stream: bytes, cuts: list[int]) -> None:
    """Any bytes in any pieces give the events of the whole."""
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(bounds)]

    assert decoded(*chunks) == decoded(stream)
    assert decoded(*(bytes([byte]) for byte in stream)) == decoded(stream)


@given(written=st.lists(events))
def test_what_is_written_is_read(written: list[Event]) -> None:
    """Events survive the wire."""
    assert decoded(b"".join(event.encode() for event in written)) == written
