"""vcrpy records below urllib3: every attempt is on the tape, and a tape answers for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import vcr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import requests

    from holyroute.simulator import Simulator

    Ask = Callable[..., requests.Response]


def test_a_tape_holds_every_attempt(
    a: Simulator, b: Simulator, session: requests.Session, ask: Ask, tmp_path: Path
) -> None:
    """Recorded once, both attempts are played back without a provider."""
    tape = str(tmp_path / "tape.yaml")
    with vcr.use_cassette(tape) as recorded:
        first = ask(session.post)
    hits = a.attempts(), b.attempts()
    with vcr.use_cassette(tape, record_mode="none") as played:
        again = ask(session.post)

    assert first.json() == again.json()
    assert first.json()["model"] == "mb"
    assert [request.uri for request in recorded.requests] == [f"{one.base_url}/chat/completions" for one in (a, b)]
    assert played.play_count == 2
    assert hits == (a.attempts(), b.attempts()) == (1, 1)
