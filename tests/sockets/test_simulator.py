from __future__ import annotations

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

from holyroute.core.clock import Clock
from holyroute.simulator import Exchange, Fault, Limit, ModelStatistics, Profile, Simulator, benchmark_profiles, faults
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "gpt-4.1"


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def body(prompt: str = "Hello", model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}


def ask(session: requests.Session, provider: Simulator, prompt: str = "Hello", **fields: Any) -> requests.Response:
    return session.post(f"{provider.base_url}/chat/completions", json=body(prompt, **fields), timeout=5)


def content(response: requests.Response) -> str:
    text = response.json()["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def raw(provider: Simulator, *pieces: bytes) -> bytes:
    """Send the pieces on a socket of its own and read until the simulator closes."""
    with socket.create_connection(("127.0.0.1", provider.port), timeout=5) as sock:
        for piece in pieces:
            sock.sendall(piece)
        received = b""
        # A server which hangs up with bytes unread may reset the connection behind its answer.
        with suppress(ConnectionResetError):
            while data := sock.recv(65_536):
                received += data
        return received


def threads_of(provider: Simulator) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"simulator-{provider.port}-")]


def test_good_answer(provider: Simulator, session: requests.Session) -> None:
    """By default any model answers at once, in OpenAI's shape, repeating the question."""
    response = ask(session, provider, "What is the time?")
    completion = response.json()

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert completion["object"] == "chat.completion"
    assert completion["model"] == MODEL
    assert completion["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Answer to: What is the time?"},
            "finish_reason": "stop",
        }
    ]
    assert completion["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}


def test_script_then_healthy(provider: Simulator, session: requests.Session) -> None:
    """Each scripted step answers one request to its model; then the model is healthy again."""
    provider.script(MODEL, faults.status(503), "429:2", 500)

    scripted = [ask(session, provider).status_code for _ in range(5)]
    other = ask(session, provider, model="other")

    assert scripted == [503, 429, 500, 200, 200]
    assert other.status_code == 200


def test_script_does_not_touch_other_models(provider: Simulator, session: requests.Session) -> None:
    """A step waits for a request to its own model."""
    provider.script(MODEL, 503)

    assert ask(session, provider, model="other").status_code == 200
    assert ask(session, provider).status_code == 503


def test_always_until_healed(provider: Simulator, session: requests.Session) -> None:
    """A standing fault answers every request, after the scripted steps, until it is healed."""
    provider.always(MODEL, faults.status(503))
    provider.script(MODEL, 500)

    sick = [ask(session, provider).status_code for _ in range(3)]
    provider.heal(MODEL)

    assert sick == [500, 503, 503]
    assert ask(session, provider).status_code == 200


def test_star_stands_for_all_models(provider: Simulator, session: requests.Session) -> None:
    """Steps for "*" answer any model which has none of its own."""
    provider.always("*", 503)
    provider.always(MODEL, 500)

    assert ask(session, provider, model="other").status_code == 503
    assert ask(session, provider).status_code == 500

    provider.heal()

    assert ask(session, provider, model="other").status_code == 200


def test_star_can_be_scripted(provider: Simulator, session: requests.Session) -> None:
    """A step for "*" answers one request to whichever model comes first, after the model's own steps."""
    provider.script("*", 503, 500)
    provider.script(MODEL, 429)

    codes = [ask(session, provider, model=model).status_code for model in (MODEL, MODEL, "other", MODEL)]

    assert codes == [429, 503, 500, 200]


def test_model_name_selects_the_fault(provider: Simulator, session: requests.Session) -> None:
    """`sim:<name>:<argument>` needs no schedule; what it names wrongly is an unknown model."""
    limited = ask(session, provider, model="sim:429:7")
    unknown = ask(session, provider, model="sim:rset")

    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "7")
    assert unknown.status_code == 404
    assert "did you mean 'reset'" in unknown.json()["error"]["message"]


def test_once_by_name_forgets_when_healed(provider: Simulator, session: requests.Session) -> None:
    """A fault that counts does so per model name, and starts again after `heal()`."""
    before = [ask(session, provider, model="sim:once:503").status_code for _ in range(3)]
    provider.heal("sim:once:503")
    after_one = [ask(session, provider, model="sim:once:503").status_code for _ in range(2)]
    provider.heal()

    assert before == [503, 200, 200]
    assert after_one == [503, 200]
    assert ask(session, provider, model="sim:once:503").status_code == 503


