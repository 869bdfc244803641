"""The limiter's shell: waiting, giving up, cancelling, and many threads at once."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from requests import Response

from holyroute.config.schema import LimitSettings
from holyroute.core import hints
from holyroute.core.completion import Usage
from holyroute.resilience.admission import Priority, Ticket
from holyroute.resilience.bucket import Limit, Limits
from holyroute.resilience.limiter import LimiterSnapshot, RateLimiter, Refused
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE = 0.9 * 57 / 60  # requests per second at 60 a minute


def limiter(clock: FakeClock, *, rpm: float | None = 60, tpm: float | None = None) -> RateLimiter:
    return RateLimiter(Limits.per_minute(rpm=rpm, tpm=tpm), clock=clock, jitter=lambda: 1.0)


def admitted(answer: Ticket | Refused) -> Ticket:
    assert isinstance(answer, Ticket)
    assert answer.state == "admitted"

    return answer


def exhaust(limits: RateLimiter) -> list[Ticket]:
    """Take all that goes at once."""
    tickets = []
    while isinstance(answer := limits.acquire(1, max_wait=0), Ticket):
        tickets.append(answer)
    return tickets


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_nobody_waits_for_what_is_free() -> None:
    """A tenth of the limit goes at once."""
    clock = FakeClock()
    limits = limiter(clock)
    tickets = [admitted(limits.acquire(100)) for _ in range(5)]

    assert clock.slept == []
    assert [ticket.number for ticket in tickets] == [1, 2, 3, 4, 5]


def test_waiting_takes_exactly_as_long_as_it_must() -> None:
    """One sleep until the time that was foreseen."""
    clock = FakeClock()
    limits = limiter(clock)
    exhaust(limits)
    eta = limits.eta(1, clock.now())
    ticket = admitted(limits.acquire(1, max_wait=2.0))

    assert clock.slept == pytest.approx([0.3 / RATE])
    assert eta == pytest.approx(0.3 / RATE)
    assert ticket.sent == clock.now()


def test_what_would_take_too_long_is_refused_at_once() -> None:
    """Without a wait, with the time that it would have taken, and without a place in the queue."""
    clock = FakeClock()
    limits = limiter(clock)
    limits.throttled(admitted(limits.acquire(1)), 60.0)
    refused = limits.acquire(1, max_wait=5.0)

    assert isinstance(refused, Refused)
    assert refused.eta == pytest.approx(60 + 1 / (0.7 * RATE))
    assert clock.slept == []
    assert limits.snapshot().waiting == 0


def test_what_can_never_go_is_refused_at_once() -> None:
    """A request beyond the limit has no time at which it could go, however long the caller would wait."""
    clock = FakeClock()
    limits = limiter(clock, tpm=1_000)

    assert limits.acquire(951, max_wait=1e9) == Refused(None)
    assert limits.eta(951, clock.now()) is None


def test_the_setting_is_the_default_wait() -> None:
    """Five seconds, unless the settings or the caller say otherwise."""
    clock = FakeClock()
    limits = limiter(clock, rpm=10)
    exhaust(limits)

    assert isinstance(limits.acquire(1), Refused)

    clock.advance(3.0)
    admitted(limits.acquire(1))


def test_waiting_without_end() -> None:
    """A batch waits as long as it takes, in naps that a condition can take."""
    clock = FakeClock()
    limits = RateLimiter(Limits((Limit("requests", 1, 3_600.0),)), clock=clock)
    admitted(limits.acquire(1))
    admitted(limits.acquire(1, max_wait=float("inf"), priority=Priority.BATCH))

    assert sum(clock.slept) == pytest.approx(3_600 / 0.855, abs=0.1)
    assert max(clock.slept) <= 60


class Impatient(FakeClock):
    """Somebody else's request comes first in every wait."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] | None = None

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        """The lock is free while a caller waits."""
        if self.meanwhile is not None:
            condition.release()
            self.meanwhile()
            condition.acquire()
        return super().wait(condition, seconds)


