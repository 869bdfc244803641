"""Buckets, windows, pace, and the queue in front of them: figures that are promised."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holyroute.config.schema import LimitSettings
from holyroute.exceptions import ConfigurationError
from holyroute.resilience.admission import Admission, Priority, Ticket
from holyroute.resilience.bucket import SLOTS, Bucket, Limit, Limits, Pace, Window

LIVE, BATCH, QUEUE = Priority.LIVE, Priority.BATCH, Priority.QUEUE
START = 1_000.0
SETTINGS = LimitSettings()


def admission(*, rpm: float | None = None, tpm: float | None = None, slots: int | None = None) -> Admission:
    return Admission(Limits.per_minute(rpm=rpm, tpm=tpm, max_concurrency=slots), SETTINGS, lambda: 1.0)


def go(gate: Admission, tokens: int = 0, now: float = START) -> Ticket:
    """A ticket that is given at once."""
    ticket = gate.try_admit(tokens, LIVE, now)

    assert ticket is not None

    return ticket


def level(gate: Admission, now: float = START) -> float:
    return gate.levels(now)[0][1]


def drain(gate: Admission, now: float = START) -> list[tuple[float, Ticket]]:
    """Everybody who waits, and when they go."""
    gone = []
    while (wake_at := gate.wake_at(now)) is not None:
        now = wake_at
        gone += [(now, ticket) for ticket in gate.pump(now)]
    return gone


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0, -5, 0.5, math.inf, math.nan])
def test_limits_of_nothing(amount: float) -> None:
    """A limit below one, which would let nobody through for ever, is an error that names the value."""
    with pytest.raises(ConfigurationError, match=f"requests, got {amount}"):
        Limits.per_minute(rpm=amount)
    with pytest.raises(ValueError, match=f"tokens, got {amount}"):
        Limits.per_minute(tpm=amount)


@pytest.mark.parametrize("window", [0, -60.0, math.inf, math.nan])
def test_windows_of_nothing(window: float) -> None:
    """A window has a length."""
    with pytest.raises(ConfigurationError, match=f"seconds, got {window}"):
        Limit("tokens", 100, window)


def test_unknown_kind() -> None:
    """What is limited is requests or tokens."""
    with pytest.raises(ConfigurationError, match="got 'bytes'"):
        Limit("bytes", 100)  # type: ignore[arg-type]


@pytest.mark.parametrize("slots", [0, -1])
def test_concurrency_of_nothing(slots: int) -> None:
    """At least one request at a time."""
    with pytest.raises(ConfigurationError, match=f"max_concurrency: .* got {slots}"):
        Limits(max_concurrency=slots)


# --- a window --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 1_000)), min_size=1))
def test_a_window_is_never_too_short(uses: list[tuple[float, int]]) -> None:
    """It counts all of the last minute, and nothing that is older by more than a slot."""
    window, now, past = Window(60.0), 5.0, []
    for gap, amount in uses:
        now += gap
        window.advance(now)
        window.add(amount, now)
        past.append((now, amount))
        least = sum(amount for at, amount in past if at >= now - 60)
        most = sum(amount for at, amount in past if at > now - 60 - 60 / SLOTS)

        assert least <= window.total <= most


@given(
    st.lists(st.tuples(st.floats(0, 9), st.integers(1, 100)), min_size=1), st.integers(1, 3_000), st.floats(0.01, 90)
)
def test_a_window_knows_when_it_has_room(uses: list[tuple[float, int]], amount: int, seconds: float) -> None:
    """At the time that `when_gone` names so much has left; a moment before, it has not."""
    window, now = Window(seconds), 700.0
    for gap, used in uses:
        now += gap
        window.advance(now)
        window.add(used, now)
    before = window.total
    then = window.when_gone(amount, now)
    window.advance(max(now, math.nextafter(then, 0.0)))
    still = window.total
    window.advance(then)

    assert before - window.total >= min(amount, before)
    assert then > now
    assert before - still < amount


def test_what_is_too_old_is_not_corrected() -> None:
    """Usage that comes in after more than a window changes nothing: the request is no longer counted."""
    window = Window(60.0)
    window.advance(100.0)
    window.add(50, 100.0)
    window.advance(200.0)
    window.add(-50, 100.0)

    assert window.total == 0


# --- pace ------------------------------------------------------------------------------------------------------------


def test_recovery_after_a_cut() -> None:
    """A cut takes three tenths of the rate; a twentieth comes back every 5 s, all of it after 30 s."""
    pace = Pace(SETTINGS)
    pace.cut(START)

    assert [pace.factor(START + seconds) for seconds in (0, 4.9, 5, 10, 29.9, 30, 99)] == pytest.approx(
        [0.7, 0.7, 0.75, 0.8, 0.95, 1, 1]
    )


def test_cuts_have_a_floor() -> None:
    """However often it is cut, a twentieth of the rate is left."""
    pace = Pace(SETTINGS)
    for _ in range(50):
        pace.cut(START)

    assert pace.factor(START) == 0.05


def test_blocked_time_is_worth_nothing() -> None:
    """Neither the buckets nor the rate recover while nobody is sent."""
    pace = Pace(SETTINGS)
    pace.advance(START)
    pace.cut(START)
    pace.block(START + 100, START)
    worth = pace.advance(START + 110)

    assert worth == pytest.approx(5 * 0.7 + 5 * 0.75)
    assert pace.factor(START + 104) == 0.7


def test_a_longer_block_is_kept() -> None:
    """A short Retry-After does not end a long one."""
    pace = Pace(SETTINGS)
    pace.block(START + 100, START)
    pace.block(START + 1, START)

    assert pace.blocked_until == START + 100


@given(
    st.lists(st.tuples(st.sampled_from(["cut", "block", "look"]), st.floats(0, 20)), max_size=12), st.floats(0.01, 200)
)
def test_when_is_the_inverse_of_advance(events: list[tuple[str, float]], seconds: float) -> None:
    """At the time that `when` names, `advance` has given exactly what was asked for; looking often changes nothing."""
    pace, now = Pace(SETTINGS), START
    for event, gap in events:
        now += gap
        pace.advance(now)
        if event == "cut":
            pace.cut(now)
        elif event == "block":
            pace.block(now + gap, now)
    pace.advance(now)
    then = pace.when(seconds, now)
    looks = [now + (then - now) * share / 7 for share in range(1, 7)]

    assert sum(pace.advance(look) for look in [*looks, then]) == pytest.approx(seconds)


def test_a_clock_that_goes_backwards() -> None:
    """Time that was seen once is not counted twice."""
    pace = Pace(SETTINGS)
    pace.advance(START)

    assert [pace.advance(START + second) for second in (10, 3, 12)] == [10, 0, 2]


# --- one bucket ------------------------------------------------------------------------------------------------------


def test_figures_of_a_bucket() -> None:
    """Of 1,000 a minute 950 are used: 95 at once, and the other 855 evenly."""
    bucket = Bucket(Limit("tokens", 1_000), SETTINGS)

    assert (bucket.limit, bucket.capacity, bucket.level) == (950, 95, 95)
    assert bucket.rate == pytest.approx(855 / 60)


def test_a_shorter_window() -> None:
    """Tests run in a window of seconds; the amounts stay."""
    bucket = Bucket(Limit("tokens", 1_000), LimitSettings(window_scale=0.01))

    assert bucket.window == 0.6
    assert bucket.rate == pytest.approx(855 / 0.6)


def test_more_than_was_estimated() -> None:
    """What was used beyond the estimate is in debt, and in the window of when it was used."""
    bucket = Bucket(Limit("tokens", 1_000), SETTINGS)
    bucket.advance(0.0, START)
    bucket.take(50, START)
    bucket.charge(900, START)

    assert bucket.level == 95 - 950
    assert not bucket.holds(1)
    assert START + 60 <= bucket.free_at(1, START) <= START + 61


@pytest.mark.parametrize("rpm", [1, 2, 3, 5, 7, 10, 60])
def test_small_limits_are_usable(rpm: int) -> None:
    """Three requests a minute are not rounded down to none: no minute has more, and most have nearly as many."""
    gate = admission(rpm=rpm)
    for _ in range(20 * rpm):
        gate.enqueue(0, LIVE)
    gate.pump(START)
    times = [at for at, _ in drain(gate)]
    fullest = max(sum(at <= other <= at + 60 for other in times) for at in times)

    assert fullest <= rpm
    assert len(times) / (times[-1] - times[0]) * 60 >= 0.8 * rpm


# --- who may go ------------------------------------------------------------------------------------------------------


def test_the_first_minute() -> None:
    """A tenth goes at once, then one after the other; the bucket that is full at the start adds nothing to a minute."""
    gate = admission(rpm=60)
    tickets = [gate.try_admit(0, LIVE, START) for _ in range(10)]
    for _ in range(100):
        gate.enqueue(0, LIVE)
    times = [at for at, _ in drain(gate)]
    gaps = [later - earlier for earlier, later in pairwise(times)]

    assert sum(ticket is not None for ticket in tickets) == 5
    assert gaps == pytest.approx([60 / (0.9 * 57)] * len(gaps))
    assert sum(at <= START + 60 for at in times) + 5 <= 57


def test_all_limits_or_none() -> None:
    """A request for which there are tokens but no slot takes neither."""
    gate = admission(rpm=10, tpm=10_000)
    go(gate, 10)
    before = gate.levels(START)

    assert gate.try_admit(10, LIVE, START) is None
    assert gate.levels(START) == before


def test_eta() -> None:
    """The time until a ticket can go is what is missing, divided by the rate, and it comes true."""
    gate = admission(tpm=6_000)
    go(gate, 570)
    for _ in range(3):
        gate.enqueue(200, LIVE)
    eta = gate.eta(200, LIVE, START)
    last = gate.enqueue(200, LIVE)

    assert eta == pytest.approx(800 / (0.9 * 5_700 / 60))
    assert drain(gate)[-1] == (pytest.approx(START + 800 / 85.5), last)


@pytest.mark.parametrize(("tokens", "possible"), [(5_700, True), (5_701, False)])
def test_what_can_never_go(tokens: int, possible: bool) -> None:
    """A prompt that is larger than a whole minute's limit is told so at once."""
    assert (admission(tpm=6_000).eta(tokens, LIVE, START) is not None) == possible


