"""Which key goes with an attempt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from requests import Request

from holyroute.config.credentials import Credential, Keyring, callers_credential
from holyroute.config.schema import BreakerSettings
from holyroute.core import verdicts
from holyroute.core.call import Call, Origin
from holyroute.core.outcome import Outcome
from holyroute.core.target import Provider, Target
from holyroute.engine.attempt import Candidate
from holyroute.engine.wallet import Wallet
from holyroute.resilience.guard import Guards

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.verdicts import Verdict

ENV = {"KEY_1": "test-key-1", "KEY_2": "test-key-2", "KEY_3": "test-key-1", "EMPTY": " "}
BASE = "https://here.example/v1"


def target(*names: str, **provider: Any) -> Target:
    return Target(name="m", model="m", provider=Provider(name="p", base_url=BASE, api_key_env=names, **provider))


def call(headers: Mapping[str, Any] | None = None) -> Call:
    request = Request("POST", f"{BASE}/chat/completions").prepare()
    request.headers.update(headers or {})
    origin = Origin(request=request, base_url=BASE)
    return Call(model="m", body={}, deadline=1, connect=1, read=1, origin=origin)


@pytest.fixture
def guards() -> Guards:
    return Guards(BreakerSettings(), lambda _: None)


@pytest.fixture
def wallet(guards: Guards) -> Wallet:
    return Wallet(Keyring(ENV), guards)


def test_keys_take_turns(wallet: Wallet) -> None:
    """Several variables share the load, each key once, however many name it."""
    candidate = Candidate(target=target("KEY_1", "KEY_2", "KEY_3", "EMPTY"))
    choices = [wallet.choose(candidate, call(), 0).credential for _ in range(4)]

    assert [choice.name for choice in choices if choice] == ["KEY_1", "KEY_2", "KEY_1", "KEY_2"]


@pytest.mark.parametrize(
    ("verdict", "others"),
    [(verdicts.UNAUTHORIZED, ["KEY_2"]), (verdicts.QUOTA, ["KEY_2"]), (verdicts.FORBIDDEN, ["KEY_2"])],
)
def test_a_benched_key_is_left_alone(wallet: Wallet, guards: Guards, verdict: Verdict, others: list[str]) -> None:
    """While one key rests the other goes; when none is left, the choice says why and until when."""
    candidate = Candidate(target=target("KEY_1", "KEY_2"))
    outcome = Outcome(verdict=verdict, status=401)
    guards.bench(candidate.target, Credential("KEY_1", "test-key-1"), outcome, sent=100, now=100)
    choices = [wallet.choose(candidate, call(), 101).credential for _ in range(3)]

    assert {choice.name for choice in choices if choice} == set(others)

    guards.bench(candidate.target, Credential("KEY_2", "test-key-2"), outcome, sent=150, now=150)
    refused = wallet.choose(candidate, call(), 151)

    assert (refused.credential, refused.refused, refused.retry_at) == (None, f"benched: {verdict}", 400)
    assert wallet.choose(candidate, call(), 401).refused is None


def test_without_a_key_the_variables_are_named(wallet: Wallet) -> None:
    """A target that wants a key nobody set is refused; one that wants none is asked without."""
    refused = wallet.choose(Candidate(target=target("EMPTY", "NOWHERE")), call(), 0)
    free = wallet.choose(Candidate(target=target()), call({"Authorization": "Bearer test-key-9"}), 0)

    assert refused.refused == "no credential: set EMPTY, NOWHERE"
    assert (free.refused, free.credential, free.with_callers_key) == (None, None, False)


@pytest.mark.parametrize(
    ("candidate", "able"),
    [
        (Candidate(target=target()), True),
        (Candidate(target=target("KEY_1")), True),
        (Candidate(target=target("EMPTY")), False),
        (Candidate(target=target("EMPTY"), at_home=True), True),
    ],
)
def test_who_can_be_asked_at_all(wallet: Wallet, candidate: Candidate, *, able: bool) -> None:
    """A key of ours, none needed, or the caller's own at the caller's own host."""
    assert wallet.can_pay(candidate) is able


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer test-key-9"},
        {"authorization": b"bearer  test-key-9 "},
        {"api-key": "test-key-9"},
        {"x-api-key": "test-key-9", "X-Title": "x"},
    ],
)
def test_the_callers_own_key_comes_first_at_home(wallet: Wallet, guards: Guards, headers: dict[str, Any]) -> None:
    """In whichever header it stands; once it is rejected, a configured one goes in its place."""
    candidate = Candidate(target=target("KEY_1"), own=True, at_home=True)
    first = wallet.choose(candidate, call(headers), 0)

    assert first.with_callers_key
    assert first.credential == Credential("any", "test-key-9")
    assert callers_credential(call(headers)) == first.credential

    guards.bench(candidate.target, first.credential, Outcome(verdict=verdicts.UNAUTHORIZED), sent=0, now=0)
    second = wallet.choose(candidate, call(headers), 1)
    elsewhere = wallet.choose(replace(candidate, own=False, at_home=False), call(headers), 1)

    assert (second.with_callers_key, second.credential) == (False, Credential("any", "test-key-1"))
    assert elsewhere == second


def test_a_caller_without_a_key_is_a_caller(wallet: Wallet) -> None:
    """Local servers want none: the script's request goes as it is."""
    choice = wallet.choose(Candidate(target=target("KEY_1"), own=True, at_home=True), call(), 0)

    assert (choice.with_callers_key, choice.credential) == (True, None)


@pytest.mark.parametrize(
    ("prefix", "names", "expected"),
    [
        ("", ("KEY_1",), f"{BASE} rejected the key in KEY_1; invalid: *** is wrong"),
        (
            "test-",
            ("KEY_1",),
            f"{BASE} rejected the key in KEY_1, it starts with 'test-' as its keys do; invalid: *** is wrong",
        ),
        (
            "live-",
            ("KEY_1",),
            f"{BASE} rejected the key in KEY_1, it does not start with 'live-' as its keys do; invalid: *** is wrong",
        ),
        ("", (), f"{BASE} wants a key, and none was sent; invalid: test-key-1 is wrong"),
    ],
)
def test_a_rejected_key_is_explained(wallet: Wallet, prefix: str, names: tuple[str, ...], expected: str) -> None:
    """Which variable to look at, which endpoint, whether it has the right form; never the key."""
    place = target(*names, api_key_prefix=prefix)
    credential = wallet.choose(Candidate(target=place), call(), 0).credential
    outcome = Outcome(verdict=verdicts.UNAUTHORIZED, status=401, detail="invalid: test-key-1 is wrong")

    assert wallet.explain(place, credential, outcome) == expected


def test_a_key_is_masked_in_any_detail(wallet: Wallet) -> None:
    """Providers repeat it in other errors, too."""
    outcome = Outcome(verdict=verdicts.SERVER_ERROR, status=500, detail="no route for test-key-1, test-key-1")

    assert wallet.explain(target(), Credential("KEY_1", "test-key-1"), outcome) == "no route for ***, ***"


def test_what_stands_for_a_key_is_left_in_a_detail(wallet: Wallet) -> None:
    """A key of one letter would make a reason unreadable."""
    outcome = Outcome(verdict=verdicts.SERVER_ERROR, status=500, detail="expected text, got an image")

    assert wallet.explain(target(), Credential("KEY_1", "x"), outcome) == "expected text, got an image"
