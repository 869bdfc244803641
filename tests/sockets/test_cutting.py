"""Blocked calls can be cut from another thread, and nobody else's call is."""

from __future__ import annotations

import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import requests

import holyroute
from holyroute.core.cancel import CancelToken
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.simulator import Simulator, faults
from holyroute.transport.adapter import Adapter, twin_of
from holyroute.transport.connection import owned_by
from holyroute.transport.watchdog import LATE, WATCHDOG

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 15.0  # seconds; what a call would wait without being cut
SOON = 0.2  # seconds until the cut


def chat(url: str, model: str = "m", text: str = "hello", *, short: bool = True) -> requests.PreparedRequest:
    """A plain request, which goes the short way; or one to which urllib3 adds a header."""
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    headers = {"User-Agent": "test"} if short else {}
    return requests.Request("POST", url + "/chat/completions", headers, json=body).prepare()


def cut(adapter: Adapter, request: requests.PreparedRequest, seconds: float) -> tuple[CancelToken, float]:
    """Send a request that the watchdog cuts; the token and how long it took."""
    token = CancelToken()
    began = SYSTEM_CLOCK.now()
    with (
        pytest.raises(requests.RequestException),
        owned_by(token),
        WATCHDOG.watching(token, began + seconds),
    ):
        _ = adapter.send(request, timeout=(PATIENCE, PATIENCE), verify=False).content
    return token, SYSTEM_CLOCK.now() - began


@pytest.mark.parametrize("short", [True, False], ids=["short way", "long way"])
@pytest.mark.parametrize("fault", ["silent", "drip", "drip-headers", "cut-slowly"])
def test_a_call_is_cut_in_every_phase_of_the_answer(fault: str, short: bool) -> None:
    """Waiting for headers, reading headers, reading the body: the call ends when it is cut, not when it times out."""
    with Simulator() as provider:
        provider.always("m", faults.drip(0.05) if fault == "cut-slowly" else fault)
        adapter = Adapter()
        token, seconds = cut(adapter, chat(provider.base_url, short=short), SOON)
        provider.heal()
        afterwards = len(adapter.send(chat(provider.base_url), timeout=PATIENCE).json()["choices"])

    assert token.reason == LATE
    assert SOON <= seconds < PATIENCE / 3
    assert afterwards == 1


@contextmanager
def deaf_listener(backlog: int) -> Iterator[str]:
    """A port that accepts nobody; with backlog 0 and one caller before, the next one hangs while connecting."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        for caller in (first, second) if backlog == 0 else ():
            caller.setblocking(False)
            caller.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_call_is_cut_while_connecting() -> None:
    """The socket is known before it connects."""
    with deaf_listener(backlog=0) as address:
        token, seconds = cut(Adapter(), chat(f"http://{address}"), SOON)

    assert token.reason == LATE
    assert seconds < PATIENCE / 3


def test_a_call_is_cut_during_the_tls_handshake() -> None:
    """A server that never says hello holds nobody."""
    with deaf_listener(backlog=5) as address:
        token, seconds = cut(Adapter(), chat(f"https://{address}"), SOON)

    assert token.reason == LATE
    assert seconds < PATIENCE / 3


def test_a_token_that_is_cancelled_already_sends_nothing() -> None:
    """Nothing goes out for somebody who has left."""
    token = CancelToken()
    token.cancel()
    with Simulator() as provider, pytest.raises(requests.RequestException), owned_by(token):
        _ = Adapter().send(chat(provider.base_url), timeout=PATIENCE).content

    assert provider.attempts() == 0


@contextmanager
def frequent_switches() -> Iterator[None]:
    """Threads take turns far more often than usual, so that races show."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def answered_right(adapter: Adapter, url: str, text: str, late: list[CancelToken]) -> bool:
    """Send one call; somebody else cancels its token later, when the connection has gone back to the pool."""
    token = CancelToken()
    try:
        with owned_by(token):
            answer = adapter.send(chat(url, text=text), timeout=PATIENCE)
            return text in answer.json()["choices"][0]["message"]["content"]
    except requests.RequestException:
        return False
    finally:
        late.append(token)