def test_a_prompt_larger_than_the_bucket() -> None:
    """It goes when the bucket is full, and whoever comes next waits until its debt is paid."""
    gate = admission(tpm=6_000)
    go(gate, 3_000)
    gate.enqueue(100, LIVE)

    assert level(gate) == 570 - 3_000
    assert drain(gate)[0][0] == pytest.approx(START + (3_000 - 570 + 100) / 85.5)


def test_a_large_prompt_is_not_overtaken() -> None:
    """Small prompts that would fit wait behind a large one that does not."""
    gate = admission(tpm=6_000)
    go(gate, 300)
    large = gate.enqueue(570, LIVE)

    assert gate.try_admit(10, LIVE, START) is None

    small = gate.enqueue(10, LIVE)

    assert [ticket for _, ticket in drain(gate)] == [large, small]


def test_slots() -> None:
    """No more requests at a time than were allowed, and the next one goes when one ends."""
    gate = admission(slots=2)
    first, _ = go(gate), go(gate)
    third = gate.enqueue(0, LIVE)

    assert gate.pump(START) == []
    assert gate.wake_at(START) is None

    gate.settle(first, None, START + 9)

    assert gate.pump(START + 9) == [third]
    assert gate.in_flight == 2


def test_time_alone_lets_nobody_hoard() -> None:
    """After an hour without a request the burst is still a tenth."""
    gate = admission(rpm=60)
    go(gate)

    assert sum(gate.try_admit(0, LIVE, START + 3_600) is not None for _ in range(20)) == 5


