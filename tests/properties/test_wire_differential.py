"""The lean transport against the stock one: whatever a server sends, both show the same.

A server on the loopback interface plays bytes, whole or broken, in one piece or in several; the same requests go
through `requests.adapters.HTTPAdapter` and through ours. What is compared stands in `observed`: the request as it
arrived, the response with all that hangs on it, or the exception with its causes, and how many connections were opened.
"""

from __future__ import annotations

import gzip
import logging
import pickle
import re
import socket
import struct
import threading
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from holyroute.core.cancel import CancelToken
from holyroute.transport.adapter import Adapter
from holyroute.transport.connection import owned_by
from holyroute.transport.pools import ResendOnce
from holyroute.transport.response import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 5.0  # seconds; nothing here waits that long unless something is wrong
RESET = struct.pack("ii", 1, 0)


# --- what a server plays ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Play:
    """What follows one request: bytes in pieces, and how the connection ends, if it does."""

    data: bytes
    cuts: tuple[int, ...] = ()
    end: str = "keep"  # or close, reset

    @property
    def pieces(self) -> list[bytes]:
        """What is sent at a time."""
        places = sorted({0, *(cut for cut in self.cuts if cut < len(self.data))})
        return [self.data[here:there] for here, there in zip(places, [*places[1:], None], strict=True)]


class Theatre:
    """Plays to one client, request by request, and keeps what it was asked."""

    def __init__(self, plays: list[Play]) -> None:
        self.plays, self.asked, self.connections = list(plays), [], 0
        self._playing = threading.Condition()
        self._played = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self._pause = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                self._open.append(peer)
                thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as lines, suppress(OSError):
            while (asked := read_request(lines)) and self.plays:
                self.asked.append(asked)
                play = self.plays.pop(0)
                try:
                    self._play(peer, play)
                    if play.end != "keep":
                        lines.close()
                        peer.close()
                        return
                finally:
                    with self._playing:
                        self._played += 1
                        self._playing.notify_all()

    def _play(self, peer: socket.socket, play: Play) -> None:
        for piece in play.pieces:
            peer.sendall(piece)
            if play.cuts:
                self._pause.wait(0.001)
        if play.end == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def settle(self) -> None:
        """Wait until everything that was asked for was played."""
        with self._playing:
            self._playing.wait_for(lambda: self._played == len(self.asked), PATIENCE)

    def close(self) -> None:
        """Let everybody go home."""
        self.listener.close()
        for peer in self._open:
            with suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)