def test_names_of_faults_do_not_pile_up() -> None:
    """However many names are asked for, only so many are remembered."""
    provider = Simulator()
    for number in range(1_001):
        provider._by_name(f"sim:ok:{number}")

    assert len(provider._named) == 1


def test_seen_tells_what_arrived(provider: Simulator, session: requests.Session) -> None:
    """The provider's view: request, answer, tokens and times, complete as soon as the client has its answer."""
    provider.script(MODEL, 503)
    first = session.post(
        f"{provider.base_url}/chat/completions?trace=1", json=body("12345678"), headers={"X-Mark": "a"}, timeout=5
    )
    ask(session, provider, "12345678")
    failed, answered = provider.seen

    assert first.status_code == 503
    assert (failed.number, failed.model, failed.method) == (1, MODEL, "POST")
    assert failed.path == "/v1/chat/completions?trace=1"
    assert failed.headers["x-mark"] == "a"
    assert "X-Mark" in dict(failed.headers.pairs)
    assert {"host", "x-mark", "content-length"} <= dict(failed.headers).keys()
    assert len(failed.headers) == len(failed.headers.pairs)
    assert failed.json == json.loads(failed.body) == body("12345678")
    assert (failed.status, failed.fault, failed.billed) == (503, "503", False)
    assert (answered.status, answered.fault, answered.billed) == (200, "ok", True)
    assert (answered.prompt_tokens, answered.completion_tokens) == (2, 3)
    assert failed.finished is not None
    assert failed.arrived <= failed.finished <= answered.arrived


def test_connections_are_kept_alive(provider: Simulator, session: requests.Session) -> None:
    """One client, one connection; a client which asks for it is hung up on."""
    for _ in range(3):
        ask(session, provider)
    session.post(f"{provider.base_url}/chat/completions", json=body(), headers={"Connection": "close"}, timeout=5)
    ask(session, provider)

    assert [seen.connection for seen in provider.seen] == [1, 1, 1, 1, 2]


def test_memory_is_bounded_and_counters_are_exact(session: requests.Session) -> None:
    """`keep` bounds what is remembered, not what is counted."""
    with Simulator(keep=2) as provider:
        for number in range(5):
            ask(session, provider, str(number))

        assert [seen.number for seen in provider.seen] == [4, 5]
        assert (provider.attempts(), provider.attempts(MODEL), provider.attempts("other")) == (5, 5, 0)
        assert provider.statistics()[MODEL].calls == 5


def test_keep_zero_remembers_nothing(session: requests.Session) -> None:
    """Memory can be switched off."""
    with Simulator(keep=0) as provider:
        ask(session, provider)

        assert provider.seen == []
        assert provider.attempts() == 1


def test_answers_are_not_mixed_up(provider: Simulator) -> None:
    """50 clients with 20 questions each get the answers to their own questions."""

    def client(number: int) -> list[str]:
        with requests.Session() as session:
            return [content(ask(session, provider, f"question {number}-{turn}")) for turn in range(20)]

    with ThreadPoolExecutor(50) as pool:
        answered = list(pool.map(client, range(50)))

    assert answered == [[f"Answer to: question {number}-{turn}" for turn in range(20)] for number in range(50)]
    assert provider.attempts(MODEL) == 1000
    assert len({seen.number for seen in provider.seen}) == 1000
    assert provider.statistics()[MODEL].calls == 1000


def test_statistics_and_bill_are_exact(session: requests.Session) -> None:
    """Whole answers are billed by the model's own prices to the last digit, failed calls not at all."""
    prices = Profile(price_input=Decimal("0.42"), price_output=Decimal("1.68"), completion_tokens=7)
    with Simulator({MODEL: prices}) as provider:
        provider.script(MODEL, 503, faults.cut_body(), faults.billed(faults.cut_body()))
        codes = [ask(session, provider, "x" * 400).status_code]
        for _ in range(2):
            with pytest.raises(requests.exceptions.ChunkedEncodingError):
                ask(session, provider, "x" * 400)
        codes += [ask(session, provider, "x" * 400).status_code for _ in range(2)]
        figures = provider.statistics()[MODEL]

        billed = [seen.billed for seen in provider.seen]

    assert codes == [503, 200, 200]
    assert billed == [False, False, True, True, True]
    assert (figures.calls, figures.failures, figures.availability) == (5, 3, 0.4)
    assert (figures.prompt_tokens, figures.completion_tokens) == (300, 21)
    assert Decimal("0.00016128") == figures.bill
    assert 0 < figures.average <= figures.p95 < 5