# --- classes ---------------------------------------------------------------------------------------------------------


def test_classes() -> None:
    """Live callers go before batches, and batches before the retry queue, whoever came first."""
    gate = admission(rpm=10)
    go(gate)
    tickets = {priority: gate.enqueue(0, priority) for priority in (QUEUE, BATCH, LIVE)}

    assert [ticket for _, ticket in drain(gate)] == [tickets[LIVE], tickets[BATCH], tickets[QUEUE]]


def batches(gate: Admission, minutes: int, *, with_live: bool) -> int:
    """How many tokens batches get in some minutes, while a live caller waits every now and then."""
    used, now, end = 0, START, START + 60.0 * minutes
    while now < end:
        if with_live and gate.try_admit(500, LIVE, now) is None:
            gate.cancel(gate.enqueue(500, LIVE))
        while gate.try_admit(50, BATCH, now) is not None:
            used += 50
        now += 0.5
    return used


def test_batches_leave_a_fifth_to_live_callers() -> None:
    """While live callers have to wait, everything else has four fifths of the limit; without them, all of it."""
    alone = batches(admission(tpm=6_000), 10, with_live=False)
    gate = admission(tpm=6_000)
    shared = batches(gate, 10, with_live=True)

    assert alone >= 10 * 0.9 * 5_700
    assert shared <= 0.8 * 11 * 5_700