def test_a_wait_that_overruns() -> None:
    """When a 429 makes the wait longer than the caller wanted, it gives up in time and knows for how long."""
    clock = Impatient()
    limits = limiter(clock)
    held = exhaust(limits)
    clock.meanwhile = lambda: limits.throttled(held[0], 30.0)
    began = clock.now()
    refused = limits.acquire(1, max_wait=5.0)

    assert isinstance(refused, Refused)
    assert refused.eta is not None
    assert clock.now() - began == pytest.approx(5.0)
    assert refused.eta == pytest.approx(25 + 1 / (0.7 * RATE))
    assert limits.snapshot().waiting == 0


def test_a_wait_that_gets_shorter() -> None:
    """Tokens that come back are used by whoever waits, at once."""
    clock = Impatient()
    limits = limiter(clock, rpm=None, tpm=60_000)
    held = admitted(limits.acquire(5_000))
    clock.meanwhile = lambda: limits.settle(held, actual=100)

    assert limits.eta(3_000, clock.now()) == pytest.approx((3_000 - 700) / 855)

    admitted(limits.acquire(3_000))


def test_cancelled_before_the_wait() -> None:
    """A caller who is already cancelled does not wait at all."""
    clock = FakeClock()
    limits = limiter(clock)
    exhaust(limits)

    assert isinstance(limits.acquire(1, cancelled=lambda: True), Refused)
    assert clock.slept == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_while_waiting(error: type[BaseException]) -> None:
    """Ctrl-C, or an error in the caller's own function, leaves no place in the queue behind."""
    clock = FakeClock()
    limits = limiter(clock)
    exhaust(limits)

    def fail() -> bool:
        raise error

    with pytest.raises(error):
        limits.acquire(1, cancelled=fail)

    assert limits.snapshot().waiting == 0
    admitted(limits.acquire(1))


def test_an_error_after_leave_was_given() -> None:
    """A caller who is admitted and interrupted in the same moment gives everything back."""
    clock = Impatient()
    limits = limiter(clock, rpm=None, tpm=60_000)
    held = admitted(limits.acquire(5_000))

    def end_and_interrupt() -> None:
        limits.settle(held, actual=0)
        clock.meanwhile = None
        raise KeyboardInterrupt

    def wait(condition: threading.Condition, _: float | None) -> bool:
        condition.release()
        try:
            end_and_interrupt()
        finally:
            condition.acquire()
        return False

    clock.wait = wait  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        limits.acquire(3_000)

    assert limits.snapshot().in_flight == 0
    assert limits.snapshot().levels == (("tokens", 5_700, 5_700),)


# --- without limits --------------------------------------------------------------------------------------------------


def test_without_limits() -> None:
    """Where nothing is configured nothing is waited for, counted or refused."""
    clock = FakeClock()
    limits = RateLimiter(Limits(), clock=clock)
    tickets = [admitted(limits.acquire(10**9, max_wait=0)) for _ in range(100)]
    for ticket in tickets:
        limits.observe(ticket, {"x-ratelimit-remaining-tokens": "0"})
        limits.settle(ticket, actual=5)
        limits.release(ticket)

    assert limits.eta(10**12, clock.now()) == 0
    assert limits.snapshot() == LimiterSnapshot((), 0, 0, 1.0, float("-inf"))


def test_a_429_without_limits() -> None:
    """A 429 still keeps everybody back until its Retry-After is over."""
    clock = FakeClock()
    limits = RateLimiter(Limits(), clock=clock)
    refused, other = limits.acquire(1), limits.acquire(1)
    limits.throttled(admitted(refused), 3.0)
    limits.settle(admitted(other))

    assert limits.eta(1, clock.now()) == 3.0
    assert limits.acquire(1, max_wait=2.0) == Refused(3.0)

    ticket = admitted(limits.acquire(1))

    assert clock.slept == [3.0]

    limits.settle(ticket)

    assert limits.snapshot().in_flight == 0


def test_settled_once() -> None:
    """A ticket that is settled and then reported as refused was settled."""
    for limits in (RateLimiter(Limits(), clock=FakeClock()), limiter(FakeClock())):
        ticket = admitted(limits.acquire(1))
        limits.settle(ticket)
        limits.throttled(ticket, 60.0)
        limits.release(ticket)

        assert limits.snapshot().blocked_until < 0
        assert limits.snapshot().in_flight == 0
        assert limits.snapshot().factor == 1.0


# --- what providers say ----------------------------------------------------------------------------------------------