def test_late_cancels_kill_no_innocent_call() -> None:
    """10,000 calls on 32 threads share pooled connections with calls that are cancelled when they are over."""
    threads, calls = 32, 313
    late: list[CancelToken] = []
    over = threading.Event()
    adapter = Adapter()

    def cancel_late() -> None:
        while not over.is_set() or late:
            while late:
                late.pop().cancel()
            over.wait(0.0005)

    with frequent_switches(), Simulator(keep=0) as provider, ThreadPoolExecutor(threads + 1) as pool:
        cancelling = pool.submit(cancel_late)
        texts = [f"call {number}" for number in range(threads * calls)]
        right = list(pool.map(lambda text: answered_right(adapter, provider.base_url, text, late), texts))
        over.set()
        cancelling.result()

    assert right.count(False) == 0
    assert provider.attempts() == threads * calls


def test_an_idle_connection_that_the_server_closed_is_replaced() -> None:
    """The request goes out once more, on another connection, and the caller never knows."""
    with Simulator() as provider:
        provider.always("m", faults.close_on_reuse())
        adapter = Adapter()
        answers = [adapter.send(chat(provider.base_url), timeout=PATIENCE).json()["model"] for _ in range(200)]

    assert answers == ["m"] * 200


def test_a_fresh_connection_that_dies_is_a_fault() -> None:
    """Only a reused connection says nothing about the server: a reset on a fresh one is seen once, and raised."""
    with Simulator() as provider:
        provider.always("m", "reset")
        with pytest.raises(requests.ConnectionError):
            Adapter().send(chat(provider.base_url), timeout=PATIENCE)

    assert provider.attempts() == 1


def test_a_dripping_body_is_cut_after_connection_close() -> None:
    """http.client lets go of the connection before the body is read; the watchdog does not."""
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def drip() -> None:
            peer, _ = listener.accept()
            with peer, suppress(OSError):
                peer.recv(65_536)
                peer.sendall(closing)
                while not over.wait(0.05):
                    peer.sendall(b"x")

        server = threading.Thread(target=drip)
        server.start()
        token, seconds = cut(Adapter(), chat(f"http://127.0.0.1:{listener.getsockname()[1]}"), SOON)
        over.set()
        server.join()

    assert token.reason == LATE
    assert seconds < PATIENCE / 3


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with an address of a family that this machine lacks is reached by its other one."""
    with Simulator() as provider:
        usable = socket.getaddrinfo("127.0.0.1", provider.port, type=socket.SOCK_STREAM)
        strange = [(9_999, *entry[1:]) for entry in usable]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: strange + usable)
        answer = Adapter().send(chat(provider.base_url), timeout=PATIENCE).json()

    assert answer["model"] == "m"


def test_a_name_that_no_host_can_have_is_a_name_that_does_not_resolve() -> None:
    """It is a reason to ask somebody else, not a crash."""
    with pytest.raises(requests.ConnectionError, match="resolve"):
        Adapter().send(chat(f"http://{'x' * 64}.example/v1"), timeout=PATIENCE)


def test_a_closed_session_leaves_no_connection() -> None:
    """`close()` reaches the connections of routed attempts too."""
    with Simulator() as provider:
        host = f"127.0.0.1:{provider.port}"
        config = holyroute.load(
            providers={"p": {"base_url": provider.base_url}},
            models={"other": {"provider": "p"}},
            failover={host: ["other"]},
        )
        with holyroute.Session(config) as session:
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            assert session.post(f"{provider.base_url}/chat/completions", json=body).ok
            twin = twin_of(session.get_adapter(provider.base_url))
            assert isinstance(twin, Adapter)
            before = len(twin.poolmanager.pools)
        after = len(twin.poolmanager.pools)

    assert (before, after) == (1, 0)