def test_latency_and_availability_of_profiles() -> None:
    """A hundred calls at a thousandth of the real time: the clock's waits are the profile's latencies."""
    clock = FakeClock()
    profile = Profile(mean=2.0, availability=0.5)
    with Simulator({MODEL: profile}, time_scale=0.001, clock=clock) as provider, requests.Session() as session:
        codes = [ask(session, provider).status_code for _ in range(100)]
        figures = provider.statistics()[MODEL]

    assert set(codes) == {200, 503}
    assert 30 <= codes.count(503) <= 70
    assert clock.slept == [0.002] * codes.count(200)
    assert pytest.approx(0.002) == figures.average
    assert codes.count(200) / 100 == figures.availability


def test_same_seed_same_answers() -> None:
    """The seed decides which calls fail."""

    def codes(seed: int) -> list[int]:
        with Simulator({MODEL: Profile(availability=0.5)}, seed=seed) as provider, requests.Session() as session:
            return [ask(session, provider).status_code for _ in range(30)]

    assert codes(1) == codes(1)
    assert codes(1) != codes(2)


def test_benchmark_models_answer(session: requests.Session) -> None:
    """The published table runs at any speed; its models are listed, others are unknown."""
    with Simulator(benchmark_profiles(), time_scale=0.0) as provider:
        known = {ask(session, provider, model=model).status_code for model in benchmark_profiles()}
        unknown = ask(session, provider, model="gpt-5")
        named = ask(session, provider, model="sim:418")
        listed = session.get(f"{provider.base_url}/models", timeout=5).json()

    assert named.status_code == 418
    assert known <= {200, 503}
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert sorted(benchmark_profiles()) == [model["id"] for model in listed["data"]]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer test-key-a"}, 200),
        ({"api-key": "test-key-a"}, 200),
        ({"Authorization": "Bearer test-key-b"}, 401),
        ({"Authorization": "test-key-a"}, 401),
        ({"Authorization": "Basic test-key-a"}, 401),
        ({}, 401),
    ],
)
def test_keys(headers: dict[str, str], status: int) -> None:
    """With keys configured, only a request which carries one is answered; a step waits for a request that is let in."""
    with Simulator(api_keys={"test-key-a"}) as provider:
        provider.script(MODEL, faults.ok("scripted"))
        response = requests.post(f"{provider.base_url}/chat/completions", json=body(), headers=headers, timeout=5)

    assert status == response.status_code
    if status == 401:
        assert response.json()["error"]["code"] == "invalid_api_key"
    else:
        assert content(response) == "scripted"


def test_list_of_models_needs_a_key_too() -> None:
    """Keys are asked for on every known path."""
    with Simulator(api_keys={"test-key-a"}) as provider:
        refused = requests.get(f"{provider.base_url}/models", timeout=5)
        listed = requests.get(f"{provider.base_url}/models", headers={"api-key": "test-key-a"}, timeout=5)

    assert (refused.status_code, listed.status_code) == (401, 200)


def test_base_path(session: requests.Session) -> None:
    """The API may live at any path, or at none."""
    with Simulator(path="/gateway/v1/") as deep, Simulator(path="/") as bare:
        codes = [ask(session, provider).status_code for provider in (deep, bare)]

        assert deep.base_url == f"http://127.0.0.1:{deep.port}/gateway/v1"
        assert bare.base_url == f"http://127.0.0.1:{bare.port}"
    assert codes == [200, 200]


def test_keys_stay_out_of_its_text() -> None:
    """A Simulator can be printed."""
    assert "test-key-a" not in repr(Simulator(api_keys={"test-key-a"}))