def answer(headers: dict[str, str]) -> Response:
    response = Response()
    response.status_code = 429
    response.headers.update(headers)
    response._content = b"{}"
    return response


@pytest.mark.parametrize(
    ("headers", "blocked"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({"Retry-After": "Mon, 01 Jun 2026 00:00:20 GMT", "Date": "Mon, 01 Jun 2026 00:00:00 GMT"}, 20.0),
        ({"Retry-After": "86400"}, 86_400.0),
        ({"Retry-After": "86401"}, 2.0),
        ({"Retry-After": "-5"}, 2.0),
        ({"Retry-After": "soon"}, 2.0),
        ({"Retry-After": "nan"}, 2.0),
        ({"Retry-After": ""}, 2.0),
        ({}, 2.0),
    ],
)
def test_every_form_of_retry_after(headers: dict[str, str], blocked: float) -> None:
    """What can be understood holds; rubbish, the past and more than a day are as if nothing had been said."""
    clock = FakeClock()
    limits = limiter(clock)
    limits.throttled(admitted(limits.acquire(1)), hints.retry_after(answer(headers)))

    assert limits.snapshot().blocked_until - clock.now() == pytest.approx(blocked)


@pytest.mark.parametrize(
    ("headers", "levels"),
    [
        ({}, [4.7, 5_600]),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-remaining-tokens": "200"}, [3, 200]),
        ({"x-ratelimit-remaining-requests": "0"}, [0, 5_600]),
        ({"anthropic-ratelimit-requests-remaining": "2"}, [2, 5_600]),
        ({"anthropic-ratelimit-tokens-remaining": "1000"}, [4.7, 1_000]),
        ({"anthropic-ratelimit-tokens-remaining": "900", "anthropic-ratelimit-input-tokens-remaining": "7"}, [4.7, 7]),
        ({"x-ratelimit-remaining-tokens": "150000"}, [4.7, 5_600]),
        ({"x-ratelimit-remaining-tokens": "-1"}, [4.7, 5_600]),
        ({"x-ratelimit-remaining-tokens": ""}, [4.7, 5_600]),
        ({"x-ratelimit-remaining-tokens": "unlimited"}, [4.7, 5_600]),
        ({"x-ratelimit-remaining-tokens": "nan"}, [4.7, 5_600]),
        ({"x-ratelimit-remaining-tokens": "inf"}, [4.7, 5_600]),
        ({"x-ratelimit-remaining-tokens": "-inf"}, [4.7, 5_600]),
    ],
)
def test_headers(headers: dict[str, str], levels: list[float]) -> None:
    """What is left at the provider lowers our own count; what makes no sense is ignored."""
    limits = limiter(FakeClock(), tpm=60_000)
    limits.observe(admitted(limits.acquire(100)), answer(headers).headers)

    assert [level for _, level, _ in limits.snapshot().levels] == pytest.approx(levels)


@pytest.mark.parametrize(
    "usage", [{}, {"usage": None}, {"usage": {"prompt_tokens": -4}}, {"usage": {"prompt_tokens": 1e99}}]
)
def test_usage_that_says_nothing(usage: dict[str, object]) -> None:
    """Missing or absurd usage leaves the estimate as it is."""
    limits = limiter(FakeClock(), rpm=None, tpm=60_000)
    read = Usage.read(usage)
    limits.settle(admitted(limits.acquire(100)), actual=read.total_tokens if read else None)

    assert limits.snapshot().levels == (("tokens", 5_600, 5_700),)


