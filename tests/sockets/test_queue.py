"""Parked calls from door to answer, against two providers: what is parked, what is shown, what becomes of it."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute import AllTargetsFailed, ConfigurationError, DeadLetter, trace_of
from holyroute.deferred.parked import ParkedCall
from holyroute.engine.router import Router
from holyroute.exceptions import InvalidItem, QueueFull, QueueUnavailable, SecretInPayload, UnknownTicket
from holyroute.queueing import parking_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from holyroute.config.schema import Config
    from holyroute.simulator import Simulator
    from tests.sockets.conftest import ShiftedClock

KEYS = {"KEY_A": "test-key-a"}
PROMPT = "What is the time?"
MESSAGES = [{"role": "user", "content": PROMPT}]


def fail(*providers: Simulator) -> None:
    for provider in providers:
        provider.always("*", 503)


def heal(clock: ShiftedClock, *providers: Simulator) -> None:
    """Everybody is back, and what was benched or open has had its time."""
    for provider in providers:
        provider.heal()
    clock.advance(120.0)


@pytest.fixture
def router(configured: Callable[..., Config], clock: ShiftedClock, env: dict[str, str]) -> Router:
    return Router(configured(queue={"path": ":memory:"}, retry={"sole_attempts": 1}), clock=clock, env=env)


@pytest.fixture
def patient(configured: Callable[..., Config], env: dict[str, str]) -> Router:
    """On real time, for threads that wait for each other."""
    return Router(configured(queue={"path": ":memory:"}, retry={"sole_attempts": 1}, time={"read": 60}), env=env)


@pytest.fixture
def client(router: Router) -> Iterator[holyroute.Client]:
    """Asks A first, then B; parks what neither answers."""
    with holyroute.Client(router=router, queue=True) as client:
        yield client


@pytest.fixture
def session(router: Router) -> holyroute.Session:
    return holyroute.Session(router=router)


def post(session: requests.Session, provider: Simulator, **options: Any) -> requests.Response:
    body = {"model": "ma", "messages": MESSAGES, **options.pop("body", {})}
    headers = {"Authorization": "Bearer test-key-a", **options.pop("headers", {})}
    return session.post(f"{provider.base_url}/chat/completions", json=body, headers=headers, **options)


# --- parking ----------------------------------------------------------------------------------------------------------


def test_nobody_could_answer_and_the_error_has_a_ticket(
    a: Simulator, b: Simulator, client: holyroute.Client, clock: ShiftedClock
) -> None:
    """The failure is raised as it would be without a queue; its ticket has the answer once somebody is back."""
    fail(a, b)
    with pytest.raises(AllTargetsFailed) as caught:
        client.ask(PROMPT)
    ticket = caught.value.ticket
    assert ticket is not None
    heal(clock, a, b)
    progress = client.queue.drain()

    assert (progress.answered, progress.dead) == (1, 0)
    assert ticket.result(0)["content"] == f"Answer to: {PROMPT}"
    assert a.seen[-1].headers["Idempotency-Key"] == ticket.id
    assert f"parked: ticket {ticket.id}" in str(caught.value)


def test_failures_as_values_carry_the_ticket(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """`on_failure="queue"` gives a Completion that says it failed, with a ticket."""
    fail(a, b)
    answer = client.ask(PROMPT, on_failure="queue")

    assert (answer.success, answer.content) == (False, "")
    assert answer.ticket == answer.error.ticket  # type: ignore[union-attr]
    assert client.queue.get(answer.ticket.id).state == "ready"  # type: ignore[union-attr]


def test_what_has_failed_waits_a_little(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """What failed together is not asked again together; what was only submitted is due at once."""
    fail(a, b)
    failed = client.ask(PROMPT, on_failure="queue").ticket
    assert failed is not None
    waits = [
        client.queue.get(one.id).not_before - client.queue.get(one.id).created for one in (failed, client.submit("x"))
    ]

    assert 0.0 < waits[0] <= 30.0
    assert waits[1] == 0.0


def test_a_loop_of_retries_parks_one_call(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """A script that tries again and again has one ticket."""
    fail(a, b)
    tickets = {client.ask(PROMPT, on_failure="queue").ticket for _ in range(5)}

    assert len(tickets) == 1
    assert client.queue.stats().ready == 1


@pytest.mark.parametrize(("status", "parked"), [(503, 1), (429, 1), (401, 0), (404, 0), (400, 0)])
def test_only_what_time_mends_is_parked(
    a: Simulator, b: Simulator, client: holyroute.Client, status: int, parked: int
) -> None:
    """A wrong key, an unknown model, a bad request fail tomorrow too; asked again while benched, they still do."""
    for provider in (a, b):
        provider.always("*", status)
    for _ in range(2):
        assert not client.ask(PROMPT, on_failure="return").success

    assert client.queue.stats().ready == parked


def test_off_until_asked_for(router: Router, a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """Without a queue nothing is parked, and who asks for one is told how to get it."""
    fail(a, b)
    with holyroute.Client(router=router) as client:
        answer = client.ask(PROMPT, on_failure="return")
        with pytest.raises(ConfigurationError, match=r"Client\(queue=True\)"):
            client.ask(PROMPT, on_failure="queue")
        with pytest.raises(ConfigurationError, match=r"Client\(queue=True\)"):
            client.submit(PROMPT)

    assert answer.ticket is None
    assert trace_of(post(session, a)).ticket is None  # type: ignore[union-attr]


def test_a_block_parks_what_a_script_could_not_get(
    a: Simulator, b: Simulator, session: holyroute.Session, client: holyroute.Client, clock: ShiftedClock
) -> None:
    """The script sees its own 503 all the same; the trace has the ticket, whose answer a configured key gets."""
    fail(a, b)
    with holyroute.parking():
        response = post(session, a)
    trace = trace_of(response)
    assert trace is not None
    assert trace.ticket is not None
    parked = client.queue.get(trace.ticket.id)
    heal(clock, a, b)
    client.queue.drain()

    assert response.status_code == 503
    assert parked.call is not None
    assert parked.call.selection.models == ("ma", "mb")
    assert trace.ticket.result(0)["model"] == "ma"


def test_a_session_of_its_own_queue(a: Simulator, b: Simulator, router: Router, tmp_path: Path) -> None:
    """`Session(queue=path)` parks in that file, and nothing of the script's key stands in it."""
    fail(a, b)
    path = tmp_path / "q" / "queue.db"
    session = holyroute.Session(router=router, queue=path)
    trace = trace_of(post(session, a, headers={"Authorization": "Bearer test-key-a2"}))

    assert trace is not None
    assert trace.ticket is not None
    assert b"test-key" not in path.read_bytes()


