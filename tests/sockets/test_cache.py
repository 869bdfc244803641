"""Answers that are kept, on real sockets: what a provider is asked, and what clients and scripts get."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from requests.adapters import HTTPAdapter
from requests.auth import HTTPDigestAuth

import holyroute
from holyroute.core.clock import Clock
from holyroute.engine.router import Router
from holyroute.simulator import Fault, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests
    from conftest import ShiftedClock

    from holyroute.config.schema import Config

    Configured = Callable[..., Config]

MESSAGES = [{"role": "user", "content": "What is the time?"}]
KEY = {"Authorization": "Bearer test-key-a"}
THREADS = 200


class WaitingClock(Clock):
    """Tells when a caller begins to wait for another one."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        """As usual; said aloud."""
        self.waiting.release()
        return super().wait(condition, seconds)


def held(gate: threading.Event) -> Fault:
    """An answer that waits for a gate."""

    def play(exchange: Any) -> None:
        gate.wait(10)
        faults.as_fault("ok").play(exchange)

    return Fault("held", play)


def test_one_question_of_200_threads_is_asked_once(a: Simulator, configured: Configured, env: dict[str, str]) -> None:
    """200 right answers for the price of one, and whoever changes his own changes nobody else's."""
    clock, gate, right = WaitingClock(), threading.Event(), []

    def ask(client: holyroute.Client) -> holyroute.Completion:
        completion = client.chat(MESSAGES, temperature=0)
        raw: Any = completion.raw
        right.append(raw["choices"][0]["message"].pop("content"))
        return completion

    a.always("*", held(gate))
    with (
        holyroute.Client(router=Router(configured(), clock=clock, env=env)) as client,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        asked = [pool.submit(ask, client) for _ in range(THREADS)]
        all_wait = all(clock.waiting.acquire(timeout=10) for _ in range(THREADS - 1))
        gate.set()
        completions = [one.result() for one in asked]
        spent = client.balance().spent

    assert all_wait
    assert a.attempts() == 1
    assert len(right) == THREADS
    assert {completion.content for completion in completions} == set(right)
    assert sorted(completion.cached for completion in completions) == [False, *[True] * (THREADS - 1)]
    assert sum(completion.cost_usd or 0 for completion in completions) == spent
    assert client.cache.info().coalesced == THREADS - 1


def test_a_client_remembers(a: Simulator, client: holyroute.Client) -> None:
    """The same answer, at no cost, said to be cached; until it is forgotten."""
    first, second = (client.chat(MESSAGES, temperature=0) for _ in range(2))
    kept = len(client.cache)
    client.cache.clear()
    third = client.chat(MESSAGES, temperature=0)

    assert a.attempts() == 2
    assert [one.cached for one in (first, second, third)] == [False, True, False]
    assert (second.content, second.raw, second.usage) == (first.content, first.raw, first.usage)
    assert (second.model, second.finish_reason, second.cost_usd) == ("ma", "stop", 0)
    assert (kept, client.cache.info().hits) == (1, 1)


def test_a_client_may_want_a_new_answer(a: Simulator, client: holyroute.Client) -> None:
    """`cache=False` neither takes nor keeps; questions that have many answers are always asked."""
    client.chat(MESSAGES, temperature=0)
    answers = [
        client.chat(MESSAGES, temperature=0, cache=False),
        client.ask("What is the time?"),
        client.ask("What is the time?"),
    ]

    assert [one.cached for one in answers] == [False] * 3
    assert a.attempts() == 4
    assert len(client.cache) == 1


def test_answers_outlive_their_provider(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """What is kept is given while everybody is down."""
    client.chat(MESSAGES, temperature=0)
    a.always("*", "503")
    b.always("*", "503")

    assert client.chat(MESSAGES, temperature=0).cached
    assert client.chat(MESSAGES, temperature=0, seed=1, on_failure="return").success is False


def post(session: requests.Session, provider: Simulator, **options: Any) -> requests.Response:
    body = {"model": "ma", "messages": MESSAGES, "temperature": 0, **options.pop("body", {})}
    defaults = {"json": body, "headers": KEY, "timeout": 3}
    return session.post(f"{provider.base_url}/chat/completions", **{**defaults, **options})


def how(response: requests.Response) -> str | None:
    return response.headers.get("X-Holyroute-Cache")


@pytest.fixture(params=["routed", "lone"])
def session(
    request: pytest.FixtureRequest, configured: Configured, clock: ShiftedClock, env: dict[str, str]
) -> Iterator[holyroute.Session]:
    """Keeps answers, as its owner wants; with somebody to route to, or without."""
    others = {} if request.param == "routed" else {"failover": {"mc": ["mb"], "*": []}}
    config = configured(cache={"dropin": True, "ttl": 100, "stale": 100}, **others)
    env = env if request.param == "routed" else {}
    with holyroute.Session(router=Router(config, clock=clock, env=env)) as session:
        yield session


def test_a_script_is_not_cached_unless_its_owner_says_so(a: Simulator, router: Router) -> None:
    """The doors that look like requests ask every time."""
    with holyroute.Session(router=router) as session:
        answers = [how(post(session, a)) for _ in range(2)]

    assert (answers, a.attempts(), len(router.cache)) == ([None, None], 2, 0)


def test_a_script_gets_a_real_response(a: Simulator, clock: ShiftedClock, session: holyroute.Session) -> None:
    """With status, body and headers of the answer that was kept, its age, the script's own request, and hooks."""
    first = post(session, a)
    clock.advance(42)
    heard: list[requests.Response] = []
    second = post(session, a, hooks={"response": lambda response, **_: heard.append(response)})
    again = pickle.loads(pickle.dumps(post(session, a)))  # noqa: S301 - our own
    trace = holyroute.trace_of(second)
    assert trace is not None
    assert trace.answered_by is not None

    assert a.attempts() == 1
    assert (second.status_code, second.reason, second.content) == (first.status_code, first.reason, first.content)
    assert (how(first), how(second), second.headers["Age"]) == (None, "hit", "42")
    assert second.headers["Content-Type"] == first.headers["Content-Type"]
    assert (second.request.headers["Authorization"], second.url) == (KEY["Authorization"], first.url)
    assert (trace.cached, trace.attempts, trace.answered_by.model) == ("hit", [], "ma")
    assert second.elapsed.total_seconds() == pytest.approx(trace.seconds, abs=1e-6)
    assert second.raw.status == 200
    assert heard == [second]
    assert again.json() == first.json()
    second.json().clear()
    second.headers.clear()
    assert post(session, a).headers["Content-Type"] == first.headers["Content-Type"]


def test_a_compressed_answer(a: Simulator, session: holyroute.Session) -> None:
    """Is kept as it was read, and can be read again."""
    a.always("*", "gzip")
    answers = [post(session, a) for _ in range(2)]

    assert answers[1].json() == answers[0].json()
    assert how(answers[1]) == "hit"


def test_a_stale_answer_helps_a_script(
    a: Simulator, b: Simulator, clock: ShiftedClock, session: holyroute.Session
) -> None:
    """Where nobody answers; marked, and with its age."""
    first = post(session, a)
    clock.advance(150)
    a.always("*", "503")
    b.always("*", "503")
    stale = post(session, a)
    trace = holyroute.trace_of(stale)
    assert trace is not None

    assert (stale.status_code, stale.json()) == (200, first.json())
    assert (how(stale), trace.cached) == ("stale", "stale")
    assert int(stale.headers["Age"]) >= 150
    assert len(trace.attempts) >= 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [("no-store", [None, None, None]), (b"No-Cache", [None, None, "hit"]), ("x", [None, "hit", "hit"])],
)
def test_a_scripts_cache_control_is_respected(
    a: Simulator, session: holyroute.Session, said: Any, expected: list[str | None]
) -> None:
    """`no-store` neither takes nor keeps, `no-cache` only keeps."""
    headers = KEY | {"Cache-Control": said}
    answers = [how(post(session, a, headers=headers)) for _ in range(2)]

    assert [*answers, how(post(session, a))] == expected


@pytest.mark.parametrize(
    "other",
    [
        {"headers": {"Authorization": "Bearer test-key-a2"}},
        {"headers": KEY | {"OpenAI-Organization": "org"}},
        {"headers": KEY | {"Cookie": "user=b"}},
        {"cookies": {"user": "b"}},
        {"params": {"api-version": "2"}},
        {"verify": False},
        {"body": {"seed": 1}},
        {"body": {"temperature": 0.0}},
        {"stream": True},
    ],
    ids=lambda other: str(*other.items())[:30],
)
def test_answers_are_not_for_somebody_else(a: Simulator, session: holyroute.Session, other: dict[str, Any]) -> None:
    """Another key, organisation, user, version or trust, and nothing is shared."""
    post(session, a)

    assert how(post(session, a, **other)) is None
    assert a.attempts() == 2
    assert how(post(session, a)) == "hit"


def test_a_traced_request_is_the_same_request(a: Simulator, session: holyroute.Session) -> None:
    """Headers that only tell one request from another do not matter."""
    answers = [how(post(session, a, headers=KEY | {"traceparent": f"00-{number}"})) for number in range(2)]

    assert answers == [None, "hit"]


def test_who_is_authenticated_later_is_not_cached(a: Simulator, session: holyroute.Session) -> None:
    """An adapter or an authentication of the user's own may add credentials that are not there yet."""

    class Signing(HTTPAdapter):
        def add_headers(self, request: requests.PreparedRequest, **_: Any) -> None:
            request.headers["Authorization"] = KEY["Authorization"]

    digest = [how(post(session, a, auth=HTTPDigestAuth("u", "p"))) for _ in range(2)]
    session.mount("http://", Signing())
    signed = [how(post(session, a)) for _ in range(2)]

    assert digest + signed == [None] * 4


def test_clients_and_scripts_share_nothing(a: Simulator, session: holyroute.Session) -> None:
    """The keys of the configuration are not the script's."""
    post(session, a)
    with holyroute.Client(router=session.router) as client:
        completion = client.chat(MESSAGES, model="ma", temperature=0, on_failure="return")

    assert completion.cached is False


def test_no_key_of_a_script_is_kept(a: Simulator, session: holyroute.Session) -> None:
    """Neither in what is kept nor in the names it is kept under."""
    post(session, a)
    entries = session.router.cache._entries
    kept = [(key, *(getattr(one, name) for name in one.__slots__)) for key, one in entries.items()]

    assert len(kept) == 1
    assert "test-key" not in repr(kept)


FORKING = """
import json, os, sys, threading
import holyroute

client = holyroute.Client(**json.loads(sys.argv[1]))

def ask(text):
    return client.chat([{"role": "user", "content": text}], model="ma", temperature=0).cached

ask("known")
threading.Thread(target=ask, args=["under way"], daemon=True).start()
sys.stdin.readline()  # it has arrived, and is not answered
pid = os.fork()
if pid == 0:
    print(json.dumps([len(client.cache), ask("under way"), ask("known"), ask("known")]), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
print(json.dumps([len(client.cache), ask("known")]), flush=True)
os._exit(0)
"""


def test_a_forked_child_waits_for_nobody(a: Simulator) -> None:
    """It has no answers of its parent's, and asks itself what a thread that stayed behind was asking."""
    gate = threading.Event()
    a.script("ma", "ok", held(gate))
    settings = {
        "providers": {"a": {"base_url": a.base_url}},
        "models": {"ma": {"provider": "a"}},
    }
    a.api_keys = None
    with subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        arrived = a.wait_for(2)
        shown, _ = process.communicate("\n", timeout=15)
    gate.set()

    assert arrived
    assert shown.splitlines() == ["[0, false, false, true]", "[1, true]"]