def test_a_limit_that_is_wrong_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """When even half of the configured rate is refused, the log says so, once, and again if it comes back."""
    clock = FakeClock()
    limits = RateLimiter(Limits.per_minute(rpm=600), name="holysheep", clock=clock)
    with caplog.at_level(logging.WARNING, "holyroute"):
        for _ in range(4):
            limits.throttled(admitted(limits.acquire(1)), 0.0)
            clock.advance(1.0)
        clock.advance(60.0)
        for _ in range(3):
            limits.throttled(admitted(limits.acquire(1)), 0.0)
            clock.advance(1.0)

    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("holysheep: the provider refuses at less than half")


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def eager() -> Iterator[None]:
    """Threads that change places all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


Work = Callable[[Ticket | Refused], object]


def in_queue(limits: RateLimiter, pool: ThreadPoolExecutor, work: Work, tokens: int = 1) -> threading.Event:
    """Start a caller and come back when it waits; setting the event and `wake` cancel it."""
    asked, stop = threading.Event(), threading.Event()

    def cancelled() -> bool:
        asked.set()
        return stop.is_set()

    pool.submit(lambda: work(limits.acquire(tokens, max_wait=float("inf"), cancelled=cancelled)))

    assert asked.wait(10)

    return stop


def test_first_come_first_served() -> None:
    """Threads go in the order in which they came."""
    limits = RateLimiter(Limits(max_concurrency=1))
    held = admitted(limits.acquire(1))
    order: list[int] = []

    def work(name: int) -> Work:
        def run(answer: Ticket | Refused) -> None:
            order.append(name)
            limits.settle(admitted(answer))

        return run

    with ThreadPoolExecutor(8) as pool:
        for name in range(8):
            in_queue(limits, pool, work(name))
        limits.settle(held)

    assert order == list(range(8))


def test_cancelled_from_another_thread() -> None:
    """`wake` ends the wait of a caller who has been cancelled, at once; those behind it go on."""
    limits = RateLimiter(Limits(max_concurrency=1))
    held = admitted(limits.acquire(1))
    answers: dict[str, Ticket | Refused] = {}
    left = threading.Event()

    def first(answer: Ticket | Refused) -> None:
        answers["first"] = answer
        left.set()

    with ThreadPoolExecutor(2) as pool:
        stop = in_queue(limits, pool, first)
        in_queue(limits, pool, lambda answer: answers.update(second=answer))
        stop.set()
        limits.wake()

        assert left.wait(10)
        assert "second" not in answers

        limits.settle(held)

    assert isinstance(answers["first"], Refused)
    assert isinstance(answers["second"], Ticket)


def test_one_who_leaves_delays_nobody() -> None:
    """When a large prompt at the head is cancelled, the small one behind it goes before the large one could have."""
    limits = RateLimiter(Limits((Limit("tokens", 60_000, 3_600.0),)))
    first = admitted(limits.acquire(5_650))
    eta = limits.eta(5_000, first.sent)
    answers: list[Ticket | Refused] = []
    with ThreadPoolExecutor(2) as pool:
        stop = in_queue(limits, pool, answers.append, 5_000)
        in_queue(limits, pool, answers.append, 40)
        stop.set()
        limits.wake()
    small = next(answer for answer in answers if isinstance(answer, Ticket))

    assert eta is not None
    assert small.tokens == 40
    assert small.sent < first.sent + eta


def test_many_threads(eager: None) -> None:  # noqa: ARG001
    """Sixteen threads at a tiny window: never above a limit or the slots, everybody goes, everything comes back."""
    window = 0.1
    rates = Limits.per_minute(rpm=120, tpm=18_000, max_concurrency=6)
    limits = RateLimiter(rates, LimitSettings(window_scale=window / 60))
    start = threading.Barrier(16)
    busy: list[int] = []

    def work(name: int) -> list[tuple[Ticket, bool]]:
        start.wait()
        mine = []
        for turn in range(40):
            ticket = admitted(limits.acquire(100 + 7 * name + turn, max_wait=60.0, priority=Priority(turn % 3)))
            busy.append(limits.snapshot().in_flight)
            sent = turn % 5 > 0
            mine.append((ticket, sent))
            if sent:
                limits.settle(ticket, actual=ticket.tokens if turn % 2 else None)
            else:
                limits.release(ticket)
            limits.settle(ticket, actual=0)
        return mine

    with ThreadPoolExecutor(16) as pool:
        tickets = sorted((pair for mine in pool.map(work, range(16)) for pair in mine), key=lambda pair: pair[0].number)
    times = [ticket.sent for ticket, _ in tickets]
    sent = [ticket for ticket, sent in tickets if sent]
    windows = [[other.tokens for other in sent if one.sent <= other.sent <= one.sent + window] for one in sent]

    assert [ticket.number for ticket, _ in tickets] == list(range(1, 641))
    assert times == sorted(times)
    assert max(busy) <= 6
    assert max(map(len, windows)) <= 114
    assert max(map(sum, windows)) <= 17_100
    assert limits.snapshot().waiting == limits.snapshot().in_flight == 0
