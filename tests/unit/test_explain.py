"""A trace tells the story of its call, as text and as data."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.core.call import Call, Origin, Selection
from holyroute.core.trace import Trace
from holyroute.dialects import openai
from holyroute.engine.router import Router
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from holyroute.engine.attempt import Attempt

KEYS = {"KEY_A": "test-key-a", "KEY_B": "test-key-b"}
TABLES: dict[str, Any] = {
    "providers": {
        "a": {"base_url": "https://a.example/v1", "api_key_env": "KEY_A"},
        "b": {"base_url": "https://b.example/v1", "api_key_env": "KEY_B"},
        "c": {"base_url": "https://c.example/v1", "api_key_env": "KEY_C"},
    },
    "models": {
        "ma": {"provider": "a", "price": {"input": 1, "output": 2}},
        "mb": {"provider": "b", "price": {"input": 3, "output": 6}},
        "mc": {"provider": "c"},
        "md": {"provider": "a"},
    },
    "routes": {"simple_qa": {"fast": ["ma", "mb"]}},
    "failover": {"ma": ["mb"], "a.example": ["md"]},
}


class World:
    """A router over two providers that answer as ordered."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.status: dict[str, list[int]] = {}
        self.headers: dict[str, str] = {}
        self.router = Router(holyroute.load(env={}, cwd_file=False, **TABLES), clock=self.clock, env=KEYS)

    def send(self, **options: Any) -> Trace:
        """The trace of a call."""
        body = {"messages": [{"role": "user", "content": "hello"}], **options.pop("parameters", {})}
        limits = {"model": None, "deadline": 60.0, "connect": 3.0, "read": 30.0}
        trace = self.router.send(Call(**{**limits, **options}, body=body), self.transport).trace
        assert trace is not None
        return trace

    def transport(self, attempt: Attempt) -> requests.Response:
        """Half a second, then the next status of its model; 200 where nothing is ordered."""
        self.clock.advance(0.5)
        made = requests.Response()
        made.status_code = (self.status.get(attempt.target.name) or [200]).pop(0)
        made.headers.update(self.headers if made.status_code != 200 else {})
        choice = {"message": {"content": "hello"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        body = {"choices": [choice], "usage": usage} if made.status_code == 200 else {"error": {"message": "no"}}
        made._content = json.dumps(body).encode()
        return made


@pytest.fixture
def world() -> World:
    return World()


def test_the_whole_story(world: World) -> None:
    """Why these, who was passed over when, what each attempt said, took, waited for and cost."""
    world.status["ma"] = [429, 500]
    world.headers["Retry-After"] = "2"
    trace = world.send(selection=Selection(models=("mc", "ma", "mb")))
    after = world.send(selection=Selection(models=("mc", "ma", "mb")))

    assert str(trace).splitlines() == [
        f"call {trace.id} for mc: answered by mb after 1.000 s, 0.00006 USD",
        "  chosen from the models of the call",
        "  mc at c: not asked, no credential: set KEY_C",
        "  ma at a: rate limited 429 (no), 0.500 s after 0.000 s",
        "  mb at b: answered 200, 0.500 s after 0.500 s; 10 + 5 tokens, 0.00006 USD",
    ]
    assert "ma at a: not asked, benched: rate limited" in str(after)


def test_steps_are_in_order(world: World) -> None:
    """Who was passed over after an attempt stands after it."""
    world.status["ma"] = [503]
    steps = world.send(selection=Selection(models=("ma", "mc", "mb"))).as_dict()["steps"]

    assert [(step["step"], step["target"]) for step in steps] == [
        ("attempt", "ma"),
        ("skip", "mc"),
        ("attempt", "mb"),
    ]


def test_what_was_waited_for(world: World) -> None:
    """A short wait that the server named shows before the attempt that came of it."""
    world.status["ma"] = [429]
    world.headers["Retry-After"] = "1"
    trace = world.send(selection=Selection(models=("ma", "mb")))
    (_, last) = trace.as_dict()["steps"]

    assert last["wait"] == pytest.approx(1.0, abs=0.2)
    assert "; waited 1.0" in str(trace)


def test_the_same_as_data(world: World) -> None:
    """JSON carries it; money is exact text, and the steps are in order."""
    world.status["ma"] = [503]
    trace = world.send(selection=Selection(models=("mc", "ma", "mb")))
    facts = json.loads(json.dumps(trace.as_dict()))
    skip, first, second = facts["steps"]

    assert (facts["asked"], facts["answered_by"], facts["verdict"]) == ("mc", "mb", "answered")
    assert (facts["cost_usd"], facts["failovers"], facts["seconds"]) == ("0.00006", 1, 1.0)
    assert skip == {
        "step": "skip",
        "target": "mc",
        "provider": "c",
        "host": "c.example",
        "reason": "no credential: set KEY_C",
        "free_at": None,
    }
    assert (first["target"], first["status"], first["verdict"]) == ("ma", 503, "service unavailable")
    assert (first["wait"], first["started"], first["seconds"], first["cost_usd"]) == (0.0, 0.0, 0.5, None)
    assert (second["prompt_tokens"], second["completion_tokens"], second["cost_usd"]) == (10, 5, "0.00006")


def test_an_open_circuit_is_told_with_its_time(world: World) -> None:
    """When the one that was passed over may be free again, from the start of the call."""
    for _ in range(5):
        world.status["ma"] = [503]
        world.send(selection=Selection(models=("ma", "mb")))
    trace = world.send(selection=Selection(models=("ma", "mb")))
    skip = trace.as_dict()["steps"][0]

    assert (skip["step"], skip["reason"]) == ("skip", "its circuit is open")
    assert 0 < skip["free_at"] < 6


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "the route general/normal (built in)"),
        ({"model": "route:simple_qa/fast"}, "the route simple_qa/fast (your own)"),
        ({"selection": Selection(task="simple_qa", priority="fast")}, "the route simple_qa/fast (your own)"),
        ({"selection": Selection(models=("ma",))}, "the models of the call"),
        ({"model": "ma"}, "the model of the call, then the failover list of ma (your own)"),
        ({"model": "md"}, "the model of the call, then the failover list of a.example (your own)"),
        ({"model": "mb"}, "the model of the call"),
        (
            {"model": "ma", "selection": Selection(order="cheapest", max_latency="fast", direct=True)},
            (
                "the model of the call, then the failover list of ma (your own)"
                "; cheapest first; slower than fast last; only the first"
            ),
        ),
    ],
)
def test_where_the_candidates_come_from(options: dict[str, Any], expected: str, world: World) -> None:
    """The route, the list, the caller; whose word it is; and what was asked for about the order."""
    call = Call(**{"model": None, "deadline": 60.0, "connect": 3.0, "read": 30.0, **options}, body={})

    assert _why(world, call) == expected


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), "what the script wrote, then the failover list of ma (your own)"),
        (
            Selection(task="simple_qa"),
            (
                "what the script wrote, then the route simple_qa/normal (built in)"
                ", then the failover list of ma (your own)"
            ),
        ),
    ],
)
def test_where_those_of_a_script_come_from(selection: Selection, expected: str, world: World) -> None:
    """What it wrote comes first; consent is told."""
    request = requests.Request("POST", "https://a.example/v1/chat/completions", json={"model": "ma"}).prepare()
    origin = Origin(request=request, base_url=openai.base_url(request))
    call = Call(model="ma", body={}, deadline=60, connect=3, read=30, selection=selection, origin=origin)

    assert _why(world, call) == expected


