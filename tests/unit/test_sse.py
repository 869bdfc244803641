"""Server-sent events, as the HTML standard reads them."""

from __future__ import annotations

import pytest

from holyroute.core.sse import Decoder, Event


def decoded(*chunks: bytes) -> list[Event]:
    decoder = Decoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)] + decoder.finish()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [Event("a")]),
        (b"data: a\r\n\r\ndata: b\r\r", [Event("a"), Event("b")]),
        (b"data:a\ndata:  b\n\n", [Event("a\n b")]),
        (b"event: ping\ndata: {}\n\n", [Event("{}", "ping")]),
        (b"event: ping\n\ndata: a\n\n", [Event("a")]),
        (b"event: ping\r\ndata: a\r\ndata: b\r\n\r\n", [Event("a\nb", "ping")]),
        (b": keep-alive\n\ndata: a\n\n", [Event("a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event("a")]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("a")]),
        (b"data\n\n", [Event("")]),
        (b"id: 7\nretry: 10\nfield: x\ndata: a\n\n", [Event("a")]),
        (b"data: a: b\n\n", [Event("a: b")]),
        (b"data: a", [Event("a")]),
        (b"data: a\n", [Event("a")]),
        (b"data: a\n\n\n\ndata: b", [Event("a"), Event("b")]),
        (b"data: \xff\n\n", [Event("\ufffd")]),
        (b"", []),
        (b"\n\n", []),
    ],
)
def test_a_stream_is_cut_into_events(stream: bytes, events: list[Event]) -> None:
    """Every line end, several data lines, comments, a byte order mark, an end without its blank line."""
    assert decoded(stream) == events
    assert decoded(*(piece for at in range(len(stream)) for piece in (stream[at : at + 1], b""))) == events


def test_an_event_comes_as_soon_as_its_blank_line() -> None:
    """A reader need not wait for what is behind a carriage return to see that an event is complete."""
    decoder = Decoder()

    assert decoder.feed(b"data: a\r\n\r") == [Event("a")]
    assert decoder.feed(b"\ndata: b\n\n") == [Event("b")]
    assert decoder.finish() == []


@pytest.mark.parametrize(
    ("event", "stream"),
    [
        (Event("{}"), b"data: {}\n\n"),
        (Event("{}", "ping"), b"event: ping\ndata: {}\n\n"),
        (Event("a\nb"), b"data: a\ndata: b\n\n"),
        (Event("\ud83d"), b"data: ?\n\n"),
    ],
)
def test_events_are_written(event: Event, stream: bytes) -> None:
    """A name where there is one, a line per line of data, always UTF-8."""
    assert event.encode() == stream
