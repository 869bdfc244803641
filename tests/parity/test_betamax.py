"""betamax stands in a session's adapters: every attempt is on the tape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import betamax
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import requests

    from holyroute.simulator import Simulator

    Ask = Callable[..., requests.Response]


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")  # betamax's own, from 3.12 on
def test_a_tape_holds_every_attempt(
    a: Simulator, b: Simulator, session: requests.Session, ask: Ask, tmp_path: Path
) -> None:
    """Recorded once, both attempts are played back without a provider; afterwards the session is as before."""
    adapters = dict(session.adapters)
    with betamax.Betamax(session, cassette_library_dir=str(tmp_path)).use_cassette("tape"):
        first = ask(session.post)
    hits = a.attempts(), b.attempts()
    with betamax.Betamax(session, cassette_library_dir=str(tmp_path)).use_cassette("tape", record="none"):
        again = ask(session.post)
    tape = json.loads((tmp_path / "tape.json").read_text())

    assert first.json() == again.json()
    assert first.json()["model"] == "mb"
    assert [one["request"]["uri"] for one in tape["http_interactions"]] == [
        f"{one.base_url}/chat/completions" for one in (a, b)
    ]
    assert hits == (a.attempts(), b.attempts()) == (1, 1)
    assert dict(session.adapters) == adapters
