"""Calls that the cache answers, or could have: what is asked, what is shown, what is booked."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.core.call import Call, Origin, Selection
from holyroute.core.cancel import CancelToken
from holyroute.engine.router import Router
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from holyroute.core.outcome import Outcome
    from holyroute.core.trace import Trace
    from holyroute.engine.attempt import Attempt

DOWN = 503
MESSAGES = [{"role": "user", "content": "hello"}]
KEYS = {"KEY_A": "test-key-a", "KEY_B": "test-key-b"}


class World:
    """A router over two providers that count what they answer."""

    def __init__(self, **cache: Any) -> None:
        self.clock = FakeClock()
        self.status = {"ma": 200, "mb": 200}
        self.finish_reason = "stop"
        self.headers: dict[str, str] = {}
        self.takes = 0.0  # seconds
        self.asked: list[str] = []
        config = holyroute.load(
            env={},
            cwd_file=False,
            providers={
                "a": {"base_url": "https://a.example/v1", "api_key_env": "KEY_A"},
                "b": {"base_url": "https://b.example/v1", "api_key_env": "KEY_B"},
            },
            models={"ma": {"provider": "a", "price": {"input": 1, "output": 2}}, "mb": {"provider": "b"}},
            routes={"simple_qa": {"fast": ["ma", "mb"]}, "general": {"normal": ["ma"]}},
            retry={"blip": False},
            cache=cache,
        )
        self.router = Router(config, clock=self.clock, env=KEYS)

    def call(self, **options: Any) -> Call:
        """A call to A, then B, with temperature 0."""
        body = {"messages": MESSAGES, "temperature": 0, **options.pop("parameters", {})}
        defaults = {"model": None, "deadline": 30.0, "connect": 3.0, "read": 3.0}
        return Call(**{**defaults, "selection": Selection(models=("ma", "mb")), **options}, body=body)

    def send(self, **options: Any) -> Outcome:
        """What becomes of a call."""
        return self.router.send(self.call(**options), self.transport)

    def transport(self, attempt: Attempt) -> requests.Response:
        """Answers "answer 1", then "answer 2", and so on."""
        name = attempt.target.name
        self.asked.append(name)
        self.clock.advance(self.takes)
        made = requests.Response()
        made.status_code = self.status[name]
        made.headers.update(self.headers)
        choice = {"message": {"content": f"answer {len(self.asked)}"}, "finish_reason": self.finish_reason}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        body = {"choices": [choice], "usage": usage} if made.status_code == 200 else {"error": {"message": "no"}}
        made._content = json.dumps(body).encode()
        return made


def text(outcome: Outcome) -> str:
    assert outcome.answer is not None
    return str(outcome.answer["choices"][0]["message"]["content"])


def story(outcome: Outcome) -> Trace:
    assert outcome.trace is not None
    return outcome.trace


@pytest.fixture
def world() -> World:
    return World()


def test_the_same_question_is_asked_once(world: World) -> None:
    """The second answer is the first one, and nobody was asked for it."""
    first, second = world.send(), world.send()

    assert world.asked == ["ma"]
    assert text(second) == text(first) == "answer 1"
    assert (first.cached, story(first).cached) == (None, None)
    assert (second.cached, story(second).cached) == ("hit", "hit")


def test_a_hit_tells_who_answered_and_costs_nothing(world: World) -> None:
    """Its trace has no attempt; the usage is that of the answer, the cost exactly 0, and the ledger books nothing."""
    first, second = world.send(), world.send()
    trace = story(second)

    assert (trace.attempts, trace.skipped, trace.verdict) == ([], [], first.verdict)
    assert trace.answered_by is story(first).answered_by
    assert second.usage == first.usage
    assert (story(first).cost, trace.cost) == (Decimal("0.00002"), Decimal(0))
    assert [row.attempts for row in world.router.ledger.entries()] == [1]
    assert str(trace).startswith(f"call {trace.id} for ma: answered by ma (cached: hit) after 0.000 s")
    assert "cached" not in str(story(first))


def test_answers_are_the_callers_own(world: World) -> None:
    """Whoever changes an answer changes only his own."""
    for _ in range(3):
        answer: Any = world.send().answer
        assert answer["choices"][0]["message"]["content"] == "answer 1"
        answer["choices"][0]["message"]["content"] = "changed"
        answer.clear()


def test_an_answer_is_fresh_for_its_ttl(world: World) -> None:
    """An hour unless told otherwise; then the question is asked again."""
    world.send()
    world.clock.advance(3_599.9)
    within = text(world.send())
    world.clock.advance(0.2)

    assert (within, text(world.send())) == ("answer 1", "answer 2")
    assert text(world.send()) == "answer 2"


@pytest.mark.parametrize(
    ("model", "selection", "expected"),
    [
        (None, Selection(task="simple_qa", priority="fast"), 5),
        ("route:simple_qa/fast", Selection(), 5),
        ("route:simple_qa", Selection(task="general"), 5),
        ("ma", Selection(task="simple_qa"), 5),
        (None, Selection(task="general", priority="normal"), 60),
        (None, Selection(models=("ma",)), 60),
        ("ma", Selection(), 60),
        (None, Selection(task="nobody knows it"), 60),
        ("route:/fast", Selection(), 60),
        (None, Selection(task="code_generation"), 100),
    ],
)
def test_each_task_has_its_ttl(model: str | None, selection: Selection, expected: float) -> None:
    """Of the task that a call names, else of the default task, where that has one of its own."""
    world = World(ttl=100, tasks={"simple_qa": 5, "general": 60})
    call = Call(model=model, body={}, deadline=1, connect=1, read=1, selection=selection)

    assert world.router.state.answers.ttl(call) == expected


def test_the_ttl_of_a_task_counts() -> None:
    """After it, the question is asked again."""
    world = World(tasks={"simple_qa": 5})
    route = Selection(task="simple_qa", priority="fast")
    world.send(selection=route)
    world.clock.advance(4.9)
    within = world.send(selection=route).cached
    world.clock.advance(0.2)

    assert (within, world.send(selection=route).cached) == ("hit", None)


@pytest.mark.parametrize("cache", [{"ttl": 0, "stale": 9}, {"tasks": {"general": 0}}, {"enabled": False}])
def test_nothing_is_kept_where_the_owner_says_so(cache: dict[str, Any]) -> None:
    """A TTL of 0, or no cache at all."""
    world = World(**cache)
    answers = [world.send(selection=Selection(models=("ma",))).cached for _ in range(2)]

    assert answers == [None, None]
    assert (len(world.asked), len(world.router.cache)) == (2, 0)


@pytest.mark.parametrize("parameters", [{"temperature": 1}, {"tools": [{"type": "function"}]}, {"stop": float("nan")}])
def test_other_calls_are_none_of_its_business(world: World, parameters: dict[str, Any]) -> None:
    """Neither kept nor counted."""
    answers = [world.send(parameters=parameters).cached for _ in range(2)]
    info = world.router.cache.info()

    assert answers == [None, None]
    assert (info.entries, info.misses) == (0, 0)


def test_a_stream_is_not_kept(world: World) -> None:
    """Its body belongs to whoever reads it."""
    assert [world.send(stream=True).cached for _ in range(2)] == [None, None]


def test_no_store_neither_takes_nor_keeps(world: World) -> None:
    """The answer is new, and the next one is not from it."""
    world.send(cache_control="no-store")
    world.send()
    answers = [text(world.send(cache_control="max-age=0, no-store, no-cache")), text(world.send())]

    assert answers == ["answer 3", "answer 2"]


def test_no_cache_takes_nothing_but_keeps(world: World) -> None:
    """Whoever wants a new answer renews it for all."""
    world.send()
    renewed, after = world.send(cache_control="no-cache"), world.send()

    assert (renewed.cached, text(renewed), text(after)) == (None, "answer 2", "answer 2")


def test_the_providers_no_store_is_respected(world: World) -> None:
    """It knows why."""
    world.headers["Cache-Control"] = "no-store"

    assert [world.send().cached for _ in range(2)] == [None, None]


@pytest.mark.parametrize(("status", "reason"), [(200, "length"), (200, "content_filter"), (400, ""), (DOWN, "")])
def test_what_is_no_whole_answer_is_not_kept(world: World, status: int, reason: str) -> None:
    """Truncated, filtered, refused, failed: the next caller asks again."""
    world.status = {"ma": status, "mb": status}
    world.finish_reason = reason
    first = [world.send().cached for _ in range(2)]
    asked = len(world.asked)

    assert first == [None, None]
    assert asked >= 2
    assert len(world.router.cache) == 0


def test_a_substitutes_answer_is_kept_as_what_it_is(world: World) -> None:
    """The next caller sees who gave it."""
    world.status["ma"] = DOWN
    world.send()
    world.status["ma"] = 200
    trace = story(world.send())

    assert trace.answered_by is not None
    assert (trace.cached, trace.answered_by.name) == ("hit", "mb")


def test_stale_answers_are_off_by_default(world: World) -> None:
    """What is past its time is not shown, even if nobody answers."""
    world.send()
    world.clock.advance(3_601)
    world.status = {"ma": DOWN, "mb": DOWN}

    assert world.send().is_answer is False


def test_a_stale_answer_is_better_than_none() -> None:
    """Only where every candidate failed, marked, with its attempts in the trace; and only for so long."""
    world = World(ttl=10, stale=20)
    world.send()
    world.clock.advance(11)
    renewed = world.send()
    world.clock.advance(11)
    world.status = {"ma": DOWN, "mb": DOWN}
    stale = world.send()
    asked = len(story(stale).attempts)
    world.clock.advance(20)
    gone = world.send()

    assert (renewed.cached, text(renewed)) == (None, "answer 2")
    assert (stale.cached, text(stale), asked) == ("stale", "answer 2", 2)
    assert story(stale).answered_by is not None
    assert story(stale).cost == 0
    assert (gone.cached, gone.is_answer) == (None, False)
    assert world.router.cache.info().stale == 1


def test_a_stale_answer_is_not_for_everybody() -> None:
    """Not for the caller's own mistake, not for who has left, and not for who wants a new one."""
    world = World(ttl=10, stale=1_000)
    world.send()
    world.clock.advance(11)
    left = CancelToken()
    left.cancel()
    cancelled = world.send(cancel=left)
    world.status = {"ma": 400, "mb": DOWN}
    mistaken = world.send()
    world.status["ma"] = DOWN
    strict = world.send(cache_control="no-cache")

    assert [one.is_answer for one in (cancelled, mistaken, strict)] == [False] * 3
    assert mistaken.status == 400
    assert world.send().cached == "stale"


