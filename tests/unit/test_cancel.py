"""Cancel tokens and the watchdog's book-keeping."""

from __future__ import annotations

import threading

from holyroute.core.cancel import CancelToken
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.transport.adapter import cutting
from holyroute.transport.connection import UNDER_WAY
from holyroute.transport.watchdog import LATE, Watchdog


def test_the_first_reason_stays() -> None:
    """Who cancels first says why; the callbacks run once."""
    token, calls = CancelToken(), []
    token.on_cancel(lambda: calls.append("called"))
    token.cancel("first")
    token.cancel("second")

    assert token.reason == "first"
    assert calls == ["called"]


def test_a_callback_that_comes_late_is_called_at_once() -> None:
    """Nobody waits for a cancel that has happened."""
    token, calls = CancelToken(), []
    token.cancel()
    token.on_cancel(lambda: calls.append("called"))

    assert calls == ["called"]


def test_a_callback_can_be_taken_back() -> None:
    """A connection that went back to the pool hears nothing."""
    token, calls = CancelToken(), []

    def callback() -> None:
        calls.append("called")

    token.on_cancel(callback)
    token.forget(callback)
    token.forget(callback)
    token.cancel()

    assert calls == []


def test_the_watchdog_cancels_what_is_late_and_nothing_else() -> None:
    """A token is cancelled at its moment, unless its block was left before."""
    dog, late, early = Watchdog(), CancelToken(), CancelToken()
    fired = threading.Event()
    late.on_cancel(fired.set)
    with dog.watching(early, SYSTEM_CLOCK.now() + 0.01):
        early_left = True
    with dog.watching(late, SYSTEM_CLOCK.now() + 0.05):
        fired.wait(5)

    assert early_left
    assert late.reason == LATE
    assert not early.cancelled


def test_an_attempt_that_is_over_is_not_cut() -> None:
    """Its token may serve another one; and what was under way before is under way again."""
    outer, over, late = CancelToken(), CancelToken(), CancelToken()
    fired = threading.Event()
    late.on_cancel(fired.set)
    with cutting(outer, 60):
        with cutting(over, 0.01):
            inside = UNDER_WAY.token
        with cutting(late, 0.05):
            fired.wait(5)
        afterwards = UNDER_WAY.token

    assert (inside, afterwards, UNDER_WAY.token) == (over, outer, None)
    assert late.reason == LATE
    assert not over.cancelled
    assert not outer.cancelled


def test_an_earlier_deadline_wakes_a_sleeping_watchdog() -> None:
    """The thread does not sleep through a deadline that comes in later and is due sooner."""
    dog, far, near = Watchdog(), CancelToken(), CancelToken()
    fired = threading.Event()
    near.on_cancel(fired.set)
    with dog.watching(far, SYSTEM_CLOCK.now() + 60), dog.watching(near, SYSTEM_CLOCK.now() + 0.05):
        woken = fired.wait(5)

    assert woken
    assert not far.cancelled


def test_finished_calls_do_not_pile_up() -> None:
    """Memory follows the calls under way, not those of the last two minutes."""
    dog = Watchdog()
    for _ in range(20_000):
        with dog.watching(CancelToken(), SYSTEM_CLOCK.now() + 120):
            pass

    assert not dog._watched


def test_lost_streams_do_not_make_finished_calls_pile_up() -> None:
    """They leave without a word, because the garbage collector takes no locks."""
    dog, now, near = Watchdog(), SYSTEM_CLOCK.now(), CancelToken()
    fired = threading.Event()
    near.on_cancel(fired.set)
    for _ in range(5_000):
        lost = dog.watching(CancelToken(), now + 120)
        lost.__enter__()
        lost.token = None
    with dog.watching(near, SYSTEM_CLOCK.now() + 0.02):
        woken = fired.wait(5)
    with dog.watching(CancelToken(), now + 60):
        for _ in range(5_000):
            with dog.watching(CancelToken(), now + 120):
                pass
        left = len(dog._watched)

    assert woken
    assert left < 3_000


def test_a_deadline_in_a_hundred_years_stops_nobody() -> None:
    """A condition cannot wait that long; the watchdog goes on with those that are due sooner."""
    dog, never, soon = Watchdog(), CancelToken(), CancelToken()
    fired = threading.Event()
    soon.on_cancel(fired.set)
    with dog.watching(never, SYSTEM_CLOCK.now() + 1e10), dog.watching(soon, SYSTEM_CLOCK.now() + 0.02):
        woken = fired.wait(5)

    assert woken


def test_a_signal_handler_may_cancel() -> None:
    """Cancelling while this very thread is inside the token does not hang."""
    token = CancelToken()
    with token._lock:
        token.cancel("signal")

    assert token.cancelled
