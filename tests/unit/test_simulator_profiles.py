from __future__ import annotations

import statistics
from decimal import Decimal

import pytest

from holyroute.simulator import Limit, Profile, benchmark_profiles
from holyroute.simulator.profiles import Behaviour, Window, lognormal
from holyroute.simulator.statistics import percentile


@pytest.mark.parametrize(("model", "profile"), benchmark_profiles().items())
def test_latencies_have_the_mean_and_the_p95_of_the_profile(model: str, profile: Profile) -> None:
    """Over 20,000 draws, mean and 95th percentile are those which were asked for, within 3 %."""
    behaviour = Behaviour(profile, None, model)

    drawn = [behaviour.draw()[0] for _ in range(20_000)]

    assert pytest.approx(profile.mean, rel=0.03) == statistics.fmean(drawn)
    assert pytest.approx(profile.p95, rel=0.03) == percentile(drawn, 0.95)


def test_latency_without_a_p95_is_constant() -> None:
    """A profile with a mean alone always takes exactly that long; one without a mean takes no time."""
    constant, none = Behaviour(Profile(mean=0.5), None, ""), Behaviour(Profile(), None, "")

    assert {0.5} == {constant.draw()[0] for _ in range(10)}
    assert none.draw()[0] == 0.0


def test_p95_equal_to_the_mean_is_constant() -> None:
    """No spread at all is a possible distribution."""
    _, sigma = lognormal(2.0, 2.0)

    assert sigma == 0.0


@pytest.mark.parametrize("p95", [0.9, 4.0])
def test_impossible_distributions_are_refused(p95: float) -> None:
    """A p95 below the mean, or further above than any lognormal distribution has it, is an error at once."""
    with pytest.raises(ValueError, match="p95"):
        Profile(mean=1.0, p95=p95)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_impossible_availability_is_refused(share: float) -> None:
    """Availability is a share."""
    with pytest.raises(ValueError, match="availability"):
        Profile(availability=share)


def test_availability_is_met() -> None:
    """About as many calls are answered as the profile says."""
    behaviour = Behaviour(Profile(availability=0.9), None, "seed")

    answered = sum(behaviour.draw()[1] for _ in range(20_000))

    assert pytest.approx(0.9, abs=0.01) == answered / 20_000


def test_same_seed_same_behaviour() -> None:
    """A run can be repeated: the seed alone decides what a model does."""

    def draws(seed: str) -> list[tuple[float, bool]]:
        behaviour = Behaviour(Profile(mean=1.0, p95=2.0, availability=0.5), None, seed)
        return [behaviour.draw() for _ in range(50)]

    assert draws("a") == draws("a")
    assert draws("a") != draws("b")


def test_cost_is_exact() -> None:
    """Prices are per million tokens, input and output apart, and nothing is rounded."""
    profile = Profile(price_input=Decimal("0.42"), price_output=Decimal("1.68"))

    assert Decimal("0.00000210") == profile.cost(1, 1)


def test_benchmark_table() -> None:
    """The published figures are carried over; the model which was not measured borrows them from its sibling."""
    profiles = benchmark_profiles()
    sonnet, sibling = profiles["claude-sonnet-4-20250514"], profiles["claude-3-5-sonnet-latest"]

    assert len(profiles) == 6
    assert (
        Profile(mean=1.8, p95=3.5, availability=0.999, price_input=Decimal("8.00"), price_output=Decimal("32.00"))
        == profiles["gpt-4.1"]
    )
    assert (sibling.mean, sibling.p95, sibling.availability) == (sonnet.mean, sonnet.p95, sonnet.availability)


def test_window_allows_as_many_requests_as_its_limit() -> None:
    """Above the limit it names the moment at which the oldest request leaves the window."""
    window = Window(Limit(rpm=2), 60.0)

    assert [window.take(1, now) for now in (0.0, 5.0, 10.0)] == [0.0, 0.0, 50.0]
    assert window.take(1, 60.0) == 0.0


def test_window_allows_as_many_tokens_as_its_limit() -> None:
    """A large request waits until enough tokens have left the window, not merely the oldest request."""
    window = Window(Limit(tpm=100), 60.0)

    assert [window.take(40, 0.0), window.take(40, 10.0)] == [0.0, 0.0]
    assert window.take(30, 20.0) == 40.0
    assert window.take(80, 20.0) == 50.0


def test_tokens_leave_the_window() -> None:
    """After a window, all of the limit can be used again."""
    window = Window(Limit(tpm=100), 60.0)

    assert [window.take(100, now) for now in (0.0, 60.0, 120.0)] == [0.0, 0.0, 0.0]


def test_refused_requests_take_nothing() -> None:
    """Asking too early does not push the moment further away."""
    window = Window(Limit(rpm=1), 60.0)

    assert [window.take(1, now) for now in (0.0, 1.0, 59.0, 60.0)] == [0.0, 59.0, 1.0, 0.0]


def test_request_larger_than_the_limit_is_never_allowed() -> None:
    """It is told to come back after a whole window, and refused again."""
    window = Window(Limit(tpm=100), 60.0)

    assert [window.take(101, 0.0), window.take(101, 60.0)] == [60.0, 60.0]


@pytest.mark.parametrize(("values", "expected"), [([], 0.0), ([3.0], 3.0), ([float(n) for n in range(1, 101)], 95.0)])
def test_percentile_is_the_nearest_rank(values: list[float], expected: float) -> None:
    """It is always one of the values, and 0.0 when there is none."""
    assert expected == percentile(values, 0.95)
