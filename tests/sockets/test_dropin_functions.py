"""`import holyroute as requests`: the functions, and scripts that nobody edits but for this line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute import api
from holyroute.simulator import Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MESSAGES = [{"role": "user", "content": "What is the time?"}]
BODY = {"model": "ma", "messages": MESSAGES}


@pytest.fixture
def a() -> Iterator[Simulator]:
    """The scripts' own provider; it takes any key, or none."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _own_pools() -> Iterator[None]:
    api._pools.cache_clear()
    yield
    for adapter in api._pools().values():
        adapter.close()


def url_of(provider: Simulator) -> str:
    return f"{provider.base_url}/chat/completions"


def toml(tmp_path: Path, provider_a: str, provider_b: str) -> Path:
    """An owner's file: calls to A's host may go to B."""
    path = tmp_path / "owner.toml"
    path.write_text(f"""
[providers.b]
base_url = "{provider_b}"
api_key_env = "KEY_B"
[models.mb]
provider = "b"
[failover]
"{provider_a.split("/")[2]}" = ["mb"]
""")
    return path


@pytest.fixture
def configured_by_file(a: Simulator, b: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLYROUTE_CONFIG", str(toml(tmp_path, a.base_url, b.base_url)))
    monkeypatch.setenv("KEY_B", "test-key-b")


@pytest.mark.usefixtures("configured_by_file")
def test_the_functions_fail_over(a: Simulator, b: Simulator) -> None:
    """`post` and `request` use the default router, configured as its owner wishes."""
    a.always("*", 503)
    answers = [
        holyroute.post(url_of(a), json=BODY, timeout=3),
        holyroute.request("post", url_of(a), data=json.dumps(BODY)),
        holyroute.session().post(url_of(a), json=BODY),
        holyroute.Session().send(requests.Request("POST", url_of(a), json=BODY).prepare()),
    ]

    assert [answer.json()["model"] for answer in answers] == ["mb"] * 4
    assert b.attempts() == 4
    assert {trace.asked for trace in map(holyroute.trace_of, answers) if trace} == {"ma"}


@pytest.mark.parametrize("verb", ["get", "options", "head", "put", "patch", "delete"])
def test_other_verbs_send_what_requests_sends(a: Simulator, verb: str) -> None:
    """Methods, defaults (`head` follows no redirect) and keywords are those of requests."""
    options: dict[str, Any] = {"params": {"q": "1"}, "headers": {"X-Title": "x"}, "cookies": {"c": "1"}}
    expected, actual = (getattr(module, verb)(f"{a.base_url}/models", **options) for module in (requests, holyroute))
    plain, ours = a.seen

    assert (plain.method, plain.path, plain.headers.pairs, plain.body) == (
        ours.method,
        ours.path,
        ours.headers.pairs,
        ours.body,
    )
    assert expected.status_code == actual.status_code
    assert actual.request.method == verb.upper()


def test_functions_share_connections_and_nothing_else(a: Simulator) -> None:
    """Twenty calls need one connection; a cookie that one of them was given is not sent by the next."""
    a.always("*", faults.cookies("of=a; Path=/"))
    answers = [holyroute.post(url_of(a), json=BODY, headers={"X-Call": str(number)}) for number in range(20)]

    assert {seen.connection for seen in a.seen} == {1}
    assert {seen.headers.get("Cookie") for seen in a.seen} == {None}
    assert [seen.headers["X-Call"] for seen in a.seen] == [str(number) for number in range(20)]
    assert answers[0].cookies.get_dict() == {"of": "a"}


def test_a_stream_outlives_its_function(a: Simulator) -> None:
    """The body of a streamed answer can be read after the function returned, while others call."""
    response = holyroute.post(url_of(a), json={**BODY, "stream": True}, stream=True)
    holyroute.post(url_of(a), json=BODY)

    assert list(response.iter_lines())[-2] == b"data: [DONE]"


def test_closing_is_harmless(a: Simulator) -> None:
    """The session of one call takes nobody's connections along."""
    with api._OneCall() as session:
        session.post(url_of(a), json=BODY)
    session.close()
    session.post(url_of(a), json=BODY)

    assert {seen.connection for seen in a.seen} == {1}


@pytest.mark.usefixtures("configured_by_file")
def test_functions_can_be_called_from_many_threads(a: Simulator, b: Simulator) -> None:
    """One default router is made, whoever comes first; each thread gets its own answer."""
    a.always("*", "429:60")
    barrier = threading.Barrier(20)

    def ask(number: int) -> str:
        barrier.wait()
        body = {"model": "ma", "messages": [{"role": "user", "content": f"question {number}"}]}
        text: str = holyroute.post(url_of(a), json=body, timeout=10).json()["choices"][0]["message"]["content"]
        return text

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))

    assert answers == [f"Answer to: question {number}" for number in range(20)]
    assert b.attempts() == 20