def test_batches_alone_leave_no_debt() -> None:
    """The first live caller who waits stops batches for a fifth of a minute, not for all that they used before."""
    gate = admission(tpm=6_000)
    for second in range(600):
        gate.try_admit(100, BATCH, START + second)
    now = START + 600

    assert gate.try_admit(570, LIVE, now) is None

    eta = gate.eta(80, BATCH, now)

    assert eta is not None
    assert eta <= 12


def test_live_callers_pass_those_who_wait() -> None:
    """A batch at the head that does not fit yet keeps no live caller back who does."""
    gate = admission(tpm=6_000)
    go(gate, 300)
    gate.enqueue(570, BATCH)

    assert gate.try_admit(10, BATCH, START) is None
    assert gate.try_admit(10, LIVE, START) is not None


# --- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("actual", "after"), [(100, 470), (0, 570), (300, 270), (400, 170), (None, 270)])
def test_reconciliation(actual: int | None, after: float) -> None:
    """What was estimated is replaced by what was used, up or down; without usage the estimate stays."""
    gate = admission(tpm=6_000)
    ticket = go(gate, 300)
    gate.settle(ticket, actual, START)

    assert level(gate) == after


def test_no_refunds() -> None:
    """Where a provider charges the estimate for good, only a higher usage counts."""
    for actual, after in ((100, 270), (400, 170)):
        gate = Admission(Limits((Limit("tokens", 6_000),), refunds=False), SETTINGS, lambda: 1.0)
        gate.settle(go(gate, 300), actual, START)

        assert level(gate) == after


def test_a_failed_request_counts() -> None:
    """Providers count failed requests too."""
    gate = admission(rpm=60)
    gate.settle(go(gate), None, START)

    assert level(gate) == pytest.approx(4.7)


def test_what_was_never_sent_comes_back() -> None:
    """A ticket that a later gate refused leaves no trace: neither request nor tokens."""
    gate = admission(rpm=60, tpm=6_000)
    before = gate.levels(START)
    gate.cancel(go(gate, 300))

    assert gate.levels(START) == before
    assert gate.in_flight == 0


def test_slow_answers_that_used_little() -> None:
    """What comes back late cannot lift a later minute above the limit.

    Ten prompts reserve a minute's tokens, are answered after 50 s and used next to nothing; those who come then use all
    they reserve.
    """
    gate = admission(tpm=6_000)
    now, slow = START, []
    for _ in range(10):
        gate.enqueue(500, LIVE)
        now, ticket = drain(gate, now)[0]
        slow.append(ticket)
    sent: list[float] = []
    for ticket in slow:
        gate.settle(ticket, 1, now)
        while gate.try_admit(100, LIVE, now) is not None:
            sent.append(now)
        now += 0.1
    for _ in range(100):
        gate.enqueue(100, LIVE)
    sent += [at for at, _ in drain(gate, now)]

    assert max(sum(at <= other <= at + 60 for other in sent) for at in sent) <= 57


@pytest.mark.parametrize("actual", [-5, 10**9])
def test_absurd_usage(actual: int) -> None:
    """Usage beyond every limit counts as the tightest, negative usage as none: nobody waits for over two minutes."""
    gate = Admission(Limits((Limit("tokens", 6_000), Limit("tokens", 100_000, 86_400.0))), SETTINGS, lambda: 1.0)
    gate.settle(go(gate, 100), actual, START)
    eta = gate.eta(100, LIVE, START)

    assert eta is not None
    assert eta <= 120


# --- 429 -------------------------------------------------------------------------------------------------------------


def test_retry_after() -> None:
    """Nobody goes before a Retry-After is over, and then from an empty bucket at seven tenths of the rate."""
    gate = admission(rpm=60)
    gate.throttle(go(gate), 20.0, START)

    assert gate.try_admit(0, LIVE, START + 19.9) is None
    assert gate.eta(0, LIVE, START) == pytest.approx(20 + 1 / (0.7 * 0.9 * 57 / 60))


