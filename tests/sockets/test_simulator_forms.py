"""The Simulator in Azure's and Anthropic's form, and translation against it on real sockets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

from holyroute.config.credentials import Credential
from holyroute.core.target import Provider, Target
from holyroute.dialects.translation import DIALECTS, translate
from holyroute.simulator import Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holyroute.dialects.translation import Translation

KEY = "test-key-a"
VERSION = {"anthropic-version": "2023-06-01", "x-api-key": KEY}
ASKED = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
EVENTS = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"]


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with Simulator(api_keys=[KEY]) as simulator:
        yield simulator


def ask(provider: Simulator, headers: dict[str, str] = VERSION, **fields: Any) -> requests.Response:
    return requests.post(f"{provider.base_url}/messages", json={**ASKED, **fields}, headers=headers, timeout=5)


def events(response: requests.Response) -> list[dict[str, Any]]:
    """The data of all events, each of which has its type as its name."""
    found = []
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_message(provider: Simulator) -> None:
    """The good answer, its tokens counted as ever; the system prompt counts too."""
    response = ask(provider, system="Be brief, be kind.")

    assert response.json() == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Answer to: Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 3},
    }
    assert provider.seen[0].model == "m"


def test_a_stream_of_events(provider: Simulator) -> None:
    """Anthropic's events in their order; the usage is told without asking."""
    found = events(ask(provider, stream=True))

    assert list(dict.fromkeys(event["type"] for event in found)) == [*EVENTS, "message_stop"]
    assert "".join(event["delta"].get("text", "") for event in found if "delta" in event) == "Answer to: Hello"
    assert found[-2]["delta"]["stop_reason"] == "end_turn"
    assert found[-2]["usage"] == {"input_tokens": 1, "output_tokens": 3}


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_of_a_tool(provider: Simulator, stream: bool) -> None:
    """A `tool_use` block, whose input is an object; streamed, it comes as pieces of JSON."""
    provider.script("m", faults.tool_call("lookup", {"a": 1}))
    response = ask(provider, stream=stream)
    use = {"type": "tool_use", "id": "call_1", "name": "lookup", "input": {} if stream else {"a": 1}}
    found = events(response)[1:3] if stream else response.json()["content"]

    if stream:
        assert found[0]["content_block"] == use
        assert json.loads(found[1]["delta"]["partial_json"]) == {"a": 1}
    else:
        assert found == [use]


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (faults.status(529), 529, "overloaded_error"),
        (faults.status(429, retry_after=2), 429, "rate_limit_error"),
        (faults.context_length(), 400, "invalid_request_error"),
        (faults.model_not_found(), 404, "not_found_error"),
        (faults.status(503), 503, "api_error"),
        (faults.error_in_200(), 200, "api_error"),
    ],
)
def test_errors_in_anthropics_form(provider: Simulator, fault: faults.Fault, status: int, kind: str) -> None:
    """Their type follows from the status."""
    provider.script("m", fault)
    response = ask(provider)

    assert response.status_code == status
    assert (response.json()["type"], response.json()["error"]["type"]) == ("error", kind)


@pytest.mark.parametrize(
    ("headers", "fields", "status"),
    [
        ({"anthropic-version": "2023-06-01"}, {}, 401),
        ({"x-api-key": KEY}, {}, 400),
        (VERSION, {"max_tokens": None}, 400),
        (VERSION, {"messages": []}, 400),
        (VERSION, {"messages": [{"role": "system", "content": "s"}]}, 400),
        (VERSION, {"model": None}, 400),
    ],
)
def test_what_anthropic_requires(
    provider: Simulator, headers: dict[str, str], fields: dict[str, Any], status: int
) -> None:
    """A key in its own header, a version, a limit, two roles: a request of OpenAI's form is refused."""
    response = ask(provider, headers, **fields)

    assert response.status_code == status
    assert response.json()["type"] == "error"


def test_a_refusal(provider: Simulator) -> None:
    """No content, and the words beside the reason."""
    provider.script("m", faults.refusal("No."), faults.no_choices(), faults.no_usage())
    refused, nothing, silent = (ask(provider).json() for _ in range(3))

    assert (refused["content"], refused["stop_reason"]) == ([], "refusal")
    assert refused["stop_details"]["explanation"] == "No."
    assert nothing["content"] == []
    assert "usage" not in silent


