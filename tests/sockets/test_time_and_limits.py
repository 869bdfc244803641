"""Deadlines hold, calls can be called off, rate limits are kept, and a fork starts afresh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.core import verdicts
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.core.trace import RESENT
from holyroute.engine.attempt import Candidate
from holyroute.simulator import Limit, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SLACK = 2.0  # seconds a busy machine may add


def settings(*providers: Simulator, **overrides: Any) -> dict[str, Any]:
    """One model at each provider: `m0`, `m1` …, listed in this order."""
    names = [f"m{number}" for number in range(len(providers))]
    tables: dict[str, Any] = {
        "providers": {f"p{number}": {"base_url": one.base_url} for number, one in enumerate(providers)},
        "models": {name: {"provider": f"p{number}"} for number, name in enumerate(names)},
        "routes": {"general": {"normal": names}},
    }
    for section, table in overrides.items():
        tables[section] = {**tables.get(section, {}), **table}
    return tables


@pytest.fixture
def a() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def b() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = SYSTEM_CLOCK.now()
    return work(), SYSTEM_CLOCK.now() - began


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [faults.drip(0.05), faults.drip_headers(0.05), faults.silent()], ids=lambda one: one.name
)
def test_a_dripping_answer_is_left_at_the_attempts_limit(a: Simulator, b: Simulator, fault: faults.Fault) -> None:
    """However alive the socket looks: when the attempt's time is over, the next model answers."""
    a.always("*", fault)
    client = holyroute.Client(**settings(a, b, time={"read": 0.5}))
    answer, seconds = timed(lambda: client.ask("hello"))

    assert answer.model == "m1"
    assert (a.attempts(), b.attempts()) == (1, 1)
    assert 0.5 <= seconds < 0.5 + SLACK


def test_a_drop_in_attempt_lasts_connect_and_read_together(a: Simulator, b: Simulator) -> None:
    """`timeout=` keeps its meaning per socket operation, and bounds the whole attempt besides."""
    a.always("*", faults.drip(0.05))
    host = f"127.0.0.1:{a.port}"
    session = holyroute.Session(holyroute.load(**settings(a, b, failover={host: ["m1"]})))
    body = {"model": "m0", "messages": [{"role": "user", "content": "hello"}]}
    response, seconds = timed(lambda: session.post(f"{a.base_url}/chat/completions", json=body, timeout=(0.2, 0.4)))

    assert response.json()["model"] == "m1"
    assert (a.attempts(), b.attempts()) == (1, 1)
    assert 0.6 <= seconds < 0.6 + SLACK


def test_a_cut_attempt_of_the_scripts_own_is_a_read_timeout(a: Simulator, b: Simulator) -> None:
    """If nobody else can, the script sees the class it knows."""
    a.always("*", faults.drip(0.05))
    b.always("*", 503)
    session = holyroute.Session(holyroute.load(**settings(a, b, failover={f"127.0.0.1:{a.port}": ["m1"]})))
    body = {"model": "m0", "messages": [{"role": "user", "content": "hello"}]}

    with pytest.raises(requests.ReadTimeout, match="no whole answer"):
        session.post(f"{a.base_url}/chat/completions", json=body, timeout=0.2)


def test_fifty_threads_keep_their_deadline(a: Simulator, b: Simulator) -> None:
    """Silent and dripping providers: everybody gets DeadlineExceeded when the time is up, and nothing hangs."""
    a.always("*", faults.silent())
    b.always("*", faults.drip(0.05))
    client = holyroute.Client(**settings(a, b))

    def call(_: int) -> float:
        began = SYSTEM_CLOCK.now()
        with pytest.raises(holyroute.DeadlineExceeded):
            client.ask("hello", deadline=1.0)
        return SYSTEM_CLOCK.now() - began

    with ThreadPoolExecutor(50) as pool:
        seconds = list(pool.map(call, range(50)))

    assert min(seconds) >= 0.85
    assert max(seconds) < 1.0 + SLACK