def test_azure_deployments(provider: Simulator, session: requests.Session) -> None:
    """The deployment in the path is the model, whatever the body says."""
    provider.script("my deployment", 503)
    url = f"http://127.0.0.1:{provider.port}/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21"
    codes = [session.post(url, json=body(), timeout=5).status_code for _ in range(2)]

    assert codes == [503, 200]
    assert (provider.attempts("my deployment"), provider.attempts(MODEL)) == (2, 0)


def test_absolute_form_as_through_a_proxy(provider: Simulator) -> None:
    """A client which takes the simulator for its proxy is answered like any other."""
    url = "http://gateway.example-a.test/v1/chat/completions"
    response = requests.post(url, json=body(), proxies={"http": f"http://127.0.0.1:{provider.port}"}, timeout=5)

    assert response.status_code == 200
    assert [seen.path for seen in provider.seen] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    ("method", "path", "payload", "status"),
    [
        ("POST", "/v1/completions", body(), 404),
        ("POST", "/chat/completions", body(), 404),
        ("GET", "/", None, 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("POST", "/v1/chat/completions", None, 400),
        ("POST", "/v1/chat/completions", [1], 400),
        ("POST", "/v1/chat/completions", {"messages": []}, 400),
        ("POST", "/v1/chat/completions", {"model": MODEL}, 400),
    ],
)
def test_wrong_requests_get_openai_errors(
    provider: Simulator, method: str, path: str, payload: Any, status: int
) -> None:
    """Unknown paths, methods and bodies are refused in OpenAI's shape, and counted."""
    response = requests.request(method, f"http://127.0.0.1:{provider.port}{path}", json=payload, timeout=5)

    assert status == response.status_code
    assert {"message", "type", "param", "code"} == response.json()["error"].keys()
    assert provider.attempts() == 1


def test_chunked_request(provider: Simulator) -> None:
    """A body sent without a length is read as well."""
    data = json.dumps(body("in pieces")).encode()
    pieces = iter([data[:10], data[10:]])
    response = requests.post(f"{provider.base_url}/chat/completions", data=pieces, timeout=5)

    assert content(response) == "Answer to: in pieces"


def test_expect_continue(provider: Simulator) -> None:
    """A client which asks before it sends the body is told to go on."""
    data = json.dumps(body()).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {len(data)}\r\n".encode()
    received = raw(provider, head + b"Connection: close\r\n\r\n", data)

    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_http_1_0(provider: Simulator) -> None:
    """An old client is hung up on, as it expects."""
    data = json.dumps(body()).encode()
    received = raw(
        provider, f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(data)}\r\n\r\n".encode(), data
    )

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in received


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nsize\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000,
    ],
)
def test_rubbish_is_refused(provider: Simulator, session: requests.Session, rubbish: bytes) -> None:
    """What is no HTTP gets 400 and counts as nothing; the next client is served."""
    received = raw(provider, rubbish)

    assert received.startswith(b"HTTP/1.1 400 ")
    assert provider.attempts() == 0
    assert ask(session, provider).status_code == 200


