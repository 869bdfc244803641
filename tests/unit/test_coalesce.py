"""The same question in many threads at once: who asks, who waits, and what becomes of those who wait."""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.caching.coalesce import Caller, Flights
from holyroute.core.call import Call
from holyroute.core.cancel import CancelToken
from holyroute.core.clock import Clock
from holyroute.engine.router import Router
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from holyroute.core.outcome import Outcome
    from holyroute.engine.attempt import Attempt

PATIENCE = 10  # seconds until a test gives up waiting for a thread


class WaitingClock(Clock):
    """Real time plus an offset. Tells when a caller begins to wait for another one."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self.offset = 0.0
        self.conditions: list[threading.Condition] = []

    def now(self) -> float:
        """Monotonic seconds."""
        return super().now() + self.offset

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        """As usual; said aloud."""
        self.conditions.append(condition)
        self.waiting.release()
        return super().wait(condition, seconds)

    def until(self, callers: int) -> None:
        """Until so many callers wait."""
        for _ in range(callers):
            assert self.waiting.acquire(timeout=PATIENCE)

    def advance(self, seconds: float) -> None:
        """Set the clock forward, and wake whoever waits on it."""
        self.offset += seconds
        for condition in self.conditions:
            with condition:
                condition.notify_all()


class Provider:
    """A transport that holds every attempt until it is told how to end it."""

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.asked: list[int] = []
        self.arrived = threading.Semaphore(0)
        self.lock = threading.Condition()
        self.orders: dict[int, Callable[[Attempt], requests.Response]] = {}
        self.default: Callable[[Attempt], requests.Response] | None = None

    def __call__(self, attempt: Attempt) -> requests.Response:
        """Wait for an order, or to be cut."""
        number = next(self.numbers)
        attempt.token.on_cancel(self.wake)
        with self.lock:
            self.asked.append(number)
            self.arrived.release()
            self.lock.wait_for(lambda: number in self.orders or self.default or attempt.token.cancelled, PATIENCE)
            order = self.orders.get(number) or self.default
        if order is None:
            raise requests.ConnectionError("cut")
        return order(attempt)

    def wake(self) -> None:
        """Look again."""
        with self.lock:
            self.lock.notify_all()

    def until_asked(self) -> None:
        """Until one more attempt has arrived, while those before it are still held."""
        assert self.arrived.acquire(timeout=PATIENCE / 2)

    def order(self, number: int, how: Callable[[Attempt], requests.Response]) -> None:
        """How the attempt of this number ends."""
        with self.lock:
            self.orders[number] = how
            self.lock.notify_all()

    def always(self, how: Callable[[Attempt], requests.Response]) -> None:
        """How all others end."""
        with self.lock:
            self.default = how
            self.lock.notify_all()


def answer(_: Attempt, *, status: int = 200, text: str = "hello") -> requests.Response:
    made = requests.Response()
    made.status_code = status
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    made._content = json.dumps({"choices": [choice]} if status == 200 else {"error": {"message": "no"}}).encode()
    return made


def fail(attempt: Attempt) -> requests.Response:
    return answer(attempt, status=503)


class Crowd:
    """Threads that ask the same question of one router."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool
        self.clock = WaitingClock()
        self.provider = Provider()
        config = holyroute.load(
            env={},
            cwd_file=False,
            providers={"p": {"base_url": "https://p.example/v1", "api_key_env": "K"}},
            models={"m": {"provider": "p"}},
            retry={"sole_attempts": 1},
        )
        self.router = Router(config, clock=self.clock, env={"K": "test-key-a"})

    def send(self, deadline: float = 60.0, **options: Any) -> Future[Outcome]:
        """Ask in a thread of its own."""
        body = {"model": "m", "messages": [], "temperature": 0}
        call = Call(**{"model": "m", "body": body, "connect": 9.0, "read": 9.0, **options}, deadline=deadline)
        return self.pool.submit(self.router.send, call, self.provider)

    def leader(self, **options: Any) -> Future[Outcome]:
        """The first to ask, who is asking now."""
        asked = self.send(**options)
        self.provider.until_asked()
        return asked

    def follower(self, **options: Any) -> Future[Outcome]:
        """One who waits now."""
        asked = self.send(**options)
        self.clock.until(1)
        return asked


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with ThreadPoolExecutor(64) as pool:
        crowd = Crowd(pool)
        yield crowd
        crowd.provider.always(answer)


def result(asked: Future[Outcome]) -> Outcome:
    return asked.result(timeout=PATIENCE)


def how(asked: Future[Outcome]) -> tuple[str | None, str]:
    outcome = result(asked)
    return outcome.cached, outcome.verdict.name


def is_idle(crowd: Crowd) -> bool:
    """Whether nobody is in any line."""
    return not crowd.router.state.answers.flights._lines


