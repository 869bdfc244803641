"""One row asked for once: what comes back, when it is sent, and what it is paid with."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.batch import worst
from holyroute.batch.crew import Errand
from holyroute.batch.options import Defaults
from holyroute.batch.row import Cause, Row
from holyroute.core.cancel import CancelToken
from holyroute.engine.router import Router
from holyroute.sender import Sender
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.batch.ending import Ending
    from holyroute.engine.attempt import Attempt

ROW = Row(
    index=3, id="r", line=9, columns={"n": 1}, body={"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
)
USAGE = {"prompt_tokens": 2, "completion_tokens": 5}
COST = Decimal("0.000012")


class World:
    """A router over two providers that answer as told."""

    def __init__(self, *route: str, limits: dict[str, int] | None = None, **settings: Any) -> None:
        self.clock = FakeClock()
        self.answers: dict[str, Callable[[], requests.Response]] = {"ma": answered, "mb": answered}
        self.asked: list[str] = []
        price, limits = {"input": 1, "output": 2}, limits or {}
        config = holyroute.load(
            env={},
            cwd_file=False,
            providers={"a": {"base_url": "https://a.example/v1"}, "b": {"base_url": "https://b.example/v1"}},
            models={"ma": {"provider": "a", "price": price, **limits}, "mb": {"provider": "b", "price": price}},
            routes={"general": {"normal": list(route or ("ma", "mb"))}},
            **settings,
        )
        self.router = Router(config, clock=self.clock, env={})
        self.sender = Sender(self.router, self.transport, Defaults())
        self.router.events.subscribe(self.sender.settle)
        self.worst = worst.dearest(ROW, self.router, Defaults()) or Decimal(0)

    def transport(self, attempt: Attempt) -> requests.Response:
        """Answers, or raises."""
        self.asked.append(attempt.target.name)
        return self.answers[attempt.target.name]()

    def send(self, **changes: Any) -> Ending:
        """Ask for the row."""
        return self.sender(Errand(**({"row": ROW, "cancel": CancelToken()} | changes)))


def response(status: int, body: Any, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update(headers)
    made._content = json.dumps(body).encode()
    return made


def answered() -> requests.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    return response(200, {"choices": [choice], "usage": USAGE})


def down() -> requests.Response:
    return response(503, {"error": {"message": "down"}})


def limited() -> requests.Response:
    return response(429, {"error": {"message": "slow down"}}, **{"Retry-After": "2"})


def lost() -> requests.Response:
    raise requests.ReadTimeout("no answer")


def broken() -> requests.Response:
    raise RuntimeError("a bug")


def test_an_answer() -> None:
    """Everything of the row, and everything of the answer."""
    result = World().send().result

    assert (result.index, result.id, result.line, result.columns) == (3, "r", 9, {"n": 1})
    assert (result.ok, result.content, result.model, result.finish_reason) == (True, "yes", "ma", "stop")
    assert (result.attempts, result.cost_usd, result.error) == (1, COST, None)
    assert result.usage is not None
    assert result.raw["usage"] == USAGE


def test_nobody_sleeps() -> None:
    """A Retry-After of two seconds would be waited for by a live call; here the next model is asked at once."""
    world = World()
    world.answers["ma"] = limited
    ending = world.send()

    assert ending.result.model == "mb"
    assert world.asked == ["ma", "mb"]
    assert world.clock.slept == []


def test_when_to_come_again() -> None:
    """Where only one could answer, and asks for time."""
    world = World("ma")
    world.answers["ma"] = limited
    first, second = world.send(), world.send()

    assert [ending.result.error and ending.result.error.cause for ending in (first, second)] == [Cause.RATE_LIMITED] * 2
    assert [ending.wait for ending in (first, second)] == [2.0, 2.0]
    assert [ending.result.attempts for ending in (first, second)] == [1, 0]
    assert all(ending.may_pass for ending in (first, second))
    assert world.clock.slept == []


def test_a_limit_of_our_own_is_not_waited_for() -> None:
    """Sixty requests a minute, of which five may go at once: the sixth comes back unsent, with the time of its turn."""
    world = World("ma", limits={"rpm": 60})
    endings = [world.send() for _ in range(6)]
    last = endings[-1].result

    assert [ending.result.ok for ending in endings] == [True] * 5 + [False]
    assert last.error is not None
    assert last.error.cause is Cause.RATE_LIMITED
    assert last.error.message.count("not asked") == 1
    assert 0 < (endings[-1].wait or 0) < 2
    assert (last.attempts, world.clock.slept) == (0, [])


def test_a_sole_target_is_not_asked_again_with_backoff() -> None:
    """A live call makes three attempts with pauses; a row comes back, and has its further rounds."""
    world = World("ma", retry={"blip": False})
    world.answers["ma"] = down
    ending = world.send()

    assert world.asked == ["ma"]
    assert ending.may_pass
    assert ending.result.cost_usd == 0


def test_whoever_wants_to_know_hears_when_it_is_sent() -> None:
    """Each attempt; nothing, where nobody is asked."""
    world, heard = World(), []
    world.send(on_sent=lambda: heard.append(list(world.asked)))
    closed = World("ma")
    closed.answers["ma"] = limited
    closed.send()
    closed.send(on_sent=lambda: heard.append(["never"]))

    assert heard == [[]]


def test_a_deadline_that_has_passed_asks_nobody() -> None:
    """And one that is near is the call's."""
    world = World()
    late = world.send(until=world.clock.now() - 1)

    assert late.result.error is not None
    assert late.result.error.cause is Cause.DEADLINE
    assert world.asked == []


