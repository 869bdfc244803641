"""Keys: looked up when needed, never shown, never carried away."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from typing import TYPE_CHECKING

import pytest

from holyroute.config.credentials import Credential, Keyring, is_disabled
from holyroute.core.target import Provider
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "test-key-a"
OTHER_KEY = "test-key-b"


def provider(*names: str) -> Provider:
    """A provider whose keys are in these variables."""
    return Provider(name="x", base_url="https://x.example/v1", api_key_env=names)


# --- the keyring ------------------------------------------------------------------------------------------------------


def test_keys_come_in_the_order_of_their_variables() -> None:
    """Several variables are several keys; what is not set is missing by name."""
    ring = Keyring({"A": KEY, "C": OTHER_KEY})
    keys = ring.keys(provider("C", "B", "A"))

    assert [(key.name, key.secret) for key in keys] == [("C", OTHER_KEY), ("A", KEY)]
    assert keys[0].header == f"Bearer {OTHER_KEY}"
    assert ring.missing(provider("C", "B", "A")) == ("B",)


def test_a_provider_without_variables_needs_no_key() -> None:
    """No names, no keys, nothing missing."""
    ring = Keyring({"A": KEY})

    assert ring.keys(provider()) == ()
    assert ring.missing(provider()) == ()


@pytest.mark.parametrize("value", ["", " ", "\t\r\n"])
def test_blank_variables_are_missing(value: str) -> None:
    """An empty or blank variable is as good as none."""
    ring = Keyring({"A": value})

    assert ring.keys(provider("A")) == ()
    assert ring.missing(provider("A")) == ("A",)


@pytest.mark.parametrize("value", [f"{KEY}\n", f"  {KEY}\r\n", f"{KEY}\xa0"])
def test_white_space_around_a_key_is_dropped(value: str) -> None:
    """A key read from a file with its line end is the key."""
    (key,) = Keyring({"A": value}).keys(provider("A"))

    assert key.secret == KEY


def test_a_changed_environment_is_noticed() -> None:
    """Keys are looked up when they are used: a new one counts from the next call, a removed one is gone."""
    env = {"A": KEY}
    ring = Keyring(env)
    (first,) = ring.keys(provider("A"))
    (same,) = ring.keys(provider("A"))
    env["A"] = OTHER_KEY
    (second,) = ring.keys(provider("A"))
    del env["A"]

    assert same is first
    assert (first.secret, second.secret) == (KEY, OTHER_KEY)
    assert ring.keys(provider("A")) == ()
    assert ring.missing(provider("A")) == ("A",)


def test_the_environment_is_the_process_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `env` the variables of the process count, also those set later."""
    ring = Keyring()
    monkeypatch.setenv("HOLYROUTE_TEST_CREDENTIAL", KEY)

    assert [key.secret for key in ring.keys(provider("HOLYROUTE_TEST_CREDENTIAL"))] == [KEY]


def test_one_key_in_two_variables_is_one_key() -> None:
    """Rotation between two names of the same key would be none."""
    keys = Keyring({"A": KEY, "B": KEY, "C": OTHER_KEY}).keys(provider("A", "B", "C"))

    assert [key.name for key in keys] == ["A", "C"]


@pytest.mark.parametrize(
    "wrong", ["a\nb", "a\x00b", "a\x7fb", "a\x85b", "schlüssel\u200b", "키", "\ufeffa", "a\udcffb"]
)
def test_a_key_no_header_can_carry_is_an_error_without_the_key(wrong: str) -> None:
    """The variable is named; its value stands neither in the message nor in the frames an error reporter collects."""
    ring = Keyring({"A": wrong})
    with pytest.raises(ConfigurationError) as caught:
        ring.keys(provider("A"))
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in report.stack if frame.filename.endswith("config/credentials.py")]

    assert str(caught.value) == "environment: A: the key holds characters that no HTTP header can carry"
    assert len(ours) == 2
    assert not any(repr(wrong) in value for frame in ours for value in (frame.locals or {}).values())
    assert caught.value.__context__ is None


def test_latin_1_keys_are_taken() -> None:
    """What a header can carry is left to the provider to judge."""
    (key,) = Keyring({"A": "schlüssel 1~"}).keys(provider("A"))

    assert key.secret == "schlüssel 1~"