def test_everybody_gets_the_leaders_answer(crowd: Crowd) -> None:
    """One call; each has his own copy, marked, with a trace that says so and costs nothing."""
    leader = crowd.leader()
    followers = [crowd.follower() for _ in range(20)]
    crowd.provider.order(1, answer)
    outcomes = [result(one) for one in followers]
    traces = [outcome.trace for outcome in outcomes if outcome.trace is not None]

    assert how(leader) == (None, "answered")
    assert {outcome.cached for outcome in outcomes} == {"coalesced"}
    assert len({id(outcome.answer) for outcome in outcomes}) == 20
    assert {(trace.cached, trace.cost, len(trace.attempts)) for trace in traces} == {("coalesced", 0, 0)}
    assert "(cached: coalesced)" in str(traces[0])
    assert crowd.provider.asked == [1]
    assert crowd.router.cache.info().coalesced == 20
    assert crowd.router.cache.info().misses == 1
    assert is_idle(crowd)


def test_a_failure_is_not_shared(crowd: Crowd) -> None:
    """If nobody answered the leader, the others see for themselves, all at the same time and not one by one."""
    leader = crowd.leader()
    followers = [crowd.follower() for _ in range(10)]
    crowd.provider.order(1, fail)
    for _ in followers:
        crowd.provider.until_asked()  # all at once: none of them was answered yet
    crowd.provider.always(answer)

    assert how(leader) == (None, "service unavailable")
    assert {how(one) for one in followers} == {(None, "answered")}
    assert is_idle(crowd)


def test_a_refusal_is_not_shared(crowd: Crowd) -> None:
    """Nor is an answer that may not be kept, such as one that was cut off."""

    def cut_off(attempt: Attempt) -> requests.Response:
        made = answer(attempt)
        made._content = made.content.replace(b'"stop"', b'"length"')
        return made

    leader, follower = crowd.leader(), crowd.follower()
    crowd.provider.order(1, cut_off)
    crowd.provider.until_asked()
    crowd.provider.order(2, lambda attempt: answer(attempt, status=400))

    assert how(leader) == (None, "answered")
    assert how(follower) == (None, "bad request")


def test_a_cancelled_leader_hands_over(crowd: Crowd) -> None:
    """One of the others asks in his place; the rest go on waiting for that one."""
    token = CancelToken()
    leader = crowd.leader(cancel=token)
    followers = [crowd.follower() for _ in range(5)]
    token.cancel()
    crowd.provider.until_asked()
    crowd.provider.order(2, answer)

    assert how(leader) == (None, "cancelled")
    assert sorted(how(one)[0] or "" for one in followers) == ["", *["coalesced"] * 4]
    assert crowd.provider.asked == [1, 2]


def test_a_leader_without_time_hands_over(crowd: Crowd) -> None:
    """A short deadline of one caller is nobody else's."""
    leader = crowd.leader(deadline=30.0)
    followers = [crowd.follower(deadline=300.0) for _ in range(5)]
    crowd.clock.advance(31)

    def too_late(_: Attempt) -> requests.Response:
        raise requests.ReadTimeout

    crowd.provider.order(1, too_late)
    crowd.provider.until_asked()
    crowd.provider.order(2, answer)

    assert result(leader).is_answer is False
    assert sorted(how(one)[0] or "" for one in followers) == ["", *["coalesced"] * 4]
    assert crowd.provider.asked == [1, 2]


def test_a_leader_that_breaks_hands_over(crowd: Crowd) -> None:
    """Ctrl-C, or a bug in somebody's adapter: the exception is his alone."""

    def interrupt(_: Attempt) -> requests.Response:
        raise KeyboardInterrupt

    leader, follower = crowd.leader(), crowd.follower()
    crowd.provider.order(1, interrupt)
    crowd.provider.until_asked()
    crowd.provider.order(2, answer)

    assert isinstance(leader.exception(timeout=PATIENCE), KeyboardInterrupt)
    assert how(follower) == (None, "answered")
    assert is_idle(crowd)


def test_a_follower_waits_by_his_own_deadline(crowd: Crowd) -> None:
    """Not by the leader's; and the leader does not notice."""
    leader, follower = crowd.leader(), crowd.follower(deadline=30.0)
    crowd.clock.advance(31)
    late = result(follower)
    crowd.provider.order(1, answer)

    assert late.trace is not None
    assert (late.verdict.name, late.trace.out_of_time, late.trace.attempts) == ("deadline spent", True, [])
    assert how(leader) == (None, "answered")
    assert crowd.provider.asked == [1]


def test_a_follower_is_called_off_by_his_own_token(crowd: Crowd) -> None:
    """At once, while the others go on waiting."""
    token = CancelToken()
    leader = crowd.leader()
    leaves, stays = crowd.follower(cancel=token), crowd.follower(cancel=CancelToken())
    token.cancel()
    left = how(leaves)
    crowd.provider.order(1, answer)

    assert left == (None, "cancelled")
    assert [how(leader)[0], how(stays)[0]] == [None, "coalesced"]


def test_nobody_waits_with_a_cancelled_token(crowd: Crowd) -> None:
    """It ends before it began."""
    token = CancelToken()
    token.cancel()
    leader = crowd.leader()

    assert how(crowd.send(cancel=token)) == (None, "cancelled")
    crowd.provider.order(1, answer)
    assert how(leader) == (None, "answered")