def test_a_deadline_that_has_passed_sends_nothing(a: Simulator) -> None:
    """It fails at once."""
    client = holyroute.Client(**settings(a))
    for deadline in (0, -1):
        with pytest.raises(holyroute.DeadlineExceeded):
            client.ask("hello", deadline=deadline)

    assert a.attempts() == 0


def test_an_attempt_that_a_short_deadline_ended_is_not_held_against_the_target(a: Simulator, b: Simulator) -> None:
    """Impatience says nothing about a provider's health."""
    a.always("*", faults.silent())
    client = holyroute.Client(**settings(a, b))
    traces = [client.ask("hello", deadline=0.4).trace for _ in range(6)]

    assert [str(trace.attempts[0].verdict) for trace in traces] == [verdicts.CUT_SHORT.name] * 6
    assert client.router.guards[client.router.config.models["m0"]].breaker.snapshot().consecutive_failures == 0


def test_a_custom_adapter_is_not_cut_and_the_trace_says_so(a: Simulator, b: Simulator) -> None:
    """Somebody else's adapter keeps its own idea of time."""

    class Theirs(requests.adapters.HTTPAdapter):
        pass

    session = holyroute.Session(holyroute.load(**settings(a, b, failover={f"127.0.0.1:{a.port}": ["m1"]})))
    session.mount("http://", Theirs())
    body = {"model": "m0", "messages": [{"role": "user", "content": "hello"}]}
    response = session.post(f"{a.base_url}/chat/completions", json=body)
    trace = holyroute.trace_of(response)

    assert trace is not None
    assert "per socket operation" in trace.attempts[0].detail


# --- cancelling -------------------------------------------------------------------------------------------------------


def test_a_caller_can_call_off(a: Simulator, b: Simulator) -> None:
    """The call ends while the provider is silent; nobody else is asked, and no breaker counts it."""
    a.always("*", faults.silent())
    client = holyroute.Client(**settings(a, b))
    token = holyroute.CancelToken()

    def call_off() -> None:
        a.wait_for(1)
        token.cancel()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(call_off)
        with pytest.raises(holyroute.AllTargetsFailed, match="cancelled") as failure:
            client.chat([{"role": "user", "content": "hello"}], cancel=token)

    assert b.attempts() == 0
    assert [record.verdict for record in failure.value.trace.attempts] == [verdicts.CANCELLED]
    assert client.router.guards[client.router.config.models["m0"]].breaker.snapshot().window_calls == 0


def test_a_call_that_is_off_already_sends_nothing(a: Simulator) -> None:
    """Nothing goes out for somebody who has left."""
    token = holyroute.CancelToken()
    token.cancel()
    with pytest.raises(holyroute.AllTargetsFailed, match="cancelled"):
        holyroute.Client(**settings(a)).ask("hello", cancel=token)

    assert a.attempts() == 0


def test_a_pause_can_be_called_off(a: Simulator) -> None:
    """Waiting for a busy provider ends when the caller leaves."""
    a.always("*", "429:30")
    client = holyroute.Client(**settings(a, time={"deadline": 300}))
    token = holyroute.CancelToken()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (a.wait_for(1), token.cancel()))
        _, seconds = timed(lambda: client.ask("hello", cancel=token, on_failure="return"))

    assert seconds < 30
    assert a.attempts() == 1


# --- rate limits ------------------------------------------------------------------------------------------------------


def test_a_limit_that_is_kept_meets_no_429() -> None:
    """Sixteen threads on 60 requests a minute, a minute being three seconds here: none refused, most of it used."""
    scale, calls = 0.05, 90
    with Simulator(limits={"m0": Limit(rpm=60, tpm=60_000)}, time_scale=scale) as provider:
        client = holyroute.Client(
            **settings(provider, models={"m0": {"provider": "p0", "rpm": 60, "tpm": 60_000}}),
            limits={"max_wait": 60, "window_scale": scale},
        )
        with ThreadPoolExecutor(16) as pool:
            answers, seconds = timed(lambda: list(pool.map(lambda number: client.ask(f"call {number}"), range(calls))))
        refused = [seen for seen in provider.seen if seen.status == 429]

    assert [answer.success for answer in answers] == [True] * calls
    assert refused == []
    assert seconds >= (calls - 60) / 60 * 60 * scale  # a limit that is not kept would take no time at all