# --- secrecy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        ascii,
        "{}".format,
        "{0!r:>60}".format,
        lambda credential: f"{[credential]} {{'a': {credential!r}}}",
        lambda credential: json.dumps(credential, default=str),
        lambda credential: logging.LogRecord("x", 1, "x", 1, "%s %r", (credential, credential), None).getMessage(),
    ],
)
@pytest.mark.parametrize("made", ["variable", "header"])
def test_a_credential_shows_its_name_and_a_mask(show: Callable[[object], str], made: str) -> None:
    """However it is printed, the name is there and the key is not."""
    credential = Credential("A_NAME", KEY) if made == "variable" else Credential.of_header(f"Bearer {KEY}")

    assert KEY not in show(credential)
    assert credential.name in show(credential)
    assert "***" in show(credential)


def test_a_keyring_shows_nothing() -> None:
    """Neither the keys nor the environment it was given."""
    ring = Keyring({"A": KEY})
    ring.keys(provider("A"))

    assert repr(ring) == "<Keyring ***>"


@pytest.mark.parametrize(
    "carry",
    [
        *(lambda thing, protocol=protocol: pickle.dumps(thing, protocol) for protocol in range(6)),
        copy.copy,
        copy.deepcopy,
        lambda thing: copy.deepcopy({"a": [thing]}),
        vars,
    ],
)
@pytest.mark.parametrize("thing", [Credential("A", KEY), Credential.of_header(KEY)], ids=["variable", "header"])
def test_a_credential_is_not_carried_away(thing: object, carry: Callable[[object], object]) -> None:
    """Pickling, copying and taking it apart fail, and the error does not show the key."""
    with pytest.raises(TypeError) as caught:
        carry(thing)

    assert KEY not in str(caught.value)


def test_a_credential_has_no_state_to_hand_over() -> None:
    """What pickles on its own by asking for the state gets none."""
    with pytest.raises(TypeError, match="not pickled"):
        Credential("A", KEY).__getstate__()


@pytest.mark.parametrize("carry", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_keyring_is_not_carried_away(carry: Callable[[object], object]) -> None:
    """A pickled session takes no keys along."""
    with pytest.raises(TypeError, match="a Keyring is not pickled or copied"):
        carry(Keyring({"A": KEY}))


# --- identity ---------------------------------------------------------------------------------------------------------


def test_credentials_are_equal_if_their_keys_are() -> None:
    """The same key under two names is one account; another key or another kind of thing is not."""
    first, second, other = Credential("A", KEY), Credential("B", KEY), Credential("A", OTHER_KEY)

    assert first == second
    assert first != other
    assert first != KEY
    assert {first, second, other} == {first, other}


def test_a_fingerprint_tells_keys_apart_without_telling_them() -> None:
    """Sixteen hexadecimal digits, the same for the same key, keyed so that nobody can search for the key."""
    import hashlib

    first, other = Credential("A", KEY), Credential("A", OTHER_KEY)

    assert first.fingerprint == Credential("B", KEY).fingerprint
    assert first.fingerprint != other.fingerprint
    assert len(bytes.fromhex(first.fingerprint)) == 8
    assert first.fingerprint != hashlib.blake2b(KEY.encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer  {KEY} ", f"Bearer {KEY}".encode(), KEY])
def test_a_scripts_own_header_is_recognised(value: str | bytes) -> None:
    """The key a script sends itself is the same credential as the one a variable holds."""
    credential = Credential.of_header(value)

    assert credential == Credential("A", KEY)
    assert credential.secret == KEY
    assert credential.name == "Authorization"
    assert credential.header == (value.decode() if isinstance(value, bytes) else value)


@pytest.mark.parametrize("value", ["Basic dGVzdA==", "", "\udcff", b"\xff"])
def test_any_header_has_a_fingerprint(value: str | bytes) -> None:
    """Other schemes and rubbish are told apart as well."""
    assert Credential.of_header(value).fingerprint == Credential.of_header(value).fingerprint
    assert Credential.of_header(value) != Credential("A", KEY)


# --- the switch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        (" on ", True),
        ("y", True),
        ("0", False),
        ("False", False),
        ("no", False),
        ("off", False),
        ("", False),
        (" ", False),
        (None, False),
    ],
)
def test_one_variable_switches_holyroute_off(text: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOLYROUTE_DISABLED takes the usual words, from the process or an environment of one's own."""
    env = {} if text is None else {"HOLYROUTE_DISABLED": text}
    monkeypatch.delenv("HOLYROUTE_DISABLED", raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert is_disabled(env) is expected
    assert is_disabled() is expected
