"""What a caller gets when the preferred provider fails in every way we know: one call, a fresh client, defaults.

A is the faulty provider, B the healthy substitute. The attempts are those that A and B counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import requests

from holyroute import AllTargetsFailed, Client, ContentFiltered, InvalidRequest, Session, trace_of
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.engine.router import Router
from holyroute.simulator import Fault, faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from conftest import ShiftedClock

    from holyroute.config.schema import Config
    from holyroute.simulator import Simulator

UNPLUGGED = "unplugged"
BLINK = ("retry-after-ms", "0.001")
QUICK = 2.0  # seconds of real time; an answer at once takes a few milliseconds, on a busy machine more

limited = partial(faults.status, 429)


def raw(name: str, data: bytes) -> Fault:
    """Exactly these bytes, then the connection is closed."""
    return Fault(name, lambda exchange: exchange.hang_up(data))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault and what it leads to.

    Attributes:
        fault: how A answers every request.
        a, b: attempts that A and B see in the first call.
        answer: the model that answers, or the exception the caller gets.
        waits: seconds that the engine waits.
        blip: the engine waits once, for 50 to 250 ms.
        lasts: real seconds that the call takes, from and to.
        later: more calls with the fault still there: so many seconds after the first call ended, A sees so many
            attempts and the caller has an answer.
    """

    name: str
    fault: faults.Step
    a: int = 1
    b: int = 1
    answer: str | type[Exception] = "mb"
    waits: tuple[float, ...] = ()
    blip: bool = False
    lasts: tuple[float, float] = (0.0, QUICK)
    later: tuple[tuple[float, int], ...] = ()


BLIPPED = {"a": 2, "blip": True}
FINAL = {"b": 0, "answer": InvalidRequest}
FIVE_MINUTES = ((0, 0), (299, 0), (301, 1))

