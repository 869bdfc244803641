"""The streaming faults S06 to S11 and S14 of Failover Bench (methodology v0.1), times scaled down.

An answer of 60 words that is cut after 40, one substitute, streaming on. What a caller may see is the whole answer or a
clear error, never half of one as if it were whole; a healthy call afterwards works.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import holyroute
from holyroute.engine.router import Router
from holyroute.simulator import Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.config.schema import Config

WHOLE = "Answer to: What is the time?"
MESSAGES = [{"role": "user", "content": "What is the time?"}]


@pytest.fixture
def client(configured: Callable[..., Config], env: dict[str, str]) -> Iterator[holyroute.Client]:
    """A first byte within 0.4 s, and 0.6 s between two."""
    with holyroute.Client(router=Router(configured(time={"first_byte": 0.4, "read": 0.6}), env=env)) as client:
        yield client


def told(client: holyroute.Client, **options: Any) -> tuple[str, holyroute.Completion | holyroute.StreamInterrupted]:
    """What a caller was told, and how it ended."""
    stream = client.chat(MESSAGES, model="ma", stream=True, **options)
    try:
        answer = stream.read()
    except holyroute.StreamInterrupted as error:
        return error.partial, error
    return answer.content, answer


def is_alive(client: holyroute.Client) -> bool:
    """Whether the next call is answered in full."""
    return told(client)[0] == WHOLE


def test_s06_accepts_and_says_nothing(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """The silent route is tried once; the substitute answers within the limits of one attempt."""
    a.script("*", faults.late(20))
    text, answer = told(client)

    assert text == WHOLE
    assert isinstance(answer, holyroute.Completion)
    assert answer.model == "mb"
    assert (a.attempts(), b.attempts()) == (1, 1)


def test_s07_first_token_late(a: Simulator, client: holyroute.Client) -> None:
    """Headers at once, nothing behind them: the limit of the first byte ends the wait."""
    a.script("*", faults.first_token_late(20))
    text, answer = told(client)

    assert text == WHOLE
    assert isinstance(answer, holyroute.Completion)
    assert answer.model == "mb"
    assert answer.latency_ms < 2_000


def test_s08_cut_after_forty_of_sixty(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """A clear error with what was said, never a success."""
    a.script("*", faults.cut_stream(40))
    text, end = told(client)

    assert isinstance(end, holyroute.StreamInterrupted)
    assert len(text.split()) == 40
    assert b.seen == []
    assert is_alive(client)


def test_s09_silence_in_the_middle(a: Simulator, client: holyroute.Client) -> None:
    """Twenty tokens, then nothing: ended by the time between two bytes, and not taken for an answer."""
    a.script("*", faults.stall(20))
    text, end = told(client)

    assert isinstance(end, holyroute.StreamInterrupted)
    assert len(text.split()) == 20
    assert is_alive(client)


def test_s10_a_malformed_event(a: Simulator, client: holyroute.Client) -> None:
    """A clean error; what follows the broken event is not glued to what came before."""
    a.script("*", faults.malformed_event(10))
    text, end = told(client)

    assert isinstance(end, holyroute.StreamInterrupted)
    assert text.startswith(WHOLE[:10])
    assert is_alive(client)


def test_s11_complete_without_done(a: Simulator, client: holyroute.Client) -> None:
    """Whole, at once, with its usage."""
    a.script("*", faults.no_done())
    text, answer = told(client)

    assert text == WHOLE
    assert isinstance(answer, holyroute.Completion)
    assert answer.usage is not None
    assert not answer.usage.estimated
    assert answer.latency_ms < 2_000


def test_s14_cut_with_a_substitute_that_takes_no_prefill(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """Nobody is asked to go on with half an answer, so that no refusal of it is shown."""
    a.script("*", faults.cut_stream(40))
    b.always("*", faults.no_prefill())
    _, end = told(client)

    assert isinstance(end, holyroute.StreamInterrupted)
    assert "prefill" not in str(end).lower()
    assert is_alive(client)
    assert b.seen == []
