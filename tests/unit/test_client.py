"""What a client makes of an answer, whatever its shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import responses

import holyroute
from holyroute.engine.router import Router
from holyroute.exceptions import AllTargetsFailed, ConfigurationError
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from holyroute.core.completion import Completion

URL = "https://p.example/v1"


@pytest.fixture
def client() -> holyroute.Client:
    config = holyroute.load(
        env={},
        cwd_file=False,
        providers={"p": {"base_url": URL, "api_key_env": "K"}},
        models={"m": {"provider": "p", "price": {"input": "0.1", "output": "0.3"}}},
    )
    return holyroute.Client(router=Router(config, clock=FakeClock(), env={"K": "test-key-a"}))


def ask(client: holyroute.Client, answer: dict[str, Any], **options: Any) -> Completion:
    with responses.RequestsMock() as mock:
        mock.post(f"{URL}/chat/completions", json=answer)
        return client.chat([{"role": "user", "content": "hello"}], model="m", **options)


def choice(**message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (choice(content="hello"), "hello"),
        (choice(content=[{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]), "hello"),
        (choice(content=[{"type": "text", "text": "hello"}, {"type": "image"}, "odd", {"text": None}]), "hello"),
        (choice(content=None, tool_calls=[{"id": "1"}]), ""),
        (choice(content=None, function_call={"name": "f"}), ""),
    ],
)
def test_the_text_of_an_answer(client: holyroute.Client, answer: dict[str, Any], content: str) -> None:
    """A text, or the texts of its parts joined; none where a tool is called."""
    completion = ask(client, answer)

    assert (completion.content, completion.success, completion.model) == (content, True, "m")
    assert completion.raw == answer
    assert completion.message == answer["choices"][0]["message"]
    assert completion.tool_calls == answer["choices"][0]["message"].get("tool_calls", [])


@pytest.mark.parametrize(("reason", "expected"), [("length", "length"), (None, None), (7, None)])
def test_the_reason_to_finish(client: holyroute.Client, reason: Any, expected: str | None) -> None:
    """As the provider says it, if it is a word."""
    answer = choice(content="hello")
    answer["choices"][0]["finish_reason"] = reason

    assert ask(client, answer).finish_reason == expected


def test_failures_of_a_stream_are_raised(client: holyroute.Client) -> None:
    """They may come at any time, so that there is no one moment to return them."""
    with pytest.raises(ValueError, match="on_failure: expected 'raise' for a stream"):
        client.chat([], stream=True, on_failure="return")


def test_time_passes_on_the_routers_clock(client: holyroute.Client) -> None:
    """A sole target is asked three times with backoff, and latency counts the waits."""
    with responses.RequestsMock() as mock:
        mock.post(f"{URL}/chat/completions", status=503)
        completion = client.ask("hello", model="m", on_failure="return")
        calls = len(mock.calls)
    clock: Any = client.router.clock

    assert calls == 3
    assert completion.latency_ms == pytest.approx(1_000 * sum(clock.slept))
    assert isinstance(completion.error, AllTargetsFailed)


def test_a_client_shows_no_key(client: holyroute.Client) -> None:
    """Not in its repr, and it does not pickle with its keys."""
    assert "test-key" not in repr(client) + repr(client.router) + repr(vars(client))


@pytest.mark.parametrize(
    ("messages", "error", "told"),
    [
        ("Hello", TypeError, "messages: expected a list such as"),
        (
            {"role": "user", "content": "Hello"},
            TypeError,
            "got {'role': 'user', 'content': 'Hello'}; ask.. takes a text",
        ),
        (None, TypeError, "got None"),
        ([], ValueError, "messages: expected at least one"),
        ([{"role": "user", "content": "Hello"}, "Hello"], TypeError, r"messages\[1\]: expected .*, got 'Hello'"),
        ((b"Hello",), TypeError, r"messages\[0\]"),
    ],
)
def test_what_is_no_list_of_messages_is_not_sent(
    client: holyroute.Client, messages: Any, error: type[Exception], told: str
) -> None:
    """A text would go out as a list of its letters; the message says what was expected, and where."""
    with pytest.raises(error, match=told):
        client.chat(messages, model="m")


@pytest.mark.parametrize("deadline", ["soon", True, float("nan")])
def test_a_deadline_is_a_number_of_seconds(client: holyroute.Client, deadline: Any) -> None:
    """Anything else is refused before it is calculated with."""
    with pytest.raises(ValueError, match=f"deadline: expected seconds, got {deadline!r}"):
        client.ask("Hello", model="m", deadline=deadline)


@pytest.mark.parametrize("option", ["task", "priority", "order", "max_latency"])
def test_what_is_no_name_is_refused(client: holyroute.Client, option: str) -> None:
    """Also where it could not even be looked up; the message says which option it is."""
    with pytest.raises(ConfigurationError, match=rf"{option}: expected a name, got \['fast'\]"):
        client.ask("Hello", **{option: ["fast"]})


def test_models_are_names(client: holyroute.Client) -> None:
    """And no lists of names, which could not even be looked up."""
    with pytest.raises(ConfigurationError, match=r"models: expected a list of names, got \[\['m'\]\]"):
        client.ask("Hello", models=[["m"]])  # type: ignore[list-item]


def test_what_to_do_on_failure_is_one_of_three(client: holyroute.Client) -> None:
    """A misspelt word would raise where the caller did not expect it."""
    with pytest.raises(ValueError, match="on_failure: expected one of raise, return, queue, got 'ignore'"):
        client.ask("Hello", model="m", on_failure="ignore")