TABLE = [
    Row(name="1 nothing wrong", fault="ok", b=0, answer="ma", later=((0, 1),)),
    # --- the connection
    Row(name="2 refused", fault=UNPLUGGED, a=0),
    Row(name="3 reset before the headers", fault="reset", **BLIPPED),
    Row(name="3 closed before the headers", fault="no-reply", **BLIPPED),
    Row(name="4 closed inside the headers", fault="cut-headers", **BLIPPED),
    Row(name="5 reset inside the body", fault="reset-body", **BLIPPED),
    Row(name="5 closed inside the body", fault="cut-body", **BLIPPED),
    Row(name="5 a body without length, cut", fault="cut-unframed", **BLIPPED),
    Row(name="5 a gzip body, cut", fault="cut-gzip", **BLIPPED),
    Row(name="5 a chunk of no size", fault="bad-chunk", **BLIPPED),
    Row(name="5 garbage", fault=raw("garbage", b"\x00\x01 HTTP\r\n\r\n"), **BLIPPED),
    Row(
        name="5 two lengths",
        fault=raw("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        **BLIPPED,
    ),
    Row(name="6 silent", fault="silent", lasts=(2.9, 5.0)),
    # --- the request is refused
    Row(name="8 400", fault="400", **FINAL),
    Row(name="8 413", fault="413", **FINAL),
    Row(name="8 422", fault="422", **FINAL),
    Row(name="9 401", fault="401", later=FIVE_MINUTES),
    Row(name="9 403", fault="403", later=FIVE_MINUTES),
    Row(name="9 403, the page of a firewall", fault="firewall", later=((0, 0), (59, 0), (61, 1))),
    Row(name="10 404 of the model", fault="model-not-found", later=FIVE_MINUTES),
    Row(name="11 400 context length", fault="context-length", **FINAL),
    Row(name="408", fault="408", **BLIPPED),
    Row(name="409", fault="409", a=2, waits=(0.5,)),
    Row(name="307", fault="307:/v1/elsewhere", later=((0, 1),)),
    Row(name="400 content policy", fault="content-policy", b=0, answer=ContentFiltered),
    # --- rate limits and money
    Row(name="12 429, wait 2 s", fault="429:2", a=2, waits=(2.0,), later=((0, 0), (2.1, 2))),
    Row(name="12 429, wait 0.5 s", fault="429:0.5", a=2, waits=(0.5,)),
    Row(name="12 429, wait 300 ms", fault="retry-after-ms:300", a=2, waits=(0.3,)),
    Row(
        name="12 429, wait until 2 s after its own Date, years ago",
        fault=limited(retry_after="Mon, 06 Jan 2020 10:00:02 GMT", headers=[("Date", "Mon, 06 Jan 2020 10:00:00 GMT")]),
        a=2,
        waits=(2.0,),
    ),
    Row(name="12 429, wait 3 s: longer than a short wait", fault="429:3", later=((0, 0), (2.9, 0), (3.1, 1))),
    Row(name="13 429, wait 300 s", fault="429:300", later=FIVE_MINUTES),
    Row(name="13 429, wait a day", fault="429:86400", later=((0, 0), (86_399, 0), (86_401, 1))),
    Row(name="14 429 without a hint", fault="429", later=((0, 0), (0.9, 0), (2.1, 1))),
    Row(name="14 429, wait for rubbish", fault="429:soon", later=((0, 0), (2.1, 1))),
    Row(name="14 429, wait for less than nothing", fault="429:-5", later=((0, 0), (2.1, 1))),
    Row(name="14 429, wait for 0 s: again and again", fault="429:0", later=((0, 0), (2.1, 1))),
    Row(name="14 429, wait for no number", fault="429:nan", later=((0, 0), (2.1, 1))),
    Row(name="14 429, wait for more than a day", fault="429:86401", later=((0, 0), (2.1, 1))),
    Row(
        name="14 429, wait until a date that is none",
        fault=limited(
            retry_after="Mon, 06 Jan 2020 10:00:02 +99999999999999", headers=[("Date", "Mon, 06 Jan 2020 10:00:00 GMT")]
        ),
        later=((0, 0), (2.1, 1)),
    ),
    Row(name="15 429 insufficient quota", fault="insufficient-quota", later=FIVE_MINUTES),
    Row(name="15 402", fault="402", later=FIVE_MINUTES),
    Row(name="15 402, wait 30 s", fault="402:30", later=((0, 0), (29, 0), (31, 1))),
    Row(name="15 402, wait 0 s", fault="402:0", later=FIVE_MINUTES),
    # --- the provider is broken
    Row(name="16 500", fault="500", **BLIPPED),
    Row(name="16 500, asked not to retry", fault=faults.status(500, headers=[("x-should-retry", "false")])),
    Row(name="16 502", fault="502", **BLIPPED),
    Row(name="16 504", fault="504", later=((0, 1),)),
    Row(name="17 503", fault="503", later=((0, 1),)),
    Row(name="17 503, wait 30 s", fault="503:30", later=((0, 0), (29, 0), (31, 1))),
    Row(name="17 503, wait an hour: five minutes are believed", fault="503:3600", later=FIVE_MINUTES),
    Row(name="17 529", fault="529", later=((0, 0), (0.9, 0), (1.1, 1))),
    # --- 200, and yet no answer
    Row(name="18 200 with an error", fault="error-in-200", **BLIPPED),
    Row(name="18 200 with the error of a 400", fault="error-in-200:400", **FINAL),
    Row(name="18 200 with the error of a 401", fault="error-in-200:401", later=FIVE_MINUTES),
    Row(name="18 200 with the error of a 429", fault="error-in-200:429", later=((0, 0), (2.1, 1))),
    Row(name="19 200 invalid JSON", fault="invalid-json", **BLIPPED),
    Row(name="19 200 HTML", fault="html", **BLIPPED),
    Row(name="19 200 nested without end", fault=raw("nested", b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000), **BLIPPED),
    Row(name="20 nothing said", fault="empty", later=((0, 1),)),
    Row(name="20 no choices", fault="no-choices", **BLIPPED),
    Row(name="20 content filter", fault="content-filter", b=0, answer=ContentFiltered),
    Row(name="20 refusal", fault="refusal", b=0, answer=ContentFiltered),
    # --- odd, and yet an answer
    Row(name="a tool call", fault="tool-call", b=0, answer="ma"),
    Row(name="max_tokens spent on thinking", fault="empty-length", b=0, answer="ma"),
    Row(name="cut at max_tokens", fault="truncated", b=0, answer="ma"),
    Row(name="cookies", fault="cookies", b=0, answer="ma", later=((0, 1),)),
    Row(name="absurd usage", fault="absurd-usage", b=0, answer="ma"),
    Row(
        name="a finish_reason that is a list",
        fault=raw("odd", b'HTTP/1.1 200 OK\r\n\r\n{"choices": [{"message": {"content": "x"}, "finish_reason": [1]}]}'),
        b=0,
        answer="ma",
    ),
    Row(name="gzip", fault="gzip", b=0, answer="ma"),
    Row(name="chunked", fault="chunked", b=0, answer="ma"),
    Row(name="closes after every answer", fault="close-after", b=0, answer="ma", later=((0, 1), (0, 1))),
    Row(name="closes without a word", fault="close-after-unannounced", b=0, answer="ma", later=((0, 1),)),
]

rows = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
remembered = pytest.mark.parametrize("row", [row for row in TABLE if row.later], ids=lambda row: row.name)


def arrange(a: Simulator, fault: faults.Step) -> None:
    if fault == UNPLUGGED:
        a.unplug()
    else:
        a.always("*", fault)


def repair(a: Simulator) -> None:
    a.plug()
    a.heal()


def got(ask: Callable[[], Any]) -> Any:
    """What a caller gets: an answer or an exception."""
    try:
        return ask()
    except requests.RequestException as error:
        return error


def kind_of(result: Any) -> str | int | type[Exception] | None:
    """The model that answered a Client, the status of a Response, or the class of an exception."""
    if isinstance(result, Exception):
        return type(result)
    return result.status_code if isinstance(result, requests.Response) else result.model


def post(door: Any, a: Simulator, read: float = 1.0) -> Any:
    """What a script writes: a question for `ma` at A."""
    return got(
        lambda: door.post(
            f"{a.base_url}/chat/completions",
            headers={"Authorization": "Bearer test-key-a"},
            json={"model": "ma", "messages": [{"role": "user", "content": "hello"}]},
            timeout=(3, read),
        )
    )


@rows
def test_one_call(row: Row, a: Simulator, b: Simulator, client: Client, clock: ShiftedClock) -> None:
    """Each fault costs the attempts, the waits and the time of its row, and the caller gets what the row says."""
    arrange(a, row.fault)

    began = SYSTEM_CLOCK.now()
    result = got(lambda: client.ask("hello"))
    took = SYSTEM_CLOCK.now() - began

    assert (row.answer, row.a, row.b) == (kind_of(result), a.attempts(), b.attempts())
    assert row.lasts[0] <= took < row.lasts[1]
    if row.blip:
        assert [0.05 <= wait <= 0.25 for wait in clock.slept] == [True]
    else:
        assert list(row.waits) == clock.slept
    gaps = [later.arrived - earlier.arrived for earlier, later in pairwise(a.seen)]
    assert all(gap >= wait for gap, wait in zip(gaps, clock.slept, strict=True))


@remembered
def test_the_calls_after(row: Row, a: Simulator, client: Client, clock: ShiftedClock) -> None:
    """A fault is remembered for as long as its row says, and no longer; all the while the caller is answered."""
    arrange(a, row.fault)
    client.ask("hello")
    first = clock.now()

    for after, expected in row.later:
        clock.advance(max(0.0, first + after - clock.now()))
        before = a.attempts()
        completion = client.ask("hello again")

        assert (row.answer, expected) == (completion.model, a.attempts() - before)


@rows
def test_a_healthy_call_afterwards(row: Row, a: Simulator, client: Client, clock: ShiftedClock) -> None:
    """Once the fault is over A answers again, at once, over the same pool of connections."""
    arrange(a, row.fault)
    got(lambda: client.ask("hello"))
    repair(a)
    clock.advance(100_000)
    before = a.attempts()

    completion = client.ask("Are you back?")

    assert (completion.model, completion.content) == ("ma", "Answer to: Are you back?")
    assert a.attempts() - before == 1


@rows
def test_the_drop_in_door(row: Row, a: Simulator, b: Simulator, router: Router) -> None:
    """A script with one changed import line is served by the same table; a failure it sees is a Response of A's."""
    arrange(a, row.fault)

    with Session(router=router) as session:
        result = post(session, a)

    assert (row.a, row.b) == (a.attempts("ma"), b.attempts())
    assert isinstance(result, requests.Response)
    assert (row.answer if row.answer == "mb" else "ma") == trace_of(result).attempts[-1].target.name


@rows
def test_when_nobody_answers(row: Row, a: Simulator, b: Simulator, router: Router) -> None:
    """With the substitute down too, a script sees what requests alone would have shown it: status or exception."""
    arrange(a, row.fault)
    b.always("*", "503")

    alone = kind_of(post(requests, a))
    with Session(router=router) as session:
        routed = kind_of(post(session, a))

    assert alone == routed


@pytest.mark.parametrize(
    ("larger", "expected"), [({"context": 100_000}, "mb"), ({"context": 8_192}, InvalidRequest), ({}, InvalidRequest)]
)
def test_a_prompt_too_long(
    larger: dict[str, int],
    expected: str | type[Exception],
    a: Simulator,
    configured: Callable[..., Config],
    clock: ShiftedClock,
    env: dict[str, str],
) -> None:
    """11: a prompt too long for A goes to a model that declares a larger context, to nobody else."""
    config = configured(models={"ma": {"context": 8_192}, "mb": larger})
    a.always("*", "context-length")

    with Client(router=Router(config, clock=clock, env=env)) as client:
        result = got(lambda: client.ask("hello"))

    assert expected == kind_of(result)
    if isinstance(result, InvalidRequest):
        assert "context too long" in str(result)
        assert result.response is not None
        assert result.response.status_code == 400


@pytest.mark.parametrize("fault", ["401", "402", "402:0", "insufficient-quota", faults.status(402, headers=[BLINK])])
def test_the_next_key(
    fault: faults.Step, a: Simulator, b: Simulator, configured: Callable[..., Config], clock: ShiftedClock
) -> None:
    """9: what is wrong with one key is tried once with each other key of the provider, and then left alone."""
    config = configured(providers={"a": {"api_key_env": ["KEY_A", "KEY_A2"]}})
    a.always("*", fault)

    router = Router(config, clock=clock, env={"KEY_A": "test-key-a", "KEY_A2": "test-key-a2", "KEY_B": "test-key-b"})
    with Client(router=router) as client:
        completion = client.ask("hello")

    assert (completion.model, a.attempts(), b.attempts()) == ("mb", 2, 1)
    sent = {seen.headers["Authorization"] for seen in a.seen}
    assert {"Bearer test-key-a", "Bearer test-key-a2"} == sent


def test_a_rejected_key(a: Simulator, b: Simulator, configured: Callable[..., Config], clock: ShiftedClock) -> None:
    """9: a rejected key is benched alone: the provider's other key goes on; messages name the variable, not the key."""
    config = configured(providers={"a": {"api_key_env": ["KEY_A", "KEY_A2"]}})
    router = Router(config, clock=clock, env={"KEY_A": "test-key-wrong", "KEY_A2": "test-key-a2"})

    with Client(router=router) as client:
        traces = [client.ask("hello").trace for _ in range(10)]

    rejected = [one for trace in traces for one in trace.attempts if one.status == 401]
    assert [401, *[200] * 10] == sorted((seen.status for seen in a.seen), reverse=True)
    assert (len(rejected), b.attempts()) == (1, 0)
    assert "KEY_A" in rejected[0].detail
    assert not any("test-key" in str(trace) for trace in traces)


def test_no_key_is_left(a: Simulator, b: Simulator, configured: Callable[..., Config], clock: ShiftedClock) -> None:
    """9: when every key is rejected the message says which variables to look at, and shows no key."""
    router = Router(configured(), clock=clock, env={"KEY_A": "test-key-wrong", "KEY_B": "test-key-wrong"})

    with Client(router=router) as client, pytest.raises(AllTargetsFailed) as failure:
        client.ask("hello")

    message = str(failure.value)
    assert "KEY_A" in message
    assert "KEY_B" in message
    assert "test-key" not in message
    assert (a.attempts(), b.attempts()) == (1, 1)


@pytest.mark.parametrize("fault", ["400", "413", "422", "content-policy", "404", "503", "empty", "reset"])
def test_a_substitutes_refusal_means_next(fault: faults.Step, a: Simulator, b: Simulator, client: Client) -> None:
    """8: only the first target's refusal is the caller's own mistake; a substitute's just means the next one."""
    a.always("*", "503")
    b.always("mb", fault)

    completion = client.ask("hello", models=["ma", "mb", "mc"])

    assert (completion.model, b.attempts("mc")) == ("mc", 1)


def test_two_empty_answers(a: Simulator, b: Simulator, client: Client) -> None:
    """20: an empty answer asks one more target; two of them are no answer, and nobody else is paid for a third."""
    a.always("*", "empty")
    b.always("mb", "empty")

    with pytest.raises(AllTargetsFailed, match="empty answer") as failure:
        client.ask("hello", models=["ma", "mb", "mc"])

    assert (a.attempts(), b.attempts()) == (1, 1)
    assert failure.value.trace.attempts[0].verdict.name == "empty answer"


def test_a_lone_fault_is_retried(a: Simulator, b: Simulator, client: Client, clock: ShiftedClock) -> None:
    """The blip rule: one 500 among good answers is retried on the preferred model; the next one soon after is not."""
    a.script("*", "500", "ok", "500", "ok", "500", "ok")

    models = [client.ask("hello").model for _ in range(2)]
    clock.advance(5.0)
    models += [client.ask("hello").model for _ in range(2)]

    assert models == ["ma", "mb", "ma", "ma"]
    assert (a.attempts(), b.attempts()) == (6, 1)


def test_odd_answers_in_detail(a: Simulator, client: Client) -> None:
    """Tool calls and cookies arrive and go nowhere; absurd usage is no usage, and no cost."""
    a.script("*", "tool-call", "cookies", "absurd-usage", "empty-length", "truncated")

    tool, cookies, absurd, thinking, cut = (client.ask("hello") for _ in range(5))

    assert (tool.tool_calls[0]["function"]["name"], tool.finish_reason) == ("lookup", "tool_calls")
    assert (absurd.usage, absurd.cost_usd, absurd.content) == (None, None, "Answer to: hello")
    assert [(one.content, one.finish_reason) for one in (thinking, cut)] == [("", "length"), ("Answer ", "length")]
    assert cookies.success
    assert not any("Cookie" in seen.headers for seen in a.seen)