def test_a_stale_answer_is_for_who_has_no_time_left() -> None:
    """A provider that is too slow is as good as none."""
    world = World(ttl=10, stale=1_000)
    world.send()
    world.clock.advance(11)
    world.status["ma"] = DOWN
    world.takes = 31
    late = world.send()

    assert (late.cached, story(late).out_of_time) == ("stale", True)


def test_who_leaves_after_a_failure_gets_no_stale_answer() -> None:
    """Called off between two attempts, it sees how far it came."""
    world = World(ttl=10, stale=1_000)
    world.send()
    world.clock.advance(11)
    token = CancelToken()
    world.status["ma"] = DOWN
    world.router.events.subscribe(lambda _: token.cancel())  # when an attempt is over
    left = world.send(cancel=token)

    assert (left.cached, left.status, story(left).cancelled) == (None, DOWN, True)


def test_an_answer_that_comes_in_between_is_taken(world: World) -> None:
    """Another caller may be done between the first look and the turn to ask."""
    call = world.call()
    claim = world.router.state.answers.claim(call, holyroute.Trace(call, world.clock, lambda _: None))
    world.send()

    with claim:
        assert claim.answer is not None
        assert (claim.answer.cached, text(claim.answer)) == ("hit", "answer 1")
    assert world.router.cache.info().misses == 1


