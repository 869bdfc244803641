from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests
import urllib3.exceptions

from holyroute.simulator import Names, Simulator

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST = "gateway.example-a.test"


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


def ask(provider: Simulator, host: str) -> requests.Response:
    payload = {"model": "gpt-4.1", "messages": []}
    return requests.post(f"http://{host}:{provider.port}/v1/chat/completions", json=payload, timeout=5)


def test_invented_names_reach_the_simulator(provider: Simulator) -> None:
    """A host that exists nowhere answers, under its own name."""
    with Names(HOST) as names:
        names.add("alpha.test")
        codes = [ask(provider, host).status_code for host in (HOST, "alpha.test", "ALPHA.test.")]

    assert codes == [200, 200, 200]
    assert f"{HOST}:{provider.port}" == provider.seen[0].headers["Host"]


def test_failing_name_is_a_name_resolution_error(provider: Simulator) -> None:
    """Requests shows what it shows in a real outage: ConnectionError, NameResolutionError, gaierror."""
    with Names(HOST) as names:
        names.fail(HOST)
        with pytest.raises(requests.exceptions.ConnectionError, match="Name or service not known") as caught:
            ask(provider, HOST)
        names.restore(HOST)
        restored = ask(provider, HOST)
    retries_exceeded = caught.value.args[0]
    unresolved = retries_exceeded.reason

    assert isinstance(unresolved, urllib3.exceptions.NameResolutionError)
    assert isinstance(unresolved.__cause__, socket.gaierror)
    assert unresolved.__cause__.errno == socket.EAI_NONAME
    assert restored.status_code == 200
    assert provider.attempts() == 1


def test_real_names_are_left_alone() -> None:
    """All other names go to the system's resolver, whatever is asked of it."""
    before = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    with Names(HOST) as names:
        names.fail("localhost.test")

        assert before == socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        assert socket.getaddrinfo(None, 80)


def test_resolver_is_restored() -> None:
    """The block leaves nothing behind, also when it ends with an error."""
    before = socket.getaddrinfo
    with pytest.raises(RuntimeError, match="enough"), Names(HOST):
        raise RuntimeError("enough")

    assert socket.getaddrinfo is before


def test_nested_blocks(provider: Simulator) -> None:
    """An inner block may hide a name of the outer one."""
    with Names(HOST), Names() as inner:
        inner.fail(HOST)
        with pytest.raises(requests.exceptions.ConnectionError):
            ask(provider, HOST)
        inner.restore(HOST)

        assert ask(provider, HOST).status_code == 200


def test_leaves_a_later_wrapper_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrapped the resolver after it keeps working, without the invented names."""
    original = socket.getaddrinfo
    asked = []
    with Names(HOST) as names:
        ours = socket.getaddrinfo

        def theirs(host: Any, *args: Any, **kwargs: Any) -> Any:
            asked.append(host)
            return ours(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", theirs)
        names.fail("127.0.0.1")
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo("127.0.0.1", 80)

    assert socket.getaddrinfo is theirs
    assert socket.getaddrinfo("127.0.0.1", 80) == original("127.0.0.1", 80)
    assert asked == ["127.0.0.1", "127.0.0.1"]


def test_may_be_entered_again_but_not_twice(provider: Simulator) -> None:
    """The same names can be used in one block after another."""
    names = Names(HOST)
    with names, pytest.raises(RuntimeError, match="in force"):
        names.__enter__()
    with names:
        assert ask(provider, HOST).status_code == 200


def test_bytes_are_names_too() -> None:
    """The resolver takes bytes as well."""
    with Names(HOST):
        assert socket.getaddrinfo(HOST.encode(), 80)[0][4] == ("127.0.0.1", 80)


def test_threads_may_resolve_while_names_change() -> None:
    """Changing one name never disturbs another."""
    with Names(HOST) as names, ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: socket.getaddrinfo(HOST, 80)[0][4], range(400))
        for number in range(200):
            names.add(f"{number}.test")

        assert {("127.0.0.1", 80)} == set(found)
