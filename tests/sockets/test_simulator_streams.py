"""What a plain client sees of streams, good ones and others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

from holyroute.simulator import Profile, Simulator, faults
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "gpt-4.1"
PROMPT = "What is the time?"
GOOD = f"Answer to: {PROMPT}"
USAGE = {"include_usage": True}


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


def stream(provider: Simulator, model: str = MODEL, timeout: float = 5, **fields: Any) -> requests.Response:
    payload = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "stream": True, **fields}
    return requests.post(f"{provider.base_url}/chat/completions", json=payload, timeout=timeout, stream=True)


def lines(response: requests.Response) -> list[str]:
    """The lines of a stream up to its end, however it ends."""
    with response:
        found: list[str] = []
        try:
            found.extend(line.decode() for line in response.iter_lines())
        except requests.exceptions.RequestException as error:
            found.append(f"{type(error).__name__}: {error}")
        return [line for line in found if line]


def chunks(found: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in found if line.startswith("data: {")]


def text(found: list[str]) -> str:
    deltas = (choice["delta"] for chunk in chunks(found) for choice in chunk["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)


def finish_reasons(found: list[str]) -> list[str]:
    reasons = [choice["finish_reason"] for chunk in chunks(found) for choice in chunk["choices"]]
    return [reason for reason in reasons if reason]


def test_good_stream(provider: Simulator) -> None:
    """Server-sent events in OpenAI's shape: role, one event per word, finish reason, `[DONE]`; no usage unasked."""
    response = stream(provider)
    found = lines(response)

    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert {"chat.completion.chunk"} == {chunk["object"] for chunk in chunks(found)}
    assert chunks(found)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text(found) == GOOD
    assert len(chunks(found)) == 1 + 6 + 1
    assert finish_reasons(found) == ["stop"]
    assert found[-1] == "data: [DONE]"
    assert all("usage" not in chunk for chunk in chunks(found))


def test_usage_when_asked_for(provider: Simulator) -> None:
    """An event of its own before `[DONE]`, without choices; in the others it is null."""
    *others, last = chunks(lines(stream(provider, stream_options=USAGE)))

    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    assert all(chunk["usage"] is None for chunk in others)


def test_stream_is_billed_as_any_answer(provider: Simulator) -> None:
    """A whole stream is booked with its tokens when its last byte leaves."""
    lines(stream(provider))
    seen = provider.seen[0]

    assert (seen.prompt_tokens, seen.completion_tokens, seen.billed) == (4, 6, True)


def test_connection_is_kept_alive_after_a_stream(provider: Simulator) -> None:
    """The last chunk ends the answer, not the connection."""
    payload: dict[str, Any] = {"model": MODEL, "messages": [], "stream": True}
    with requests.Session() as session:
        for _ in range(3):
            session.post(f"{provider.base_url}/chat/completions", json=payload, timeout=5)

    assert [seen.connection for seen in provider.seen] == [1, 1, 1]


def test_profile_sets_the_length() -> None:
    """An answer of 60 tokens comes in 60 pieces."""
    with Simulator({MODEL: Profile(completion_tokens=60)}) as provider:
        found = lines(stream(provider, stream_options=USAGE))

    assert len(text(found).split()) == 60
    assert len(chunks(found)) == 1 + 60 + 2
    assert chunks(found)[-1]["usage"]["completion_tokens"] == 60


@pytest.mark.parametrize("name", ["503", "429:2", "firewall", "content-policy"])
def test_errors_before_a_stream_are_no_streams(provider: Simulator, name: str) -> None:
    """A status is a plain answer, also when a stream was asked for."""
    response = stream(provider, f"sim:{name}")

    assert response.status_code >= 400
    assert "event-stream" not in response.headers["Content-Type"]


@pytest.mark.parametrize(("name", "seconds"), [("first-token-late:20", [20.0]), ("slow-stream:0.5", [0.5] * 8)])
def test_slow_streams(name: str, seconds: list[float]) -> None:
    """A good stream, with waits before the first event or before each."""
    clock = FakeClock()
    with Simulator(clock=clock) as provider:
        found = lines(stream(provider, f"sim:{name}"))

    assert text(found) == GOOD
    assert found[-1] == "data: [DONE]"
    assert seconds == clock.slept


@pytest.mark.parametrize("name", ["ok", "no-done", "malformed-event", "no-finish-reason"])
def test_streams_take_the_time_of_the_profile(name: str) -> None:
    """A stream begins when the profile's latency has passed."""
    clock = FakeClock()
    with Simulator({MODEL: Profile(mean=2.0)}, clock=clock) as provider:
        provider.script(MODEL, name)
        lines(stream(provider))

    assert clock.slept == [2.0]


