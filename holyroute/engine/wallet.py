"""Which credential goes with an attempt: several keys rotate, a benched one is left alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holyroute.config.credentials import MASK, callers_credential
from holyroute.core import verdicts
from holyroute.core.trace import BENCHED, NO_CREDENTIAL
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holyroute.config.credentials import Credential, Keyring
    from holyroute.core.call import Call
    from holyroute.core.outcome import Outcome
    from holyroute.core.target import Provider, Target
    from holyroute.engine.attempt import Candidate
    from holyroute.resilience.gates import Bench
    from holyroute.resilience.guard import Guards


@dataclass(slots=True)
class Choice:
    """A credential to go with, or the reason why there is none."""

    credential: Credential | None = None  # None without a reason: the target needs none
    with_callers_key: bool = False
    refused: str | None = None
    retry_at: float | None = None  # monotonic seconds


class Wallet:
    """Chooses credentials. Safe to share between threads."""

    def __init__(self, keyring: Keyring, guards: Guards) -> None:
        self._keyring = keyring
        self._guards = guards
        self._turns: dict[str, itertools.count[int]] = {}

    def can_pay(self, candidate: Candidate) -> bool:
        """Whether there is any credential to go with, benched or not, or none is needed."""
        provider = candidate.target.provider
        return candidate.at_home or not provider.api_key_env or bool(self._keyring.keys(provider))

    def missing(self, provider: Provider) -> str:
        """What a provider's owner has to do, where it has no key."""
        return f"{NO_CREDENTIAL}: set {', '.join(provider.api_key_env)}"

    def choose(self, candidate: Candidate, call: Call, now: float, spent: Sequence[Credential | None] = ()) -> Choice:
        """A credential that is neither spent nor benched here, the caller's own first at the caller's own host."""
        choices = self._choices(candidate, call)
        if not choices:
            return Choice(refused=self.missing(candidate.target.provider))
        if spent:
            choices = [choice for choice in choices if choice.credential not in spent]
            if not choices:
                return Choice(refused="every key was tried")
        if not self._guards.gates:  # nothing is benched, as usual
            return choices[0]
        benches = []
        for choice in choices:
            bench = self._guards.benched(candidate.target, choice.credential, now)
            if bench is None:
                return choice
            benches.append(bench)
        first = min(benches, key=lambda bench: bench.until)
        return Choice(refused=f"{BENCHED}{first.reason}", retry_at=first.until)

    def benched(self, target: Target, now: float) -> Bench | None:
        """Why a target is left alone whichever configured key is taken, or with the keys that callers brought."""
        try:
            keys = self._keyring.keys(target.provider)
        except ConfigurationError:  # a key that no header can carry: whoever makes a call is told
            keys = ()
        if not keys:
            return self._guards.held(target, now)
        benches = [self._guards.benched(target, key, now) for key in keys]
        return min((bench for bench in benches if bench), key=lambda one: one.until) if all(benches) else None

    def explain(self, target: Target, credential: Credential | None, outcome: Outcome) -> str:
        """The outcome's detail without the key, which some providers repeat; for a 401 what a person has to check."""
        detail = _masked(outcome.detail, credential) if outcome.detail else ""
        if outcome.verdict is not verdicts.UNAUTHORIZED:
            return detail
        provider = target.provider
        if credential is None:
            return f"{provider.base_url} wants a key, and none was sent; {detail}"
        form = ""
        if provider.api_key_prefix:
            fits = credential.secret.startswith(provider.api_key_prefix)
            form = f", it {'starts' if fits else 'does not start'} with {provider.api_key_prefix!r} as its keys do"
        return f"{provider.base_url} rejected the key in {credential.name}{form}; {detail}"

    def _choices(self, candidate: Candidate, call: Call) -> list[Choice]:
        provider = candidate.target.provider
        callers = [Choice(callers_credential(call), with_callers_key=True)] if candidate.at_home else []
        if not provider.api_key_env:
            return callers or [Choice()]
        configured = [Choice(credential) for credential in self._rotated(provider)]
        if not callers:
            return configured
        if configured and callers and callers[0].credential is None and not candidate.own:
            return configured  # the script sent no key, and what it wrote is not what is asked now
        return callers + configured

    def _rotated(self, provider: Provider) -> Sequence[Credential]:
        keys = self._keyring.keys(provider)
        if len(keys) < 2:
            return keys
        # next() on itertools.count is atomic in CPython: each call starts with another key
        turn = next(self._turns.setdefault(provider.name, itertools.count())) % len(keys)
        return [*keys[turn:], *keys[:turn]]


def _masked(text: str, credential: Credential | None) -> str:
    return text.replace(credential.secret, MASK) if credential is not None and credential.is_telling else text