def read_request(lines: Any) -> bytes:
    """A request as it came, without its host's port."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = lines.readline()
        if not line:
            return head
        head += line
    length = re.search(rb"(?i)\r\ncontent-length:([^\r]*)", head)
    body = lines.read(int(length[1])) if length and length[1].strip().isdigit() else b""
    if not length and re.search(rb"(?i)\r\ntransfer-encoding:", head):
        while not body.endswith(b"0\r\n\r\n"):
            body += lines.readline()
    return re.sub(rb"127\.0\.0\.1:\d+", b"host", head) + body


# --- what a client sees -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ask:
    """A request, and how its answer is read."""

    method: str = "POST"
    body: Any = b'{"model": "m"}'
    headers: tuple[tuple[str, Any], ...] = ()
    removed: tuple[str, ...] = ()
    path: str = "/v1/chat/completions"
    reading: str = "content"
    amount: int = 10

    def prepared(self, port: int) -> requests.PreparedRequest:
        """A new request; headers are set on the prepared one, where requests no longer looks at them."""
        body = iter(self.body) if isinstance(self.body, list) else self.body
        request = requests.Request(self.method, f"http://127.0.0.1:{port}{self.path}", data=body)
        prepared = requests.Session().prepare_request(request)
        for name in self.removed:
            prepared.headers.pop(name, None)
        for name, value in self.headers:
            prepared.headers[name] = value
        return prepared


READINGS: dict[str, Callable[[requests.Response, int], Any]] = {
    "content": lambda response, _: [response.content, response.text],
    "iter_content": lambda response, amount: list(response.iter_content(amount)),
    "iter_content None": lambda response, _: list(response.iter_content(None)),
    "iter_lines": lambda response, amount: list(response.iter_lines(amount)),
    "raw.read": lambda response, _: response.raw.read(),
    "raw.read some": lambda response, amount: [response.raw.read(amount), response.raw.read(amount)],
    "raw.read decoded": lambda response, amount: [response.raw.read(amount, decode_content=True) for _ in "abc"],
    "raw.read1": lambda response, amount: b"".join(iter(lambda: response.raw.read1(amount), b"")),
    "raw.stream": lambda response, amount: list(response.raw.stream(amount)),
    "raw.data": lambda response, _: [response.raw.data, response.raw.data],
    "raw lines": lambda response, _: list(response.raw),
    "first, then all": lambda response, amount: [next(response.iter_content(amount), None), response.content],
    "first, then raw": lambda response, amount: [next(response.iter_content(amount), None), response.raw.read()],
    "drain": lambda response, _: response.raw.drain_conn(),
    "close": lambda response, _: response.close(),
    "release": lambda response, _: response.raw.release_conn(),
    "pickle": lambda response, _: {
        name: plain(value)
        for name, value in vars(pickle.loads(pickle.dumps(response))).items()  # noqa: S301 - our own
    },
}


def plain(text: Any) -> str:
    """Without addresses and ports, which differ from run to run, and the class of a response within an error."""
    text = str(text).replace(f"{Answer.__module__}.{Answer.__name__}", "urllib3.response.HTTPResponse")
    return re.sub(r"0x[0-9a-f]+|port=\d+|127\.0\.0\.1:\d+", "…", text)


def chain(error: BaseException | None) -> list[Any]:
    """An exception, its causes, and the exceptions it was made of."""
    if error is None:
        return []
    inner = [chain(one) if isinstance(one, BaseException) else plain(one) for one in error.args]
    return [type(error).__name__, inner, plain(error), chain(error.__cause__)]


def attributes(response: requests.Response) -> dict[str, Any]:
    """What hangs on a response before it is read."""
    raw = response.raw
    original = raw._original_response
    return {
        "status": (response.status_code, response.reason, plain(response.url), response.ok),
        "headers": [*response.headers.items()],
        "stored": [*response.headers.lower_items()],
        "raw headers": [*raw.headers.items()],
        "encoding": response.encoding,
        "cookies": [(cookie.name, cookie.value, cookie.path) for cookie in response.cookies],
        "raw": (raw.status, raw.reason, raw.version, raw.version_string, raw.chunked, raw.length_remaining),
        "more": (raw.decode_content, raw.enforce_content_length, raw.msg, plain(raw.url), raw.retries.total),
        "original": (original.status, original.code, original.reason, original.version, original.will_close),
        "length": (original.length, original.chunked, original.isclosed()),
        "message": (
            original.msg.items(),
            type(original.msg),
            plain(original.msg.get_payload()),
            original.headers is original.msg,
        ),
        "attributes": sorted(set(response.__dict__)),
        "connection": raw.connection is None,
    }


def after(response: requests.Response) -> list[Any]:
    """What can be seen when a response was read."""
    raw = response.raw
    return [raw.tell(), raw.closed, raw.isclosed(), raw.length_remaining, raw.connection is None, raw.headers.get("x")]


def observed(adapter: HTTPAdapter, asks: list[Ask], plays: list[Play], *, whole: bool = False) -> list[Any]:
    """Everything that a script can see of some requests, one after the other.

    `whole` makes them attempts whose bodies are wanted at once.
    """
    theatre, seen = Theatre(plays), []
    try:
        for ask in asks:
            request = ask.prepared(theatre.port)
            response = None
            with complaints() as said:
                try:
                    with owned_by(CancelToken() if whole else None):
                        response = adapter.send(request, stream=not whole, timeout=PATIENCE)
                    if not whole:
                        seen.append(attributes(response))
                    seen.append(READINGS[ask.reading](response, ask.amount))
                except Exception as error:  # noqa: BLE001 - whatever it is
                    seen.append(chain(error))
            theatre.settle()
            if response is not None:
                seen.append(after(response))
            seen.append((said, theatre.connections, request.headers, len(theatre.asked)))
            if not theatre.plays:
                break
        seen.append(theatre.asked)
    finally:
        adapter.close()
        theatre.close()
    return seen


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What urllib3 warns of."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(plain(record.getMessage()))  # type: ignore[method-assign]
    logger = logging.getLogger("urllib3")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def agree(asks: list[Ask], plays: list[Play], *, whole: bool = False) -> None:
    """Both transports show the same."""
    if any(ask.reading == "release" for ask in asks):  # whether such a connection serves again depends on what has come
        plays = [replace(play, cuts=()) for play in plays]
    lean = Adapter()
    lean.max_retries = ResendOnce(total=0)  # as the stock one's: going out twice is another test's matter
    expected, actual = observed(HTTPAdapter(), asks, plays, whole=whole), observed(lean, asks, plays, whole=whole)

    assert actual == expected


# --- what is played ---------------------------------------------------------------------------------------------------

TEXT = b'{"choices": [{"message": {"content": "hello\\nworld"}}]}\nsecond line\r\nthird'
BODIES = st.sampled_from([TEXT, TEXT, b"", b"x", b"x" * 10_239, b"y" * 10_240, b"z" * 10_241, TEXT * 300, b"\r\n\r\n"])
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
    "x-unknown": bytes,
}
STATUS_LINES = [
    *["HTTP/1.1 200 OK"] * 8,
    *["HTTP/1.1 404 Not Found", "HTTP/1.1 429 Too Many Requests", "HTTP/1.1 503 ", "HTTP/1.1 302 Found"],
    *["HTTP/1.1 200", "HTTP/1.1 200  two  spaces ", "HTTP/1.1\t200\tOK", "HTTP/1.1 200 gr\xfc\xdf dich\x85\xa0"],
    *["HTTP/1.0 200 OK", "HTTP/1.2 200 OK", "HTTP/2 200 OK", "HTTP/0.9 200 OK", "http/1.1 200 OK", "HTTP/1.1200 OK"],
    *["HTTP/1.1 204 No Content", "HTTP/1.1 304 Not Modified", "HTTP/1.1 999 Last", "HTTP/1.1 1000 More"],
    *["HTTP/1.1 99 Few", "HTTP/1.1 abc OK", "HTTP/1.1 +20 OK", "HTTP/1.1 20\xb2 OK", "HTTP/1.1 199 Early", "", "\x00"],
    *["ICY 200 OK", "HTTP/1.1", "HTTP/1.1 ", " HTTP/1.1 200 OK", "HTTP/1.1 200 a\rb", "HTTP/1.1 200\x0bOK"],
]
FIELDS = [
    *["Content-Type: application/json"] * 3,
    *[
        "Content-Type: text/html",
        "content-type: text/plain; charset=latin-1",
        "Content-Type: application/json; charset=x",
    ],
    *[
        "Content-Type: multipart/mixed; boundary=x",
        "Content-Type: message/rfc822",
        "Content-Type:",
        "CONTENT-TYPE: a/b",
    ],
    *["Connection: keep-alive", "Connection: close", "Connection: Keep-Alive, Close", "connection:close"],
    *["Set-Cookie: a=b; Path=/", "Set-Cookie: c=d", "set-cookie2: e=f", "Retry-After: 3", "Location: /there"],
    *[
        "X: 1",
        "X: 2",
        "x: 3",
        "X:",
        "X: ",
        "X:  padded  ",
        "X:\ttab\t",
        "X:\x0bcontrol\x0c",
        "X: gr\xfc\xdf",
        "X: \x00",
    ],
    *[
        "X: a\x85b\x1cc",
        "X: \xa0",
        "X: a: b:c",
        "X-Y_Z.~!#$%&'*+^`|: odd",
        "X Y: space",
        " X: fold",
        "\tfold",
        "no colon",
    ],
    *[
        ": nothing",
        "X : late",
        "X: a\rb",
        "X: a\nb: c",
        "\xfc: umlaut",
        "X: " + "long " * 900,
        "From: me",
        "From me",
        "(): x",
    ],
    *["Keep-Alive: timeout=5", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity", "Trailer: X"],
    *["Content-Length: 5", "Content-Length: 0", "Content-Length: abc", "Content-Length: -1", "Content-Length: 5, 5"],
    *[
        "Content-Length: +5",
        "Content-Length: 1_0",
        "Content-Length:",
        "Content-Length: \xb2",
        "Content-Length: 9" + "9" * 20,
    ],
    "\n".join(f"X-{number}: {number}" for number in range(88)),
    "\n".join(f"X-{number}: {number}" for number in range(100)),
]
TAME = [
    field
    for field in FIELDS
    if re.match("(?i)(X-?[^ ]*|Content-Type|Set-Cookie|Retry-After|Location|From): [ -~]*$", field)
]


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """A body in chunks, now and then written oddly."""
    size = draw(st.sampled_from([1, 3, 7, 100, 4_000, 100_000])) if len(body) < 1_000 else 4_000
    form = draw(st.sampled_from(["%x", "%x", "%X", "0%x", "%x;name=value", " %x"]))
    end = draw(st.sampled_from(["0\r\n\r\n", "0\r\n\r\n", "0\r\nTrailer: x\r\n\r\n", "000;last\r\n\r\n"]))
    parts = [body[here : here + size] for here in range(0, len(body), size)]
    return b"".join(b"%b\r\n%b\r\n" % ((form % len(part)).encode(), part) for part in parts) + end.encode()


@st.composite
def heads(draw: st.DrawFn, *, tame: bool, length: int | None, coding: str) -> bytes:
    """A head with a way of framing: a length, chunks if there is none."""
    fields = draw(st.lists(st.sampled_from(TAME if tame else FIELDS), max_size=5))
    if coding:
        fields.append(f"Content-Encoding: {coding}")
    fields.insert(draw(st.integers(0, len(fields))), f"Content-Length: {length}" if length is not None else CHUNKED)
    status = "HTTP/1.1 200 OK" if tame else draw(st.sampled_from(STATUS_LINES))
    end = "\r\n" if tame else draw(st.sampled_from([*["\r\n"] * 6, "\n", "\r\r\n"]))
    return (end.join([status, *fields]) + end * 2).encode("latin-1")


CHUNKED = "Transfer-Encoding: chunked"
INTERIM = [b"", b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"]


@st.composite
def plays(draw: st.DrawFn, *, last: bool) -> Play:
    """A tame answer, after which the connection may go on; or a wild one, after which it ends."""
    tame = draw(st.booleans()) or not last
    coding = draw(st.sampled_from([*[""] * 6, *CODINGS]))
    body = CODINGS[coding](draw(BODIES))
    if draw(st.booleans()):
        data = draw(heads(tame=tame, length=len(body), coding=coding)) + body
    else:
        data = draw(heads(tame=tame, length=None, coding=coding)) + draw(chunked(body))
    if tame and not last:
        return Play(data, draw(cuts(len(data))), draw(st.sampled_from(["keep", "keep", "close"])))
    data = draw(st.sampled_from(INTERIM)) + draw(st.sampled_from(INTERIM)) + data
    data = data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data
    end = draw(st.sampled_from(["close", "close", "reset"]))
    return Play(data, draw(cuts(len(data))), end)


def cuts(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Where the bytes are parted; mostly nowhere, else mostly in the head."""
    places = st.integers(1, max(1, min(size, 200))) | st.integers(1, max(1, size))
    return st.just(()) | st.lists(places, min_size=1, max_size=3).map(tuple)


