"""Keys: looked up in the environment when they are needed, and never shown."""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, Any, NoReturn

from holyroute.config.problems import ENVIRONMENT
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holyroute.core.call import Call
    from holyroute.core.target import Provider

HEADERS = ("Authorization", "api-key", "x-api-key")  # that hold keys, in the dialects there are

MASK = "***"  # in the place of a key

_HASH_KEY = os.urandom(32)  # fingerprints mean nothing outside this process
_HEADER_TEXT = re.compile(r"[\x20-\x7e\xa0-\xff]+")  # what a header can carry: Latin-1 without control characters
_SCHEME = re.compile(r"\s*bearer\s+", re.IGNORECASE)
_SHORTEST = 8  # characters; local servers take anything for a key, and are given "x", "EMPTY" or "ollama"
_SWITCH = "HOLYROUTE_DISABLED"
_OFF = {"", "0", "false", "no", "off"}


def fingerprint(secret: str) -> str:
    """Tells secrets apart within this process, and tells nobody what they are."""
    return hashlib.blake2b(secret.encode("utf-8", "surrogatepass"), key=_HASH_KEY, digest_size=8).hexdigest()


class Credential:
    """One key under the name of the variable that holds it.

    Printing it shows a mask, pickling or copying it raises `TypeError`. Two credentials are equal if their keys are,
    whatever their names: a provider benches the key.
    """

    __slots__ = ("_header", "_secret", "fingerprint", "name")

    def __init__(self, name: str, secret: str, header: str | None = None) -> None:
        self.name = name
        self._secret = secret
        self._header = f"Bearer {secret}" if header is None else header
        #: Identifies the key within this process without telling it; safe in the name of a gate.
        self.fingerprint = fingerprint(secret)

    @classmethod
    def of_header(cls, value: str | bytes, name: str = "Authorization") -> Credential:
        """The credential in a script's own header; equal to a configured one with the same key."""
        header = value.decode("latin-1") if isinstance(value, bytes) else value
        secret = _SCHEME.sub("", header, count=1).strip()
        return cls(name, secret, header if name == "Authorization" else None)

    @property
    def secret(self) -> str:
        """The key itself, for a header of a dialect's own."""
        return self._secret

    @property
    def is_telling(self) -> bool:
        """Whether a text that holds the key tells one: what is shorter than any key may stand there by chance."""
        return len(self._secret) >= _SHORTEST

    @property
    def header(self) -> str:
        """The value of an `Authorization` header."""
        return self._header

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Credential) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<Credential {self.name} ***>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Credential is not pickled or copied: the key would travel along")

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(None)


def callers_credential(call: Call) -> Credential | None:
    """The credential in the script's own headers; None where it sent none."""
    headers = call.origin.request.headers if call.origin is not None else {}
    name = next((name for name in HEADERS if headers.get(name)), None)
    return Credential.of_header(headers[name], name) if name is not None else None


class Keyring:
    """Looks keys up by the names a provider gives, each time anew, so that a changed environment is noticed.

    Safe to share between threads. A variable that is empty or blank counts as missing; white space around a key is
    dropped.
    """

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._env = os.environ if env is None else env
        self._known: dict[str, Credential] = {}

    def keys(self, provider: Provider) -> tuple[Credential, ...]:
        """The keys of a provider that are there, in the order of its names, each key once.

        Raises:
            ConfigurationError: If a variable holds what no HTTP header can carry; its value is not shown.
        """
        if len(provider.api_key_env) == 1:  # the usual case
            only = self._lookup(provider.api_key_env[0])
            return () if only is None else (only,)
        found: dict[str, Credential] = {}
        for name in provider.api_key_env:
            credential = self._lookup(name)
            if credential is not None:
                found.setdefault(credential.fingerprint, credential)
        return tuple(found.values())

    def missing(self, provider: Provider) -> tuple[str, ...]:
        """The variables of a provider that hold no key."""
        return tuple(name for name in provider.api_key_env if not self._value(name))

    def secrets(self, providers: Iterable[Provider]) -> tuple[str, ...]:
        """All keys of some providers as they stand in the environment: what must not be written anywhere."""
        names = {name for provider in providers for name in provider.api_key_env}
        return tuple(value for name in names if (value := self._value(name)))

    def value(self, name: str) -> str:
        """What a variable holds that is secret, but no key of a provider; empty if there is none."""
        return self._value(name)

    def __repr__(self) -> str:
        return "<Keyring ***>"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a Keyring is not pickled or copied: its keys would travel along")

    def _lookup(self, name: str) -> Credential | None:
        # The value is never a local variable where something is raised: error reporters send those along.
        known = self._known.get(name)
        if known is not None and known.secret == self._value(name):
            return known
        if not self._value(name):
            return None
        if not _HEADER_TEXT.fullmatch(self._value(name)):
            raise ConfigurationError(f"{ENVIRONMENT}: {name}: the key holds characters that no HTTP header can carry")
        known = self._known[name] = Credential(name, self._value(name))
        return known

    def _value(self, name: str) -> str:
        return self._env.get(name, "").strip()


def is_disabled(env: Mapping[str, str] | None = None) -> bool:
    """Whether `HOLYROUTE_DISABLED` switches every door to plain requests: 1, true, yes, on.

    Only 0, false, no, off and nothing at all leave holyroute on: who writes anything else wants it off.
    """
    env = os.environ if env is None else env
    return _SWITCH in env and env.get(_SWITCH, "").strip().lower() not in _OFF