def test_a_limit_set_too_high_is_learnt_from_429() -> None:
    """Configured at twice the real limit: after a few refusals the rate fits."""
    scale, calls = 0.05, 120
    with Simulator(limits={"m0": Limit(rpm=60)}, time_scale=scale) as provider:
        client = holyroute.Client(
            **settings(provider, models={"m0": {"provider": "p0", "rpm": 120}}),
            limits={"max_wait": 60, "window_scale": scale},
            retry={"throttle_min": 0.1, "throttle_max": 0.2},
        )
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: client.ask(f"call {number}", on_failure="return"), range(calls)))
        statuses = [seen.status for seen in provider.seen]

    assert sum(answer.success for answer in answers) >= calls * 0.9
    assert statuses[len(statuses) // 2 :].count(429) <= len(statuses) / 2 * 0.2


def test_a_full_limit_sends_the_call_to_the_next_model(a: Simulator, b: Simulator) -> None:
    """Waiting is for those who have nobody else: one request a minute here, and the second call goes elsewhere."""
    client = holyroute.Client(**settings(a, b, models={"m0": {"provider": "p0", "rpm": 2}}))
    models = [client.ask("hello").model for _ in range(3)]

    assert models[0] == "m0"
    assert models[-1] == "m1"


def test_a_short_wait_keeps_the_preferred_model(a: Simulator, b: Simulator) -> None:
    """The next model is free, but the first one will be within a moment: every call stays with it."""
    tables = settings(a, b, models={"m0": {"provider": "p0", "rpm": 60}})
    client = holyroute.Client(**tables, limits={"window_scale": 0.05})
    models = [client.ask("hello").model for _ in range(12)]

    assert models == ["m0"] * 12


def test_a_full_limit_and_nobody_else_says_when(a: Simulator) -> None:
    """The failure carries the time after which it is worth trying again."""
    client = holyroute.Client(**settings(a, models={"m0": {"provider": "p0", "rpm": 2}}))
    client.ask("hello")
    with pytest.raises(holyroute.AllTargetsFailed, match="rate limited") as failure:
        client.ask("hello")

    assert failure.value.retry_after is not None
    assert 5 < failure.value.retry_after <= 60


def test_a_prompt_that_can_never_pass_is_said_so(a: Simulator, b: Simulator) -> None:
    """A limit below the size of one prompt is no reason to wait for ever: the next model is asked."""
    client = holyroute.Client(**settings(a, b, models={"m0": {"provider": "p0", "tpm": 100}}))
    answer = client.ask("word " * 500)

    assert answer.model == "m1"
    assert answer.trace is not None
    assert "more than its rate limit allows" in str(answer.trace)


def test_a_providers_concurrency_is_kept() -> None:
    """At most so many requests of one provider at the same time."""
    with Simulator(models=None) as provider:
        provider.always("*", faults.late(0.05))
        tables = settings(provider)
        tables["providers"]["p0"]["max_concurrency"] = 3
        client = holyroute.Client(**tables, limits={"max_wait": 60})
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda number: client.ask(f"call {number}"), range(24)))
        most = max(
            sum(one.arrived <= seen.arrived < (one.finished or 0) for one in provider.seen) for seen in provider.seen
        )

    assert len(answers) == 24
    assert most <= 3


# --- keep-alive, fork, exit -------------------------------------------------------------------------------------------


def test_idle_connections_that_the_provider_closed_cost_nothing(a: Simulator) -> None:
    """200 calls over connections that die when they are used again: no error, no failure; trace and ledger know."""
    a.always("*", faults.close_on_reuse())
    client = holyroute.Client(**settings(a))
    answers = [client.ask(f"call {number}") for number in range(200)]
    snapshot = client.router.guards[client.router.config.models["m0"]].breaker.snapshot()

    assert all(len(answer.trace.attempts) == 1 for answer in answers if answer.trace)
    resent = [answer for answer in answers if answer.trace and RESENT in answer.trace.attempts[0].detail]
    assert len(resent) == 199
    assert client.router.ledger.entries()[0].unreported == 199
    assert (snapshot.window_failures, snapshot.window_calls) == (0, 200)