# --- other processes --------------------------------------------------------------------------------------------------

LEGACY = """
import sys
import holyroute as requests

response = requests.post(
    sys.argv[1],
    headers={"Authorization": "Bearer test-key-a"},
    json={"model": "gpt-4.1", "messages": [{"role": "user", "content": "Say hello."}]},
    timeout=(5, 10),
)
response.raise_for_status()
print(response.json()["choices"][0]["message"]["content"])
"""

FORKING = """
import os, sys
import holyroute
def ask(number):
    body = {"model": "ma", "messages": [{"role": "user", "content": f"question {number}"}]}
    return holyroute.post(sys.argv[1], json=body, timeout=10).json()["choices"][0]["message"]["content"]
ask(0)
child = os.fork()
wrong = sum(ask(number) != f"Answer to: question {number}" for number in range(50))
if not child:
    os._exit(min(wrong, 100))
print(wrong, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(code: str, *arguments: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    return subprocess.run(
        # from 3.12 on Python warns of every fork beside another thread; ours is the watchdog
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, *arguments],
        env={"HOME": str(folder), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )


@pytest.mark.parametrize("trouble", ["503", "error-in-200", "html", "empty", "refused", "unresolvable"])
def test_a_legacy_script_gets_its_answer(a: Simulator, b: Simulator, tmp_path: Path, trouble: str) -> None:
    """Only its import line is changed, its owner wrote a file; whatever happens to its provider, it ends well."""
    base_url = "http://chat.invalid/v1" if trouble == "unresolvable" else a.base_url
    if trouble == "refused":
        a.unplug()
    elif trouble != "unresolvable":
        a.always("*", trouble)
    path = toml(tmp_path, base_url, b.base_url)
    url = f"{base_url}/chat/completions"
    done = run(LEGACY, url, folder=tmp_path, HOLYROUTE_CONFIG=str(path), KEY_B="test-key-b")

    assert (done.returncode, done.stdout) == (0, "Answer to: Say hello.\n")
    assert "mb at http://127.0.0.1" in done.stderr
    assert "test-key" not in done.stderr


@pytest.mark.parametrize(
    ("trouble", "says"), [("503", "HTTPError: 503"), ("html", "JSONDecodeError"), ("error-in-200", "KeyError")]
)
def test_a_disabled_legacy_script_dies_as_ever(
    a: Simulator, b: Simulator, tmp_path: Path, trouble: str, says: str
) -> None:
    """`HOLYROUTE_DISABLED=1` gives back what was there before, faults and all."""
    a.always("*", trouble)
    path = toml(tmp_path, a.base_url, b.base_url)
    env = {"HOLYROUTE_CONFIG": str(path), "KEY_B": "test-key-b", "HOLYROUTE_DISABLED": "1"}
    done = run(LEGACY, url_of(a), folder=tmp_path, **env)

    assert done.returncode == 1
    assert says in done.stderr
    assert b.attempts() == 0


@pytest.mark.parametrize("routed", [False, True])
def test_a_forked_child_has_connections_of_its_own(a: Simulator, b: Simulator, tmp_path: Path, *, routed: bool) -> None:
    """Parent and child ask at once after a fork, and each reads its own answers, routed or not."""
    path = toml(tmp_path, a.base_url, b.base_url)
    env = {"HOLYROUTE_CONFIG": str(path), "KEY_B": "test-key-b"} if routed else {}
    done = run(FORKING, url_of(a), folder=tmp_path, **env)

    assert (done.stdout, done.stderr) == ("0 0\n", "")
    assert {seen.connection for seen in a.seen} == {1, 2}