@pytest.mark.parametrize("half", [b"POST /v1/chat", b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345"])
def test_half_a_request_counts_as_nothing(provider: Simulator, session: requests.Session, half: bytes) -> None:
    """A client that leaves in the middle of its request has not asked."""
    with socket.create_connection(("127.0.0.1", provider.port)) as sock:
        sock.sendall(half)
    ask(session, provider)

    assert provider.attempts() == 1


def test_limits_are_enforced() -> None:
    """Above the limit comes 429 with the time to wait; after that time the model answers again."""
    clock = FakeClock()
    with Simulator(limits={MODEL: Limit(rpm=2)}, clock=clock) as provider, requests.Session() as session:
        allowed = [ask(session, provider).status_code for _ in range(2)]
        clock.advance(20.5)
        refused = ask(session, provider)
        clock.advance(39.5)
        again = ask(session, provider)
        other = ask(session, provider, model="other")

    assert allowed == [200, 200]
    assert refused.status_code == 429
    assert (refused.headers["Retry-After"], refused.headers["retry-after-ms"]) == ("40", "39500")
    assert (again.status_code, other.status_code) == (200, 200)


def test_limits_run_at_any_speed() -> None:
    """A window of a minute, at a tenth of the time, is six seconds."""
    clock = FakeClock()
    limits = {MODEL: Limit(rpm=1)}
    with Simulator(limits=limits, time_scale=0.1, clock=clock) as provider, requests.Session() as session:
        first, second = (ask(session, provider) for _ in range(2))
        clock.advance(6)
        third = ask(session, provider)

    assert (first.status_code, third.status_code) == (200, 200)
    assert (second.status_code, second.headers["Retry-After"]) == (429, "6")


def test_token_limit_counts_prompt_and_answer() -> None:
    """10 tokens of prompt and 3 of answer, twice, exceed 25."""
    with Simulator(limits={MODEL: Limit(tpm=25)}) as provider, requests.Session() as session:
        codes = [ask(session, provider, "x" * 40).status_code for _ in range(2)]

    assert codes == [200, 429]


def test_unplug_and_plug(provider: Simulator, session: requests.Session) -> None:
    """Unplugged, connections are refused; plugged in again, the same address answers."""
    ask(session, provider)
    address = provider.base_url
    provider.unplug()
    for _ in range(2):
        with pytest.raises(requests.exceptions.ConnectionError, match="refused"):
            ask(session, provider)
    provider.plug()

    assert ask(session, provider).status_code == 200
    assert address == provider.base_url
    assert provider.attempts() == 2


def test_port_stays_reserved(provider: Simulator) -> None:
    """While it is unplugged, the system gives its port to nobody else."""
    provider.unplug()
    with closing(socket.socket()) as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", provider.port))


def test_ended_connections_are_forgotten(provider: Simulator) -> None:
    """A simulator which runs for long holds only what is alive."""
    for _ in range(3):
        requests.post(f"{provider.base_url}/chat/completions", json=body(), timeout=5)
    for thread in threading.enumerate():
        if thread.name.startswith(f"simulator-{provider.port}-connection-"):
            thread.join(5)

    assert provider._server._connections == {}


def test_unplugging_cuts_calls_in_flight(provider: Simulator, session: requests.Session) -> None:
    """Whoever waits for an answer at that moment sees the connection end."""
    provider.always(MODEL, faults.silent())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, session, provider)
        arrived = provider.wait_for(1)
        provider.unplug()
        error = waiting.exception(timeout=5)

    assert arrived
    assert isinstance(error, requests.exceptions.ConnectionError)
    assert provider.statistics()[MODEL].failures == 1


def test_dropped_connections_are_replaced(provider: Simulator, session: requests.Session) -> None:
    """Only what is open closes; the next request finds a listener."""
    ask(session, provider)
    provider.drop_connections()

    assert ask(session, provider).status_code == 200
    assert [seen.connection for seen in provider.seen] == [1, 2]


@pytest.mark.parametrize("fault", ["silent", "drip:30", "drip-headers:30", "late:30", "stall:1", "first-token-late:30"])
def test_close_ends_everything(fault: str) -> None:
    """However a connection hangs, closing ends it, its thread and its port within about a second."""
    with Simulator() as provider:
        provider.always(MODEL, fault)
        with ThreadPoolExecutor(3) as pool, requests.Session() as session:
            waiting = [pool.submit(ask, session, provider) for _ in range(3)]
            arrived = provider.wait_for(3)
            provider.close()
            errors = [call.exception(timeout=5) for call in waiting]

    assert arrived
    assert all(isinstance(error, requests.exceptions.RequestException) for error in errors)
    assert threads_of(provider) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", provider.port), timeout=5)


def test_close_ends_a_send_nobody_reads() -> None:
    """A client which never reads does not hold the simulator."""
    data = json.dumps(body()).encode()
    sending = threading.Event()

    def flood(exchange: Exchange) -> None:
        sending.set()
        exchange.send(bytes(30_000_000))

    with Simulator() as provider, closing(socket.create_connection(("127.0.0.1", provider.port))) as sock:
        provider.script(MODEL, Fault("flood", flood))
        sock.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        started = sending.wait(5)
        provider.close()

        assert started
        assert threads_of(provider) == []
        assert provider.statistics()[MODEL].failures == 1


def test_close_ends_waits_of_a_shifted_clock() -> None:
    """A clock which only tells another time leaves the waiting to the simulator, which can cut it short."""

    class Shifted(Clock):
        def now(self) -> float:
            return super().now() + 1_000

    with Simulator(clock=Shifted()) as provider, ThreadPoolExecutor(1) as pool, requests.Session() as session:
        call = pool.submit(ask, session, provider, model="sim:late:30")
        arrived = provider.wait_for(1)
        provider.close()

        assert arrived
        assert isinstance(call.exception(timeout=5), requests.exceptions.ConnectionError)
        assert threads_of(provider) == []


def test_a_fault_may_pull_the_plug(session: requests.Session) -> None:
    """The provider dies in the middle of an answer, by its own hand."""
    with Simulator() as provider:

        def die(exchange: Exchange) -> None:
            exchange.send(exchange.head(200, "application/json", length=100))
            provider.unplug()

        provider.script(MODEL, Fault("die", die))
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            ask(session, provider)
        with pytest.raises(requests.exceptions.ConnectionError, match="refused"):
            ask(session, provider)
        provider.plug()

        assert ask(session, provider).status_code == 200


def test_close_twice_and_start_again(session: requests.Session) -> None:
    """Closing is idempotent, and a closed simulator may be started again on its old port."""
    provider = Simulator().start()
    address = provider.base_url
    provider.close()
    provider.close()
    with provider:
        code = ask(session, provider).status_code

    assert (200, address) == (code, provider.base_url)


def test_idle_connections_do_not_outlive_it(session: requests.Session) -> None:
    """Connections kept alive end with the simulator."""
    with Simulator() as provider:
        ask(session, provider)
        running = threads_of(provider)

    assert len(running) == 2
    assert threads_of(provider) == []


def test_only_loopback_is_bound(provider: Simulator) -> None:
    """Nothing of it can be reached from another machine."""
    assert provider.base_url == f"http://127.0.0.1:{provider.port}/v1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", provider.port), timeout=5)