FORKING = """
import json, os, sys, threading
import holyroute

tables = json.loads(sys.argv[1])
client = holyroute.Client(**tables)
session = holyroute.Session(holyroute.load(**tables))
url = tables["providers"]["p0"]["base_url"] + "/chat/completions"

def ask(text):
    body = {"model": "m0", "messages": [{"role": "user", "content": text}]}
    by_session = session.post(url, json=body).json()["choices"][0]["message"]["content"]
    return text in client.ask(text).content and text in by_session

def keep_busy():
    while not over.is_set():
        client.ask("busy")

over = threading.Event()
assert ask("first use")
threads = [threading.Thread(target=keep_busy, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
children = []
for child in range(4):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        right = sum(ask(f"child {child} call {number}") for number in range(50))
        booked = sum(entry.attempts for entry in client.router.ledger.entries())
        os.write(writer, json.dumps([right, booked]).encode())
        os._exit(0)
    os.close(writer)
    children.append((pid, reader))
results = []
for pid, reader in children:
    results.append(json.loads(os.read(reader, 1000)))
    os.waitpid(pid, 0)
over.set()
print(json.dumps(results))
os._exit(0)
"""


def test_a_fork_starts_afresh(a: Simulator, b: Simulator) -> None:
    """Four children of a busy process, 50 calls each: every answer belongs to its question, no bill is inherited."""
    tables = settings(a, b, failover={f"127.0.0.1:{a.port}": ["m1"]})
    done = python(FORKING, json.dumps(tables))

    assert json.loads(done) == [[50, 50]] * 4


EXITING = """
import sys, threading
import holyroute, json

client = holyroute.Client(**json.loads(sys.argv[1]))
for _ in range(8):
    threading.Thread(target=client.ask, args=("hello",), daemon=True).start()
sys.stdin.readline()
print("leaving")
"""


def test_the_interpreter_leaves_at_once(a: Simulator) -> None:
    """Calls under way in daemon threads, and the watchdog, do not hold the exit."""
    a.always("*", faults.silent())
    with subprocess.Popen(
        [sys.executable, "-c", EXITING, json.dumps(settings(a))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        a.wait_for(8)
        began = SYSTEM_CLOCK.now()
        shown, complaints = process.communicate("\n", timeout=15)
        seconds = SYSTEM_CLOCK.now() - began

    assert (shown, complaints, process.returncode) == ("leaving\n", "", 0)
    assert seconds < 1.0 + SLACK


def python(code: str, argument: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, argument],
        capture_output=True,
        text=True,
        check=False,
        timeout=18,
        env=dict(os.environ),
    )

    assert done.returncode == 0, done.stderr
    return done.stdout


# --- observers --------------------------------------------------------------------------------------------------------


def test_an_observer_that_raises_costs_nobody_anything(
    a: Simulator, b: Simulator, caplog: pytest.LogCaptureFixture
) -> None:
    """Its failure is reported once; every call is answered, and the breaker moves on."""
    a.always("*", 503)
    client = holyroute.Client(**settings(a, b))
    seen: list[str] = []

    def broken(event: object) -> None:
        seen.append(type(event).__name__)
        raise RuntimeError("observer")

    client.router.events.subscribe(broken)
    with ThreadPoolExecutor(8) as pool:
        models = set(pool.map(lambda number: client.ask(f"call {number}").model, range(40)))

    assert models == {"m1"}
    assert "CircuitChanged" in seen
    assert len([record for record in caplog.records if "observer" in record.message]) == 1


def test_a_loan_that_bought_no_retry_comes_back(a: Simulator) -> None:
    """Leaving during the pause before a retry costs the budget nothing."""
    a.always("*", 503)
    client = holyroute.Client(**settings(a), retry={"backoff_base": 30, "backoff_max": 60})
    token = holyroute.CancelToken()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (a.wait_for(1), token.cancel()))
        client.ask("hello", cancel=token, on_failure="return")
    router = client.router
    budget = router.state.budget([Candidate(target=router.config.models["m0"])])

    assert budget.tokens == 100