def test_the_longest_retry_after() -> None:
    """A day is believed, and not more."""
    gate = admission(rpm=60)
    gate.throttle(go(gate), math.inf, START)

    assert gate.pace.blocked_until == START + 86_400


def test_one_cut_per_round_trip() -> None:
    """Requests that were under way together are refused for the same reason: they cut once."""
    gate = admission(rpm=600)
    together = [go(gate) for _ in range(8)]
    for ticket in together:
        gate.throttle(ticket, 0.0, START + 1)

    assert gate.pace.factor(START + 1) == 0.7

    gate.throttle(go(gate, now=START + 4), 0.0, START + 5)

    assert gate.pace.factor(START + 5) == pytest.approx(0.49)


def test_refused_without_a_hint() -> None:
    """Without Retry-After the wait doubles with every round trip up to half a minute, and a success ends the series."""
    gate = admission(rpm=600)
    now, waits = START, []
    for _ in range(6):
        ticket = go(gate, now=now)
        gate.throttle(ticket, None, now + 0.5)
        waits.append(gate.pace.blocked_until - now - 0.5)
        now = gate.pace.blocked_until + 120
    gate.settle(go(gate, now=now), None, now)
    gate.throttle(go(gate, now=now), None, now + 1)

    assert waits == pytest.approx([2, 4, 8, 16, 30, 30])
    assert gate.pace.blocked_until == pytest.approx(now + 3)


def test_many_refused_together_without_a_hint() -> None:
    """Sixteen 429s of one round trip are one reason to wait, not sixteen doublings."""
    gate = admission(rpm=6_000)
    for ticket in [go(gate) for _ in range(16)]:
        gate.throttle(ticket, None, START + 1)

    assert gate.pace.blocked_until == START + 3


def test_a_refused_request_counts_and_its_tokens_do_not() -> None:
    """A 429 gives back the tokens, not the request."""
    gate = admission(rpm=60, tpm=6_000)
    big = go(gate, 3_000)
    gate.throttle(big, 0.0, START)
    (_, requests, _), (_, tokens, _) = gate.levels(START)

    assert (requests, tokens) == (0, 0)


# --- what providers say ----------------------------------------------------------------------------------------------


def test_what_the_provider_has_left() -> None:
    """It lowers a level and never raises one."""
    gate = admission(rpm=60, tpm=6_000)
    ticket = go(gate, 100)
    gate.observe(ticket, {"requests": 1, "tokens": 5_000}, START)

    assert [amount for _, amount, _ in gate.levels(START)] == [1, 470]


def test_what_was_sent_since_is_taken_off() -> None:
    """An answer does not know of the requests that went out after its own."""
    gate = admission(tpm=6_000)
    first = go(gate, 100)
    go(gate, 150)
    gate.observe(first, {"tokens": 250}, START)

    assert level(gate) == 100


def test_an_older_answer_says_nothing_new() -> None:
    """The headers of a request that was sent before the newest that was read are ignored."""
    gate = admission(tpm=6_000)
    older, newer = go(gate, 100), go(gate, 100)
    gate.observe(newer, {"tokens": 300}, START)
    gate.observe(older, {"tokens": 0}, START)

    assert level(gate) == 300


def test_the_shortest_window_is_meant() -> None:
    """Of a limit per minute and one per day, the headers speak of the first."""
    rates = (Limit("tokens", 1_000_000, 86_400.0), Limit("tokens", 6_000))
    gate = Admission(Limits(rates), SETTINGS, lambda: 1.0)
    gate.observe(go(gate, 10), {"tokens": 50}, START)

    assert [amount for _, amount, _ in gate.levels(START)] == [94_990, 50]


def test_a_provider_that_has_nothing_left_is_asked_again() -> None:
    """A header that always says 0 slows down; it stops nobody for longer than a window."""
    gate = admission(tpm=6_000)
    now = START
    for _ in range(20):
        gate.observe(go(gate, 500, now), {"tokens": 0}, now)
        eta = gate.eta(500, LIVE, now)

        assert eta is not None
        assert eta < 61

        now += eta + 0.001