def test_taken_port_is_an_error(provider: Simulator) -> None:
    """Two simulators never share a port."""
    with pytest.raises(OSError, match="in use"):
        Simulator(port=provider.port).start()


def test_wait_for_gives_up(provider: Simulator) -> None:
    """What never arrives is not waited for without end."""
    assert provider.wait_for(1, timeout=0.01) is False


def test_held_call_is_in_flight_until_released(provider: Simulator, session: requests.Session) -> None:
    """A test decides when an answer leaves."""
    release = threading.Event()
    provider.script(MODEL, faults.ok(), faults.held(release), faults.held(release, faults.status(503)))
    ask(session, provider)
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(ask, session, provider) for _ in range(2)]
        arrived = provider.wait_for(3, MODEL)
        held = [seen.finished for seen in provider.seen[1:]]
        underway = provider.statistics()[MODEL]
        release.set()
        codes = {call.result(timeout=5).status_code for call in calls}

    assert arrived
    assert underway.availability == 1.0
    assert held == [None, None]
    assert codes == {200, 503}


def test_faults_of_ones_own(provider: Simulator, session: requests.Session) -> None:
    """A fault is a name and a function which sends what it likes."""

    def teapot(exchange: Exchange) -> None:
        exchange.reply(418, b"short and stout", content_type="text/plain")

    provider.script(MODEL, Fault("teapot", teapot))
    response = ask(session, provider)

    assert (response.status_code, response.text) == (418, "short and stout")
    assert [seen.fault for seen in provider.seen] == ["teapot"]


def test_outage_ends_by_itself() -> None:
    """503 for a minute from the first request on, then health."""
    clock = FakeClock()
    with Simulator(clock=clock) as provider, requests.Session() as session:
        provider.always(MODEL, faults.outage(60))
        codes = []
        for _ in range(4):
            codes.append(ask(session, provider).status_code)
            clock.advance(25)

    assert codes == [503, 503, 503, 200]


def test_statistics_of_nothing(provider: Simulator, session: requests.Session) -> None:
    """A model nobody asked has no row; one without a good answer has figures all the same."""
    ask(session, provider, model="sim:503")
    nothing = ModelStatistics(
        calls=1,
        failures=1,
        average=0.0,
        p95=0.0,
        availability=0.0,
        prompt_tokens=0,
        completion_tokens=0,
        bill=Decimal(0),
    )

    assert {"sim:503": nothing} == provider.statistics()