def _why(world: World, call: Call) -> str | None:
    trace = Trace(call, world.clock, lambda _: None)
    world.router.candidates(call, trace)
    return trace.why


def test_a_cached_answer_asked_nobody(world: World) -> None:
    """It says so, and costs nothing."""
    options = {"selection": Selection(models=("ma",)), "parameters": {"temperature": 0}}
    world.send(**options)
    trace = world.send(**options)

    assert str(trace) == f"call {trace.id} for ma: answered by ma (cached: hit) after 0.000 s, 0 USD"
    assert (trace.as_dict()["why"], trace.as_dict()["cached"], trace.as_dict()["steps"]) == (None, "hit", [])


def test_a_name_with_control_characters_is_harmless(world: World) -> None:
    """Traces are printed on terminals, and callers may name anything."""
    trace = world.send(model="route:\x1b[2J/x")

    assert "\x1b" not in str(trace)
    assert trace.as_dict()["asked"] == "route:\x1b[2J/x"


def test_a_trace_that_travelled_tells_the_same(world: World) -> None:
    """Pickled, as with an exception from a worker process."""
    world.status["ma"] = [503]
    trace = world.send(selection=Selection(models=("ma", "mb")))
    again = pickle.loads(pickle.dumps(trace))  # noqa: S301 - our own

    assert (str(again), again.as_dict()) == (str(trace), trace.as_dict())
