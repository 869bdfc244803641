"""Connections, time, TLS and proxies: the lean transport does what the stock one does."""

from __future__ import annotations

import datetime as dt
import gc
import socket
import ssl
import threading
import warnings
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme
from requests.adapters import HTTPAdapter
from urllib3.exceptions import InsecureRequestWarning

from holyroute.core.cancel import CancelToken
from holyroute.transport.adapter import Adapter, cutting
from holyroute.transport.response import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Serve = Callable[[socket.socket], None]

PATIENCE = 5.0  # seconds
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
BOTH = [HTTPAdapter, Adapter]


@contextmanager
def listening(serve: Serve) -> Iterator[int]:
    """A port at which every connection is served in a thread of its own."""
    threads: list[threading.Thread] = []

    def run(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            serve(peer)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=run, args=(listener.accept()[0],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    for thread in (accepting, *threads):
        thread.join(PATIENCE)


def head_of(peer: socket.socket) -> bytes:
    """A request's head, byte by byte, so that what follows is left."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := peer.recv(1)):
        head += byte
    return head


def answer_all(peer: socket.socket) -> None:
    while head_of(peer):
        peer.sendall(ANSWER)


def over_tls(context: ssl.SSLContext, serve: Serve = answer_all) -> Serve:
    def serve_encrypted(peer: socket.socket) -> None:
        with context.wrap_socket(peer, server_side=True) as encrypted:
            serve(encrypted)

    return serve_encrypted


def get(adapter: HTTPAdapter, url: str, headers: dict[str, str] | None = None, **options: Any) -> Any:
    """The answer, or the exception and its cause; and what was warned of."""
    request = requests.Request("GET", url, headers={"User-Agent": "test", **(headers or {})}).prepare()
    request.headers["Content-Length"] = "0"  # so that it goes the short way
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            outcome: Any = adapter.send(request, timeout=PATIENCE, **options).json()
        except (requests.RequestException, OSError) as error:
            outcome = type(error), type(error.args[0] if error.args else None)
    return outcome, [warning.category for warning in said]


# --- connections ------------------------------------------------------------------------------------------------------


class Hosts:
    """Some servers; which of their connections are open."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        self._changed = threading.Condition()

    @contextmanager
    def called(self, *names: str) -> Iterator[dict[str, str]]:
        """URLs by name."""
        with ExitStack() as stack:
            ports = {name: stack.enter_context(listening(partial(self._serve, name))) for name in names}
            yield {name: f"http://127.0.0.1:{port}/v1" for name, port in ports.items()}

    def _serve(self, name: str, peer: socket.socket) -> None:
        self.opened.append(name)
        answer_all(peer)
        with self._changed:
            self.closed.append(name)
            self._changed.notify_all()

    def wait_until_closed(self, names: list[str]) -> bool:
        """Whether exactly these connections are closed soon."""
        with self._changed:
            return self._changed.wait_for(lambda: sorted(self.closed) == names, PATIENCE)


@pytest.mark.parametrize("kind", BOTH)
def test_a_closed_adapter_has_no_connections(kind: type[HTTPAdapter]) -> None:
    """They are closed at once; afterwards new ones are opened."""
    hosts = Hosts()
    with hosts.called("a", "b") as urls, closing(kind()) as adapter:
        assert [get(adapter, urls[name]) for name in "aabb"] == [({}, [])] * 4
        adapter.close()

        assert hosts.wait_until_closed(["a", "b"])
        assert get(adapter, urls["a"]) == ({}, [])
        assert hosts.opened == ["a", "b", "a"]


@pytest.mark.parametrize("kind", BOTH)
def test_the_host_that_was_used_last_keeps_its_connection(kind: type[HTTPAdapter]) -> None:
    """With more hosts than places, the connections of another one are closed."""
    hosts = Hosts()
    with hosts.called("a", "b", "c") as urls, closing(kind(pool_connections=2)) as adapter:
        for name in "ababac":
            get(adapter, urls[name])

        assert hosts.wait_until_closed(["b"])
        for name in "aac":
            get(adapter, urls[name])
        assert hosts.opened == ["a", "b", "c"]


def test_a_dropped_adapter_leaves_no_connection() -> None:
    """Nothing of ours keeps a pool alive that nobody has any more."""
    hosts = Hosts()
    with hosts.called("a") as urls:
        adapter = Adapter()
        get(adapter, urls["a"])
        del adapter
        gc.collect()

        assert hosts.wait_until_closed(["a"])


def test_a_plain_exchange_takes_the_short_way() -> None:
    """One piece goes out, and the head that comes back is read as a whole."""
    received = []

    def serve(peer: socket.socket) -> None:
        received.append(peer.recv(65_536))
        peer.sendall(ANSWER)
        peer.recv(1)

    with listening(serve) as port, closing(Adapter()) as adapter:
        request = requests.Request("POST", f"http://127.0.0.1:{port}/v1", json={"model": "m"}).prepare()
        request.headers["User-Agent"] = "test"
        response = adapter.send(request, timeout=PATIENCE)
        kind, answer = type(response.raw), response.json()
        del response  # it keeps its pool alive

    assert (kind, answer) == (Answer, {})
    assert received[0].endswith(b'\r\n\r\n{"model": "m"}')


@pytest.mark.parametrize(
    "data",
    [b"", b"HTTP/1.1 200", ANSWER[:-2], ANSWER[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"],
)
@pytest.mark.parametrize(("stream", "used"), [(False, False), (True, False), (False, True)])
def test_silence_is_noticed_alike(data: bytes, stream: bool, used: bool) -> None:
    """Before the head, in the head, in the body: the same exception after the read timeout."""

    def serve(peer: socket.socket) -> None:
        if used:
            head_of(peer)
            peer.recv(2)
            peer.sendall(ANSWER)
        head_of(peer)
        peer.sendall(data)
        while peer.recv(65_536):  # the body
            pass

    def wait(adapter: HTTPAdapter, port: int) -> list[type]:
        request = requests.Request("POST", f"http://127.0.0.1:{port}/v1", json={}, headers={"User-Agent": "test"})
        if used:
            assert adapter.send(request.prepare(), timeout=PATIENCE).json() == {}
        with closing(adapter), pytest.raises(requests.RequestException) as caught:
            _ = adapter.send(request.prepare(), stream=stream, timeout=(None, 0.3)).content
        inner = caught.value.args[0]
        return [caught.type, type(inner), type(inner.__cause__), *map(type, inner.args)]

    with listening(serve) as port:
        stock, lean = (wait(kind(), port) for kind in BOTH)

    assert lean == stock


@pytest.mark.parametrize("kind", BOTH)
def test_a_server_that_takes_nothing_more_is_left(kind: type[HTTPAdapter]) -> None:
    """Sending has the connect timeout, on a used connection too."""
    left, served = threading.Event(), []

    def serve(peer: socket.socket) -> None:
        served.append(peer)
        head_of(peer)
        peer.recv(1)
        peer.sendall(ANSWER)
        left.wait(PATIENCE)

    with listening(serve) as port, closing(kind()) as adapter:
        small, large = (
            requests.Request("POST", f"http://127.0.0.1:{port}/v1", headers={"User-Agent": "test"}, data=data).prepare()
            for data in (b"x", b"x" * 20_000_000)
        )
        assert adapter.send(small, timeout=(PATIENCE, None)).json() == {}
        with pytest.raises(requests.ConnectionError, match="timed out"):
            adapter.send(large, timeout=(0.05, None))
        left.set()

    assert len(served) == 1


@pytest.mark.parametrize("kind", BOTH)
def test_a_connection_with_an_unread_answer_serves_nobody_else(kind: type[HTTPAdapter]) -> None:
    """Given back too early it is refused, so that nobody gets somebody else's answer; also where it was used before."""
    with listening(answer_all) as port, closing(kind()) as adapter:
        request = requests.Request("POST", f"http://127.0.0.1:{port}/v1", headers={"User-Agent": "test"}).prepare()
        assert adapter.send(request, timeout=PATIENCE).json() == {}
        unread = adapter.send(request, stream=True, timeout=PATIENCE)
        unread.raw.release_conn()
        with pytest.raises(requests.ConnectionError, match="Request-sent"):
            adapter.send(request, timeout=PATIENCE)
        unread.raw.close()


@pytest.mark.parametrize("kind", BOTH)
def test_a_body_may_end_early_where_nobody_minds(kind: type[HTTPAdapter]) -> None:
    """`enforce_content_length=False` of urllib3 holds for pools of ours too."""

    def serve(peer: socket.socket) -> None:
        head_of(peer)
        peer.sendall(ANSWER[:-1])

    with listening(serve) as port, closing(kind()) as adapter:
        pool = adapter.poolmanager.connection_from_url(f"http://127.0.0.1:{port}")
        headers = {"User-Agent": "test", "Content-Length": "0"}
        response: Any = pool.urlopen("POST", "/", headers=headers, preload_content=False, enforce_content_length=False)

        assert response.read(10, decode_content=True) == b"{"


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def folder(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CA's certificate, that of another one, and a client's."""
    folder = tmp_path_factory.mktemp("tls")
    ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other.pem"))
    client = ca.issue_cert("client@example.com")
    client.private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
    return folder


@contextmanager
def encrypted(ca: trustme.CA, name: str = "127.0.0.1", *, days: int = 1, needs_client: bool = False) -> Iterator[str]:
    """The URL of a server with a certificate for a name, which has so many days left."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    ca.issue_cert(name, not_before=end - dt.timedelta(days=9), not_after=end).configure_cert(context)
    if needs_client:
        ca.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    with listening(over_tls(context)) as port:
        yield f"https://127.0.0.1:{port}/v1"


@pytest.mark.parametrize(
    ("server", "options", "works"),
    [
        ({}, {"verify": "ca.pem"}, True),
        ({}, {"verify": False}, True),
        ({}, {"verify": True}, False),
        ({}, {"verify": "other.pem"}, False),
        ({}, {"verify": "missing.pem"}, False),
        ({"name": "other.example"}, {"verify": "ca.pem"}, False),
        ({"name": "other.example"}, {"verify": False}, True),
        ({"days": -1}, {"verify": "ca.pem"}, False),
        ({"needs_client": True}, {"verify": "ca.pem", "cert": "client.pem"}, True),
        ({"needs_client": True}, {"verify": "ca.pem", "cert": ("client.pem", "client.pem")}, True),
        ({"needs_client": True}, {"verify": "ca.pem", "cert": "missing.pem"}, False),
    ],
)
def test_certificates_are_checked_alike(
    ca: trustme.CA, folder: Path, server: dict[str, Any], options: dict[str, Any], works: bool
) -> None:
    """Right, wrong, expired or unknown: the same answer, exception and warning, on a first and on a second request."""

    def path(value: Any) -> Any:
        return tuple(map(path, value)) if isinstance(value, tuple) else str(folder / value)

    named = {name: value if isinstance(value, bool) else path(value) for name, value in options.items()}
    with encrypted(ca, **server) as url, closing(HTTPAdapter()) as stock, closing(Adapter()) as lean:
        expected, actual = ([get(adapter, url, **named) for _ in "ab"] for adapter in (stock, lean))

    assert actual == expected
    assert [outcome == {} for outcome, _ in actual] == [works, works]


def test_a_changed_verify_counts_at_once(ca: trustme.CA, folder: Path) -> None:
    """What was trusted for one request is not trusted for the next one, whatever connections there are."""
    trusted = str(folder / "ca.pem")
    turns: list[bool | str] = [trusted, True, False, True, trusted, False, trusted, True]
    with encrypted(ca) as url, closing(HTTPAdapter()) as stock, closing(Adapter()) as lean:
        expected, actual = ([get(adapter, url, verify=turn) for turn in turns] for adapter in (stock, lean))

    assert actual == expected
    assert [outcome == {} for outcome, _ in actual] == [turn is not True for turn in turns]
    assert actual[2][1] == [InsecureRequestWarning]


# --- proxies ----------------------------------------------------------------------------------------------------------


class Proxy:
    """Answers requests itself, tunnels to where CONNECT asks, or refuses; notes what it was asked."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.asked: list[bytes] = []
        self._refuses = refuses

    def serve(self, peer: socket.socket) -> None:
        """Serve one connection."""
        while head := head_of(peer):
            self.asked.append(head)
            if not head.startswith(b"CONNECT"):
                peer.sendall(ANSWER)
                continue
            if self._refuses:
                peer.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            peer.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            host, _, port = head.split()[1].partition(b":")
            with socket.create_connection((host.decode(), int(port)), PATIENCE) as onward:
                back = threading.Thread(target=pump, args=(onward, peer))
                back.start()
                pump(peer, onward)
                back.join(PATIENCE)
            return


def pump(source: socket.socket, drain: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            drain.sendall(data)
    with suppress(OSError):
        drain.shutdown(socket.SHUT_WR)


@contextmanager
def proxied(proxy: Proxy) -> Iterator[dict[str, str]]:
    """Proxies as requests takes them, with credentials."""
    with listening(proxy.serve) as port:
        yield dict.fromkeys(("http", "https"), f"http://user:test-key-p@127.0.0.1:{port}")


def through(proxy: Proxy, kind: type[HTTPAdapter], url: str, **options: Any) -> tuple[list[Any], list[bytes]]:
    """Two requests through a proxy, and what the proxy was asked."""
    with proxied(proxy) as proxies:
        adapter = kind()
        outcomes = [get(adapter, url, proxies=proxies, **options) for _ in "ab"]
        adapter.close()
    return outcomes, proxy.asked


def test_a_plain_proxy_is_asked_alike() -> None:
    """The whole URL and the proxy's credentials go to it, over one connection."""
    own = {"proxy-authorization": "Basic test-key-q"}  # in its place comes what the proxy's URL says
    stock, lean = (through(Proxy(), kind, "http://api.example/v1?a=b", headers=own) for kind in BOTH)

    assert lean == stock
    assert [outcome for outcome, _ in lean[0]] == [{}, {}]
    assert all(head.startswith(b"GET http://api.example/v1?a=b HTTP/1.1\r\n") for head in lean[1])


def test_a_tunnel_is_dug_alike(ca: trustme.CA, folder: Path) -> None:
    """TLS goes through CONNECT, once for two requests, and the certificate is the host's."""
    with encrypted(ca) as url:
        stock, lean = (through(Proxy(), kind, url, verify=str(folder / "ca.pem")) for kind in BOTH)
        refused = [through(Proxy(refuses=True), kind, url, verify=str(folder / "ca.pem")) for kind in BOTH]

    assert lean == stock
    assert [outcome for outcome, _ in lean[0]] == [{}, {}]
    assert [head.split()[0] for head in lean[1]] == [b"CONNECT"]
    assert refused[0] == refused[1]
    assert refused[1][0][0][0][0] is requests.exceptions.ProxyError


def test_a_call_through_a_tunnel_is_cut(ca: trustme.CA, folder: Path) -> None:
    """The duplicate of the socket reaches through proxy and TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    heard, token = threading.Event(), CancelToken()

    def silent(peer: socket.socket) -> None:
        head_of(peer)
        heard.set()
        peer.recv(1)

    def cancel() -> None:
        heard.wait(PATIENCE)
        token.cancel()

    with ExitStack() as stack:
        port = stack.enter_context(listening(over_tls(context, silent)))
        proxies = stack.enter_context(proxied(Proxy()))
        adapter = Adapter()
        cancelling = threading.Thread(target=cancel)
        cancelling.start()
        with cutting(token, PATIENCE):
            options = {"proxies": proxies, "verify": str(folder / "ca.pem")}
            outcome, _ = get(adapter, f"https://127.0.0.1:{port}/v1", **options)
        cancelling.join()

    assert issubclass(outcome[0], requests.ConnectionError)
    assert token.reason == "cancelled"