READING = st.sampled_from(["content", "content", *READINGS])
AMOUNT = st.sampled_from([1, 10, 10, 4_096, 10_240, 100_000])
ASKS = st.builds(Ask, reading=READING, amount=AMOUNT)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_answer_looks_the_same(data: st.DataObject) -> None:
    """Status, headers, body, encodings, cookies, exceptions, connections: stock and lean show the same."""
    asks = data.draw(st.lists(ASKS, min_size=1, max_size=3))
    agree(asks, [data.draw(plays(last=number == len(asks) - 1)) for number in range(len(asks))])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_body_is_the_same_that_is_read_at_once(data: st.DataObject) -> None:
    """An attempt reads a plain body with its head: what it holds and what breaks it is what requests shows."""
    asks = [Ask(reading="content")] * data.draw(st.integers(1, 3))
    agree(asks, [data.draw(plays(last=number == len(asks) - 1)) for number in range(len(asks))], whole=True)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize(
    "data",
    [
        *[b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"],
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999\r\n\r\n{}",  # more than any machine has room for
    ],
)
def test_an_end_before_the_end_looks_the_same(data: bytes, end: str, *, whole: bool) -> None:
    """On a fresh connection and on a used one; in the body, in the head, and before it."""
    for before in ([], [FINE]):
        agree([Ask()] * (len(before) + 1), [*before, Play(data, end=end)], whole=whole)


FINE = Play(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
NAMES = [
    "X",
    "x-y",
    "Host",
    "Accept-Encoding",
    "User-Agent",
    "Content-Length",
    "Expect",
    "Transfer-Encoding",
    "Connection",
]
ODD_NAMES = ["", "X Y", "X:Y", ":X", "X\r\nY", "X\n", "\xfcml", "X\x00", "Proxy-Authorization", "X\t", " X"]
VALUES = [
    "v",
    "",
    " padded ",
    "a\r\nInjected: yes",
    "a\nb",
    "a\rb",
    "a\r\n folded",
    "a\n\tb",
    "gr\xfc\xdf",
    "€",
    "\x00",
    "a: b",
]
OTHER_VALUES = [b"bytes", b"a\r\nb", 5, None, "chunked", "100-continue", "@@@SKIP_HEADER@@@", "2", "13"]
FIELD = st.tuples(st.sampled_from([*NAMES, *ODD_NAMES]), st.sampled_from([*VALUES, *OTHER_VALUES]))
HEADERS = st.lists(
    FIELD.filter(lambda field: field[0] != "Content-Length" or not str(field[1]).isdigit()),
    max_size=3,  # it would wait
).map(tuple)
REQUESTS = st.builds(
    Ask,
    method=st.sampled_from(
        ["POST", "POST", "GET", "PUT", "HEAD", "DELETE", "OPTIONS", "patch", "P\r\nX: y", "P T", "\xdc"]
    ),
    body=st.sampled_from([b"{}", b"", None, "text", "gr\xfc\xdf €", [b"one", b"two"], bytearray(b"{}"), b"x" * 70_000]),
    headers=HEADERS,
    removed=st.lists(st.sampled_from(["User-Agent", "Accept-Encoding", "Content-Length", "Accept"]), max_size=1).map(
        tuple
    ),
    path=st.sampled_from(["/v1/chat/completions", "", "/a?b=c", "/\xfc", "/a b", "//x", "/%7e%zz", "/a#b"]),
)


@settings(max_examples=60, deadline=None)
@example([Ask(headers=(("Host", "other.example"),)), Ask(removed=("Accept-Encoding",)), Ask(body="text"), Ask("HEAD")])
@given(st.lists(REQUESTS, min_size=1, max_size=2))
def test_every_request_looks_the_same(asks: list[Ask]) -> None:
    """The same bytes go out, and what must not go out is refused in the same words."""
    agree(asks, [Play(FINE.data, end="close")] * len(asks))


FRAMING = {"Content-Length", "Transfer-Encoding", "Expect"}  # a wrong one would hold up what follows
UNFRAMED = st.lists(FIELD.filter(lambda field: field[0] not in FRAMING), max_size=3).map(tuple)
AGAIN = st.builds(Ask, body=st.sampled_from([b"{}", "text", b"x" * 700]), headers=UNFRAMED)


@settings(max_examples=60, deadline=None)
@example([Ask(headers=(("Host", "other.example"),)), Ask(headers=(("Host", "third.example"),))])
@given(st.lists(AGAIN, min_size=2, max_size=3))
def test_every_request_over_a_used_connection_looks_the_same(asks: list[Ask]) -> None:
    """Also where its first line has gone out before."""
    agree([Ask(), *asks], [FINE] * (len(asks) + 1))


OK = b"HTTP/1.1 200 OK\r\n"
SEQUELS = [
    FINE.data,
    OK + b"Content-Length: 0\r\n\r\n",
    OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
    OK + b"Content-Length: 2\r\n\r\n{} and more",
    OK + b"Content-Length: 2\r\n\r\n{}" + b"more" * 5_000,
    FINE.data * 2,
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n" + FINE.data,
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + FINE.data,
    b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + FINE.data,
]
MIXED = st.builds(
    Ask,
    method=st.sampled_from(["POST", "POST", "GET", "HEAD", "DELETE"]),
    body=st.sampled_from([b"{}", b"", None, "text", "gr\xfc\xdf €", b"x" * 70_000]),
    headers=UNFRAMED,
    removed=st.lists(st.sampled_from(["User-Agent", "Accept-Encoding"]), max_size=1).map(tuple),
    path=st.sampled_from(["/v1/chat/completions", "/v1/chat/completions", "", "/a?b=c", "/%7e%zz"]),
    reading=READING,
    amount=AMOUNT,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(MIXED, st.builds(Play, st.sampled_from(SEQUELS), end=st.sampled_from(["keep", "close"])))),
    st.booleans(),
)
def test_whatever_a_connection_has_seen_the_next_exchange_looks_the_same(
    exchanges: list[tuple[Ask, Play]], whole: bool
) -> None:
    """Bytes that nobody asked for, ends that nobody announced, answers without a body, other methods and bodies."""
    asks = [replace(ask, reading="content") if whole else ask for ask, _ in exchanges]
    agree([Ask(), *asks, Ask()], [FINE, *[play for _, play in exchanges], FINE], whole=whole)


@pytest.mark.parametrize("size", [1_048_575, 1_048_576, 1_048_577])
def test_a_long_body_looks_the_same(size: int) -> None:
    """Whether it is read at once or in pieces, and so does what follows it."""
    long = Play(OK + b"Content-Length: %d\r\n\r\n" % size + b"z" * size)
    agree([Ask(), Ask(), Ask()], [FINE, long, FINE], whole=True)
