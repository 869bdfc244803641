"""Which heads are plain: they take the short way, and everything else does not."""

from __future__ import annotations

from typing import Any

import pytest

from holyroute.transport.wire import CHUNKED, head_of_answer, rest_of_request

PLAIN: dict[str, Any] = {
    "User-Agent": "test",
    "Accept-Encoding": "gzip",
    "Authorization": "Bearer test-key-a",
    "Content-Length": "2",
}


@pytest.mark.parametrize("body", [b"{}", "{}"])
def test_a_plain_request_is_written_as_it_stands(body: bytes | str) -> None:
    """Headers in their order, an empty line, the body."""
    rest = rest_of_request(PLAIN, body)

    assert rest == (
        b"User-Agent: test\r\nAccept-Encoding: gzip\r\nAuthorization: Bearer test-key-a\r\nContent-Length: 2\r\n\r\n{}",
        False,
        True,
    )


def test_a_request_may_have_no_body_and_its_own_host() -> None:
    """A POST without a body has a length too."""
    rest = rest_of_request({"Host": "h", "User-Agent": "gr\xfc\xdf", "Content-Length": "0"}, None)

    assert rest == (b"Host: h\r\nUser-Agent: gr\xfc\xdf\r\nContent-Length: 0\r\n\r\n", True, False)


@pytest.mark.parametrize(
    "more",
    [
        {"X": "a\r\nInjected: yes"},
        {"X": "a\nInjected: yes"},
        {"X": "a\rb"},
        {"X": "a\r\n folded"},
        {"X\r\nInjected": "yes"},
        {"X: a": "b"},
        {":X": "a"},
        {"X:Y": "a"},
        {"X": b"a", "Y": "a\r\nInjected: yes"},
        {"": "a"},
        {"X Y": "a"},
        {"X\x00": "a"},
        {"\xfc": "a"},
        {b"X": "a"},
        {"X": b"a"},
        {"X": 1},
        {"X": None},
        {"X": "€"},
        {"Expect": "100-continue"},
        {"transfer-encoding": "chunked"},
        {"Accept-Encoding": "@@@SKIP_HEADER@@@"},
    ],
)
def test_an_unusual_header_takes_the_long_way(more: dict[Any, Any]) -> None:
    """urllib3 and http.client refuse it, fold it or know what to do."""
    assert rest_of_request({**PLAIN, **more}, b"{}") is None


@pytest.mark.parametrize("missing", ["User-Agent", "Content-Length"])
def test_what_urllib3_would_add_takes_the_long_way(missing: str) -> None:
    """It knows how."""
    assert rest_of_request({name: value for name, value in PLAIN.items() if name != missing}, b"{}") is None


@pytest.mark.parametrize("body", [bytearray(b"{}"), [b"{}"], iter([b"{}"]), "\ud800"])
def test_an_unusual_body_takes_the_long_way(body: Any) -> None:
    """Files, iterators, and what cannot be encoded."""
    assert rest_of_request(PLAIN, body) is None


def test_no_headers_are_unusual() -> None:
    """Requests never sends that."""
    assert rest_of_request({}, b"") is None


# --- answers ----------------------------------------------------------------------------------------------------------


def head(*fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *fields, "", ""]).encode("latin-1")


def test_a_plain_answer_is_read() -> None:
    """Names as they came, values without leading space; the body is left."""
    data = head(
        "Content-Type: a/b", "X:  \t1 ", "x: gr\xfc\xdf", "X:", "Content-Length: 12", "Connection: Keep-Alive, Close"
    )
    seen = head_of_answer(data + b"{}")

    assert seen is not None
    assert (seen.size, seen.status, seen.reason, seen.length, seen.will_close) == (len(data), 200, "OK", 12, True)
    assert seen.pairs[1:4] == [("X", "1 "), ("x", "gr\xfc\xdf"), ("X", "")]
    assert list(seen.fields) == ["content-type", "x", "content-length", "connection"]
    assert seen.fields["x"] == ["X", "1 ", "gr\xfc\xdf", ""]


def test_two_empty_values_are_two() -> None:
    """Equal values of repeated headers are all kept."""
    seen = head_of_answer(head("X:", "X:", "x: a", "x: a", "Content-Length: 0"))

    assert seen is not None
    assert seen.fields["x"] == ["X", "", "", "a", "a"]


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
def test_a_chunked_answer_is_read(coding: str) -> None:
    """As streams are sent."""
    seen = head_of_answer(head(f"Transfer-Encoding: {coding}", status="HTTP/1.1 429 Too Many Requests"))

    assert seen is not None
    assert (seen.status, seen.reason, seen.length, seen.will_close) == (429, "Too Many Requests", CHUNKED, False)


@pytest.mark.parametrize(
    "status",
    [
        *[
            "HTTP/1.0 200 OK",
            "HTTP/2 200 OK",
            "http/1.1 200 OK",
            "HTTP/1.1 200OK",
            "HTTP/1.1\t200 OK",
            "",
            "ICY 200 OK",
        ],
        *[
            "HTTP/1.1 100 Continue",
            "HTTP/1.1 103 Early Hints",
            "HTTP/1.1 204 None",
            "HTTP/1.1 304 Same",
            "HTTP/1.1 20 OK",
        ],
        *[
            "HTTP/1.1 1000 OK",
            "HTTP/1.1 abc OK",
            "HTTP/1.1 20\xb2 OK",
            "HTTP/1.1 200 a\rb",
            "HTTP/1.1 200 a\nb",
            " HTTP/1.1 200",
        ],
    ],
)
def test_an_unusual_status_line_takes_the_long_way(status: str) -> None:
    """http.client knows what to make of it."""
    assert head_of_answer(head("Content-Length: 2", status=status)) is None


@pytest.mark.parametrize(
    "fields",
    [
        [],
        ["Content-Length: 2", " folded"],
        ["Content-Length: 2", "no colon"],
        ["Content-Length: 2", "X Y: 1"],
        ["Content-Length: 2", "X : 1"],
        ["Content-Length: 2", ": 1"],
        ["Content-Length: 2", "\xfc: 1"],
        ["Content-Length: 2", "X: a\rb"],
        ["Content-Length: 2", "X: a\nY: b"],
        ["Content-Length: 2", "Content-Type: multipart/mixed; boundary=x"],
        ["Content-Length: 2", "content-type: Message/rfc822"],
        ["Content-Length: 2", "Content-Length: 2"],
        ["Content-Length: 2, 2"],
        ["Content-Length: -2"],
        ["Content-Length: +2"],
        ["Content-Length: 2 "],
        ["Content-Length: \xb2"],
        ["Content-Length: 0_2"],
        ["Content-Length:"],
        ["Content-Length: " + "9" * 16],
        ["Content-Length: 2", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: identity"],
        ["Content-Length: 2", *(f"X-{number}: x" for number in range(99))],
    ],
)
def test_unusual_headers_take_the_long_way(fields: list[str]) -> None:
    """No way of framing or two, and lines that a parser has to think about."""
    assert head_of_answer(head(*fields)) is None


@pytest.mark.parametrize("size", [0, 10, 40])
def test_half_a_head_takes_the_long_way(size: int) -> None:
    """http.client waits for the other half."""
    assert head_of_answer(head("Content-Type: a/b", "Content-Length: 2")[:size]) is None


def test_bare_line_feeds_take_the_long_way() -> None:
    """http.client accepts them."""
    assert head_of_answer(b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}") is None
    assert head_of_answer(b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\n{}") is None