@pytest.mark.parametrize(
    ("fault", "last"),
    [
        (faults.no_done(), "message_delta"),
        (faults.no_finish_reason(), "message_stop"),
        (faults.error_event(), "error"),
    ],
)
def test_streams_that_do_not_end_well(provider: Simulator, fault: faults.Fault, last: str) -> None:
    """The same faults as in OpenAI's form."""
    provider.script("m", fault)
    found = events(ask(provider, stream=True))

    assert found[-1]["type"] == last
    assert ("message_delta" in [event["type"] for event in found]) is (last == "message_delta")


def test_azures_streams_begin_with_its_filters(provider: Simulator) -> None:
    """A chunk without choices, over which scripts stumble that know only OpenAI's."""
    url = f"http://127.0.0.1:{provider.port}/openai/deployments/m/chat/completions?api-version=2024-10-21"
    body = {"messages": ASKED["messages"], "stream": True}
    lines = requests.post(url, json=body, headers={"api-key": KEY}, timeout=5).text.split("\n\n")
    first = json.loads(lines[0].removeprefix("data: "))

    assert first["choices"] == []
    assert "prompt_filter_results" in first
    assert lines[-2] == "data: [DONE]"


# --- translation ------------------------------------------------------------------------------------------------------


def exchanged(provider: Simulator, caller: str, dialect: str, **fields: Any) -> tuple[Translation, requests.Response]:
    """Send a request of one dialect to a target of another."""
    base_url = f"http://127.0.0.1:{provider.port}{'' if dialect == 'azure' else '/v1'}"
    target = Target(name="t", model="m", provider=Provider(name="p", base_url=base_url, dialect=dialect))
    translation = translate(DIALECTS[caller], target, {**ASKED, **fields})
    request = translation.answerer.prepare(target, translation.body, Credential("K", KEY))
    with requests.Session() as session:
        return translation, session.send(request, stream=True, timeout=5)


def text_in(caller: str, answer: Any) -> Any:
    return answer["content"][0]["text"] if caller == "anthropic" else answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("caller", DIALECTS)
def test_everybody_understands_everybody(provider: Simulator, caller: str, dialect: str) -> None:
    """Each dialect is answered by each, in its own form, and the key arrives in the right header."""
    translation, response = exchanged(provider, caller, dialect)

    assert response.status_code == 200
    assert text_in(caller, translation.answer(response.json())) == "Answer to: Hello"


def streamed(translation: Translation, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a stream in the caller's form, as they come."""
    reader = translation.reader()
    for chunk in chunks:
        yield reader.feed(chunk)
    yield reader.end()


def text_streamed(caller: str, stream: bytes) -> str:
    """What a script of a dialect reads from a stream, the way such scripts do."""
    text = ""
    for line in stream.decode().splitlines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        data = json.loads(line.removeprefix("data: "))
        if caller == "anthropic":
            text += data["delta"].get("text", "") if data["type"] == "content_block_delta" else ""
        else:
            text += data["choices"][0]["delta"].get("content") or ""
    return text


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("caller", ["openai", "anthropic"])
def test_everybody_understands_everybodys_streams(provider: Simulator, caller: str, dialect: str) -> None:
    """As they come from the socket, whole to the last event."""
    translation, response = exchanged(provider, caller, dialect, stream=True)
    stream = b"".join(streamed(translation, response.iter_content(7)))

    assert text_streamed(caller, stream) == "Answer to: Hello"
    assert (b"message_stop" if caller == "anthropic" else b"[DONE]") in stream.splitlines()[-2]


@pytest.mark.parametrize(("caller", "dialect"), [("openai", "anthropic"), ("anthropic", "openai")])
def test_a_stream_that_is_cut_stays_broken(provider: Simulator, caller: str, dialect: str) -> None:
    """What came is handed on, then the same exception as without translation."""
    provider.script("m", faults.cut_stream(5))
    translation, response = exchanged(provider, caller, dialect, stream=True)
    received = b""
    with pytest.raises(requests.exceptions.ChunkedEncodingError):  # noqa: PT012 - what came before counts too
        for piece in streamed(translation, response.iter_content(None)):
            received += piece

    assert text_streamed(caller, received).startswith("Answer to: Hello")
    assert b"[DONE]" not in received
    assert b"message_stop" not in received


@pytest.mark.parametrize(("caller", "dialect"), [("openai", "anthropic"), ("anthropic", "azure")])
def test_an_error_speaks_the_callers_language(provider: Simulator, caller: str, dialect: str) -> None:
    """Its status and its type."""
    provider.script("m", faults.status(529 if dialect == "anthropic" else 503))
    translation, response = exchanged(provider, caller, dialect)
    status, body = translation.error(response.status_code, response.json())

    assert (status, body["error"]["type"]) == (
        (503, "server_error") if caller == "openai" else (529, "overloaded_error")
    )