def test_what_the_cache_did_is_counted(world: World) -> None:
    """Hits, misses, entries and bytes."""
    world.send()
    world.send()
    world.send(parameters={"seed": 1})
    info = world.router.cache.info()

    assert (info.hits, info.misses, info.stale, info.coalesced, info.entries) == (1, 2, 0, 0, 2)
    assert info.bytes > 1_000
    world.router.cache.clear()
    assert (text(world.send()), len(world.router.cache)) == ("answer 3", 1)


def test_a_child_begins_with_an_empty_cache(world: World) -> None:
    """As with all state of a router."""
    world.send()
    world.router.after_fork()

    assert len(world.router.cache) == 0
    assert world.send().cached is None


def test_no_key_is_anywhere_in_the_cache(world: World) -> None:
    """Neither in what is kept nor in the names it is kept under."""
    world.send()
    cache = world.router.cache
    kept = [(key, *(getattr(one, name) for name in one.__slots__)) for key, one in cache._entries.items()]

    assert len(kept) == 1
    assert "test-key" not in repr(kept)


@pytest.mark.parametrize(
    ("key", "told", "kept"),
    [
        ("test-key-of-a-script", {}, True),
        ("test-key-of-a-script", {"X-Key": "Bearer test-key-of-a-script"}, False),
        ("stop", {}, True),  # a local server's stands in every answer
    ],
)
def test_an_answer_that_repeats_the_scripts_key_is_not_kept(
    world: World, key: str, told: dict[str, str], *, kept: bool
) -> None:
    """The script may see its own key; a key as short as a word may stand there by chance."""
    url = "https://a.example/v1/chat/completions"
    request = requests.Request("POST", url, headers={"Authorization": f"Bearer {key}"}).prepare()
    world.headers = told
    origin = Origin(request=request, base_url="https://a.example/v1")
    world.send(model="ma", selection=Selection(), origin=origin, scope="s")

    assert len(world.router.cache) == kept