def test_headers_come_before_a_late_token(provider: Simulator) -> None:
    """Status and headers are there at once; the wait is in the body."""
    with stream(provider, "sim:first-token-late:30", timeout=0.3) as response:
        assert response.status_code == 200
        with pytest.raises(requests.exceptions.ConnectionError, match="Read timed out"):
            next(response.iter_lines())


def test_comments(provider: Simulator) -> None:
    """Comments come before the first event of a good stream."""
    found = lines(stream(provider, "sim:comments:2"))

    assert found[:2] == [": keep-alive", ": keep-alive"]
    assert text(found) == GOOD


@pytest.mark.parametrize(
    ("name", "message"), [("cut-stream:40", "ended prematurely"), ("reset-stream:40", "Connection reset by peer")]
)
def test_cut_streams(provider: Simulator, name: str, message: str) -> None:
    """40 of 60 tokens arrive, then the connection ends inside the chunked coding; nothing is billed."""
    found = lines(stream(provider, f"sim:{name}"))
    seen = provider.seen[0]

    assert len(text(found).split()) == 40
    assert found[-1].startswith("ChunkedEncodingError")
    assert message in found[-1]
    assert finish_reasons(found) == []
    assert (seen.completion_tokens, seen.billed) == (60, False)


def test_cut_body_and_reset_body_cut_streams_too(provider: Simulator) -> None:
    """The faults of connections work on streams as well."""
    for name in ("cut-body", "reset-body"):
        found = lines(stream(provider, f"sim:{name}"))

        assert found[-1].startswith("ChunkedEncodingError")
        assert GOOD.startswith(text(found))


def test_stall(provider: Simulator) -> None:
    """20 tokens come, then silence until the client gives up."""
    found = lines(stream(provider, "sim:stall:20", timeout=0.3))

    assert len(text(found).split()) == 20
    assert found[-1].startswith("ConnectionError")


def test_stall_for_a_while(provider: Simulator) -> None:
    """With a time given, the connection closes after the silence."""
    found = lines(stream(provider, "sim:stall:20:0.05"))

    assert len(text(found).split()) == 20
    assert found[-1].startswith("ChunkedEncodingError")


def test_malformed_event(provider: Simulator) -> None:
    """One event is no JSON; all others, and the end, are as they should be."""
    found = lines(stream(provider, "sim:malformed-event:2"))
    broken = found.pop(3)

    with pytest.raises(ValueError, match="Unterminated"):
        json.loads(broken.removeprefix("data: "))
    assert text(found) == GOOD
    assert found[-1] == "data: [DONE]"


def test_error_event(provider: Simulator) -> None:
    """The error comes as an event, after which the stream ends in good order; nothing is billed."""
    found = lines(stream(provider, "sim:error-event:2"))

    assert json.loads(found[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    assert text(found[:-1]) == "Answer to: "
    assert [seen.billed for seen in provider.seen] == [False]


def test_no_done(provider: Simulator) -> None:
    """Everything but `[DONE]`, usage included."""
    found = lines(stream(provider, "sim:no-done", stream_options=USAGE))

    assert text(found) == GOOD
    assert finish_reasons(found) == ["stop"]
    assert chunks(found)[-1]["usage"]["completion_tokens"] == 6
    assert "data: [DONE]" not in found


def test_no_finish_reason(provider: Simulator) -> None:
    """The text is whole, but nothing says so."""
    found = lines(stream(provider, "sim:no-finish-reason"))

    assert (text(found), finish_reasons(found)) == (GOOD, [])
    assert found[-1] == "data: [DONE]"


def test_no_usage(provider: Simulator) -> None:
    """Asked for and not sent."""
    found = lines(stream(provider, "sim:no-usage", stream_options=USAGE))

    assert all(chunk["usage"] is None for chunk in chunks(found))
    assert [seen.billed for seen in provider.seen] == [True]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("empty", "stop"), ("empty-length", "length"), ("content-filter", "content_filter"), ("refusal", "stop")],
)
def test_streams_without_text(provider: Simulator, name: str, reason: str) -> None:
    """Streams can be empty for the same reasons as plain answers."""
    found = lines(stream(provider, f"sim:{name}"))

    assert (text(found), finish_reasons(found)) == ("", [reason])


def test_tool_call_in_a_stream(provider: Simulator) -> None:
    """The call comes as a delta with its index."""
    found = lines(stream(provider, "sim:tool-call"))
    calls = chunks(found)[0]["choices"][0]["delta"]["tool_calls"]

    assert [call["index"] for call in calls] == [0]
    assert calls[0]["function"]["name"] == "lookup"
    assert finish_reasons(found) == ["tool_calls"]


def test_billed_cut(provider: Simulator) -> None:
    """A provider which bills what it generated, also when the connection broke, can be had."""
    provider.script(MODEL, faults.billed(faults.cut_stream(4)))
    lines(stream(provider))
    figures = provider.statistics()[MODEL]

    assert (figures.failures, figures.prompt_tokens, figures.completion_tokens) == (1, 4, 6)