def test_a_mistake_of_ours_is_not_the_rows() -> None:
    """An adapter that throws; a row that is no JSON is the row's."""
    world = World()
    world.answers["ma"] = broken
    ending = world.send()
    odd = world.sender(Errand(row=Row(index=0, body={"messages": [{"role": "user", "content": {1}}]})))

    assert ending.result.error is not None
    assert ending.result.error.cause is Cause.INTERNAL
    assert ending.result.error.message == "RuntimeError: a bug"
    assert odd.result.error is not None
    assert odd.result.error.cause is Cause.ROW


# --- paid for ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_billed_exactly() -> None:
    """What was set aside comes back but for that."""
    world = World()
    ending = world.send(allowance=2 * world.worst)

    assert (ending.spent, ending.granted) == (COST, 2 * world.worst)


def test_a_failure_that_costs_nothing_needs_no_more_money() -> None:
    """The next model is paid for from what was set aside for the first."""
    world = World()
    world.answers["ma"] = down
    ending = world.send(allowance=2 * world.worst)

    assert ending.result.model == "mb"
    assert (ending.spent, ending.granted) == (COST, 2 * world.worst)


def test_a_failure_that_may_be_billed_is_paid_for_before_the_next_attempt() -> None:
    """From what can be set aside on top."""
    world, more = World(), []
    world.answers["ma"] = lost
    ending = world.send(allowance=2 * world.worst, extend=lambda amount: more.append(amount) or True)

    assert ending.result.model == "mb"
    assert more == [world.worst]
    assert (ending.spent, ending.granted) == (world.worst + COST, 3 * world.worst)
    assert not ending.is_broke


@pytest.mark.parametrize("extend", [None, lambda _: False])
def test_without_money_nothing_more_is_sent(extend: Any) -> None:
    """The row comes back for another time; what it may have cost is known."""
    world = World()
    world.answers["ma"] = lost
    ending = world.send(allowance=2 * world.worst, extend=extend)

    assert world.asked == ["ma"]
    assert ending.is_broke
    assert (ending.spent, ending.granted) == (world.worst, 2 * world.worst)
    assert ending.result.attempts == 1
    assert ending.result.error is not None
    assert ending.result.error.cause is Cause.BUDGET
    assert world.router.guards[world.router.config.models["mb"]].breaker.snapshot().window_calls == 0


def test_a_call_that_broke_under_way_may_be_billed() -> None:
    """Nobody saw its end."""
    world = World()
    world.answers["ma"] = broken
    ending = world.send(allowance=2 * world.worst)

    assert (ending.spent, ending.granted) == (2 * world.worst, 2 * world.worst)