@pytest.mark.parametrize(
    "options",
    [
        {"read": 8.0},
        {"connect": 8.0},
        {"limit": 8.0},
        {"background": True},
        {"replayed": True},
        {"cache_control": "no-cache"},
    ],
)
def test_nobody_waits_for_somebody_with_another_patience(crowd: Crowd, options: dict[str, Any]) -> None:
    """Or who wants a new answer: all of them ask."""
    first, second = crowd.leader(), crowd.leader(**options)
    crowd.provider.always(answer)

    assert [how(first)[0], how(second)[0]] == [None, None]


@pytest.mark.parametrize("parameters", [{"temperature": 1}, {"temperature": 0, "tools": [{"type": "function"}]}])
def test_only_what_may_be_kept_is_coalesced(crowd: Crowd, parameters: dict[str, Any]) -> None:
    """Two callers of a question that has many answers get two."""
    body = {"messages": [], **parameters}
    first, second = crowd.leader(body=body), crowd.leader(body=body)
    crowd.provider.always(answer)

    assert [how(first)[0], how(second)[0]] == [None, None]


def test_an_answer_too_large_to_keep_is_shared(crowd: Crowd) -> None:
    """Those who wait for it need no room in the cache."""
    leader, follower = crowd.leader(), crowd.follower()
    crowd.provider.order(1, lambda attempt: answer(attempt, text="x" * 5_000_000))

    assert [how(leader)[0], how(follower)[0]] == [None, "coalesced"]
    assert len(crowd.router.cache) == 0


def test_waiting_uses_the_clock() -> None:
    """Under a fake clock a follower's time is over at once, and he is alone."""
    flights, leader, follower = Flights(FakeClock(0.0)), Caller("q"), Caller("q")
    flights.join(leader, 60, None)
    flights.join(follower, 5, None)

    assert follower.line is None
    assert leader.line == [leader]


def test_an_endless_deadline() -> None:
    """Is no error: a platform's longest wait is used instead."""

    class Clocked(FakeClock):
        def wait(self, _: threading.Condition, seconds: float | None) -> bool:
            self.slept.append(seconds or 0)
            flights.land(leader, None)
            return True

    clock = Clocked(0.0)
    flights, leader, follower = Flights(clock), Caller("q"), Caller("q")
    flights.join(leader, 60, None)
    flights.join(follower, float("inf"), None)

    assert (leader.line, follower.line) == (None, None)
    assert clock.slept == [threading.TIMEOUT_MAX]


def test_an_interrupted_follower_leaves_the_line() -> None:
    """Nobody hands over to somebody who is gone."""

    class Interrupting(FakeClock):
        def wait(self, *_: Any) -> bool:
            raise KeyboardInterrupt

    clock = Interrupting(0.0)
    config = holyroute.load(env={}, cwd_file=False)
    router = Router(config, clock=clock, env={})
    flights = router.state.answers.flights
    call = Call(model="gpt-4.1", body={"messages": [], "seed": 1}, deadline=60, connect=1, read=1)

    def ask_the_same(_: Attempt) -> requests.Response:
        raise AssertionError

    with router.state.answers.claim(call, trace := holyroute.Trace(call, clock, lambda _: None)) as claim:
        with pytest.raises(KeyboardInterrupt):
            router.send(call, ask_the_same)
        (line,) = flights._lines.values()

        assert len(line) == 1
        claim.settle(trace.best)
    assert flights._lines == {}


def test_who_is_not_in_line_has_no_say() -> None:
    """Leaving twice, or landing from outside, changes nothing."""
    flights, one, other = Flights(FakeClock(0.0)), Caller("q"), Caller("q")
    flights.leave(one)
    flights.land(one, None)
    flights.join(one, 60, None)
    flights.join(other, 0, None)
    flights.land(other, None)
    flights.leave(other)

    assert flights._lines == {"q": [one]}
    flights.leave(one)
    flights.leave(one)
    assert flights._lines == {}


def test_a_token_forgets_who_waited_with_it() -> None:
    """One token may go with thousands of calls."""
    flights, token = Flights(FakeClock(0.0)), CancelToken()
    flights.join(Caller("q"), 60, token)
    flights.join(Caller("q"), 0, token)

    assert token._callbacks == []


def test_a_leader_who_leaves_after_a_failure_hands_over(crowd: Crowd) -> None:
    """Called off between two attempts: that is a reason of his own, whatever came before."""
    token = CancelToken()
    leader = crowd.leader(cancel=token)
    followers = [crowd.follower() for _ in range(3)]
    crowd.router.events.subscribe(lambda _: token.cancel())  # when an attempt is over
    crowd.provider.order(1, fail)
    crowd.provider.until_asked()
    crowd.provider.order(2, answer)

    assert result(leader).is_answer is False
    assert sorted(how(one)[0] or "" for one in followers) == ["", *["coalesced"] * 2]