def test_what_is_raised_carries_the_ticket_in_a_note(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """A connection error stays the script's own; its note and its trace name the ticket."""
    a.unplug()
    b.unplug()
    with holyroute.parking(), pytest.raises(requests.ConnectionError) as caught:
        post(session, a)
    trace = trace_of(caught.value)

    assert trace is not None
    assert trace.ticket is not None
    assert any(trace.ticket.id in note for note in caught.value.__notes__)


def test_an_address_that_nobody_configured_is_not_parked(
    a: Simulator, b: Simulator, configured: Callable[..., Config], clock: ShiftedClock
) -> None:
    """Whoever replays could not ask it. Its configured substitutes can be; without one, the trace says so."""
    fail(a, b)
    host = a.base_url.split("/")[2]
    settings: dict[str, Any] = {"queue": {"path": ":memory:"}}
    with_substitute = Router(configured(**settings), clock=clock, env={"KEY_B": "test-key-b"})
    without = Router(configured(failover={host: []}, **settings), clock=clock, env={})
    with holyroute.parking():
        first = trace_of(post(holyroute.Session(router=with_substitute), a, body={"model": "unknown"}))
        second = trace_of(post(holyroute.Session(router=without), a, body={"model": "unknown"}))
    assert first is not None
    assert second is not None
    parking = parking_for(with_substitute, own=True)
    assert parking is not None
    assert first.ticket is not None
    call = parking.queue.get(first.ticket.id).call

    assert call is not None
    assert call.selection.models == ("mb",)
    assert second.ticket is None
    assert second.not_parked == "nobody but the address in the script might answer it, and that is not configured"


def test_streams_are_not_parked(a: Simulator, b: Simulator, session: holyroute.Session) -> None:
    """There is nobody left to read them."""
    fail(a, b)
    with holyroute.parking():
        trace = trace_of(post(session, a, body={"stream": True}, stream=True))

    assert trace is not None
    assert trace.not_parked == "streams are not parked"


def test_a_key_in_the_prompt_is_refused(
    a: Simulator, b: Simulator, client: holyroute.Client, session: holyroute.Session
) -> None:
    """Neither a configured key nor the script's own goes to disk; parking never hides the failure itself."""
    fail(a, b)
    with pytest.raises(SecretInPayload):
        client.submit("my key is test-key-b")
    answer = client.ask("my key is test-key-b", on_failure="queue")
    with holyroute.parking():
        body = {"messages": [{"role": "user", "content": "it is own-key-of-script"}]}
        trace = trace_of(post(session, a, body=body, headers={"Authorization": "Bearer own-key-of-script"}))

    assert isinstance(answer.error, AllTargetsFailed)
    assert answer.ticket is None
    assert trace is not None
    assert "a key stands in the call" in (trace.not_parked or "")
    assert client.queue.stats().ready == 0


def test_a_broken_queue_hides_nothing(
    a: Simulator, b: Simulator, router: Router, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where parking fails, the call's own failure is shown, and the cause stands beside it and in the log."""
    fail(a, b)
    (tmp_path / "queue.db").write_text("no queue")
    (tmp_path / "queue.db").chmod(0o600)
    with holyroute.Client(router=router, queue=tmp_path / "queue.db") as client:
        answer = client.ask(PROMPT, on_failure="queue")

    assert isinstance(answer.error, AllTargetsFailed)
    assert answer.ticket is None
    assert "not parked" in str(answer.error)
    assert "was not parked" in caplog.text


def test_idempotency_keys_are_the_users_own(
    a: Simulator, b: Simulator, client: holyroute.Client, session: holyroute.Session, clock: ShiftedClock
) -> None:
    """By header or keyword: one ticket, also after the answer; another call under the same key is refused."""
    ticket = client.submit(PROMPT, key="row 17")
    client.queue.drain()
    again = client.submit(PROMPT, key="row 17")
    with pytest.raises(InvalidItem, match="stands for another call"):
        client.submit("Something else", key="row 17")
    fail(a, b)
    clock.advance(60.0)
    with holyroute.parking():
        trace = trace_of(post(session, a, headers={"Idempotency-Key": "row 18"}))
    assert trace is not None
    assert trace.ticket is not None

    assert (again, again.created) == (ticket, False)
    assert client.queue.get(trace.ticket.id).key == "row 18"


def test_a_ticket_travels_without_its_queue(client: holyroute.Client) -> None:
    """Pickled with an error it keeps its id, and says where to ask."""
    ticket = pickle.loads(pickle.dumps(client.submit(PROMPT)))  # noqa: S301 - our own

    assert client.queue.get(ticket.id).state == "ready"
    with pytest.raises(QueueUnavailable, match="another process"):
        ticket.result(0)


# --- replaying --------------------------------------------------------------------------------------------------------


def test_a_thread_in_the_background_answers(patient: Router) -> None:
    """`start()` is enough; twice is once; `stop()` ends it."""
    with holyroute.Client(router=patient, queue=True) as client:
        client.queue.start()
        client.queue.start()
        tickets = [client.submit(f"Question {number}") for number in range(20)]
        answers = [ticket.result(10)["content"] for ticket in tickets]

    assert answers == [f"Answer to: Question {number}" for number in range(20)]


def test_an_outage_after_leasing_costs_no_attempt(
    a: Simulator, b: Simulator, client: holyroute.Client, clock: ShiftedClock
) -> None:
    """However often nobody could answer, the call waits, with the cause."""
    fail(a, b)
    ticket = client.submit(PROMPT)
    for _ in range(20):
        client.queue.hasten()
        client.queue.drain()
        clock.advance(120.0)
    item = client.queue.get(ticket.id)

    assert (item.state, item.attempts) == ("ready", 0)
    assert "service unavailable 503" in (item.error or "")


def test_bad_input_dies_after_its_attempts_with_the_cause(a: Simulator, client: holyroute.Client) -> None:
    """What the provider itself refuses gets five attempts; it can be requeued."""
    a.always("*", 400)
    ticket = client.submit(PROMPT)
    for _ in range(5):
        client.queue.hasten()
        client.queue.drain()
    (item,) = client.queue.dead()

    assert (item.id, item.attempts) == (ticket.id, 5)
    assert "bad request" in (item.error or "")
    with pytest.raises(DeadLetter, match="bad request"):
        ticket.result(0)
    a.heal()
    assert client.queue.requeue() == 1
    assert client.queue.drain().answered == 1


def test_handlers_take_answers(client: holyroute.Client) -> None:
    """By name, with what was attached, after the answer was recorded."""
    got: list[Any] = []

    @client.queue.handler("save")
    def save(answer: Any) -> None:
        got.append((client.queue.get(answer.id).state, dict(answer.metadata), answer.result["content"], answer.key))

    client.submit(PROMPT, handler="save", attach={"row": 17}, key="r17")
    client.queue.drain()

    assert got == [("done", {"row": 17}, f"Answer to: {PROMPT}", "r17")]


def test_a_handler_that_raises_loses_no_answer(client: holyroute.Client, caplog: pytest.LogCaptureFixture) -> None:
    """The answer is recorded before; the log has the error."""
    client.queue.handler("save")(lambda _: 1 / 0)
    ticket = client.submit(PROMPT, handler="save")
    progress = client.queue.drain()

    assert (progress.answered, progress.unhandled) == (1, 1)
    assert ticket.result(0)["content"] == f"Answer to: {PROMPT}"
    assert "ZeroDivisionError" in caplog.text


def test_an_unknown_handler_is_a_cause(a: Simulator, client: holyroute.Client) -> None:
    """Nobody is asked for an answer that nobody takes; after its attempts the call is dead, not gone."""
    ticket = client.submit(PROMPT, handler="save")
    for _ in range(5):
        client.queue.hasten()
        client.queue.drain()
    item = client.queue.get(ticket.id)

    assert item.state == "dead"
    assert "handler 'save' is not registered" in (item.error or "")
    assert a.seen == []


def test_a_route_that_is_gone_is_a_cause(client: holyroute.Client) -> None:
    """What was parked by other settings dies with a word on the setting, and takes nobody along."""
    gone = client.queue.put(ParkedCall(body={"messages": MESSAGES}, model="never configured"))
    strange = client.queue.put(ParkedCall(body={"messages": 17}, model="ma"))
    fine = client.submit(PROMPT)
    for _ in range(5):
        client.queue.hasten()
        client.queue.drain()

    assert "never configured" in (client.queue.get(gone.id).error or "")
    assert client.queue.get(gone.id).state == client.queue.get(strange.id).state == "dead"
    assert fine.result(0)["content"] == f"Answer to: {PROMPT}"


def test_bad_input_is_refused_when_it_is_submitted(client: holyroute.Client) -> None:
    """No JSON, no UTF-8, too large, an unknown model: said at once, to whoever can mend it."""
    for body in (
        {"messages": [{"role": "user", "content": object()}]},
        {"messages": "half \ud83d"},
        {"messages": "x" * 10_000_000},
    ):
        with pytest.raises(InvalidItem):
            client.submit(**body)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="expected a configured model"):
        client.submit(PROMPT, model="m-a")
    with pytest.raises(UnknownTicket):
        client.queue.result("nobody", 0)

    assert client.queue.stats().ready == 0


def test_a_full_queue_says_so(configured: Callable[..., Config], env: dict[str, str]) -> None:
    """Nothing is dropped in silence."""
    router = Router(configured(queue={"path": ":memory:", "max_items": 1}), env=env)
    with holyroute.Client(router=router, queue=True) as client:
        client.submit("one")

        with pytest.raises(QueueFull):
            client.submit("two")


def test_stopping_gives_back_what_is_under_way(a: Simulator, patient: Router) -> None:
    """A call that hangs is called off, costs no attempt, and waits for the next replay."""
    a.always("*", "silent")
    with holyroute.Client(router=patient, queue=True) as client:
        ticket = client.submit(PROMPT, models=["ma"])
        client.queue.start()
        assert a.wait_for(1)
        client.queue.stop(grace=0.0)
        item = client.queue.get(ticket.id)

        assert (item.state, item.attempts) == ("ready", 0)


def test_a_call_of_another_dialect_is_kept_in_openais_form(
    a: Simulator, b: Simulator, clock: ShiftedClock, router: Router, client: holyroute.Client
) -> None:
    """An Anthropic script's question is answered later by whoever speaks OpenAI's form."""
    fail(a, b)
    session = holyroute.Session(router=router)
    with holyroute.parking():
        response = session.post(
            f"{a.base_url}/messages",
            json={"model": "ma", "max_tokens": 50, "system": "Be brief.", "messages": MESSAGES},
            headers={"x-api-key": "test-key-a", "anthropic-version": "2023-06-01"},
        )
    trace = trace_of(response)
    assert trace is not None
    assert trace.ticket is not None
    heal(clock, a, b)
    client.queue.drain(until_empty=True)
    roles = [message["role"] for message in b.seen[-1].json["messages"]]

    assert trace.ticket.result(timeout=5)["content"].startswith("Answer to:")
    assert roles == ["system", "user"]
