"""A script keeps its own format, whoever answers: OpenAI's, Azure's or Anthropic's, in one piece and streamed."""

from __future__ import annotations

import json
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.core import verdicts
from holyroute.engine.router import Router
from holyroute.simulator import Exchange, Fault, Simulator, answers, faults
from holyroute.simulator.forms import Told

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.config.schema import Config

PROMPT = "What is the time?"
GOOD = f"Answer to: {PROMPT}"
MESSAGES = [{"role": "user", "content": PROMPT}]
TOOL = {"name": "clock", "description": "Tells the time.", "input_schema": {"type": "object", "properties": {}}}
FUNCTION = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}

# What a script of each dialect writes: path and body behind the base URL, its key's header, its tools.
SCRIPTS: dict[str, tuple[str, dict[str, Any], str, Any]] = {
    "openai": ("/v1/chat/completions", {"model": "ma"}, "Authorization", FUNCTION),
    "azure": ("/openai/deployments/ma/chat/completions?api-version=2024-10-21", {}, "api-key", FUNCTION),
    "anthropic": ("/v1/messages", {"model": "ma", "max_tokens": 500}, "x-api-key", TOOL),
}
# How a provider of each dialect is declared.
PROVIDERS: dict[str, dict[str, str]] = {
    "openai": {"path": "/v1"},
    "azure": {"path": "", "dialect": "azure", "api_version": "2024-10-21"},
    "anthropic": {"path": "/v1", "dialect": "anthropic"},
}


def text_of(dialect: str, answer: dict[str, Any]) -> str:
    text: str
    text = answer["content"][0]["text"] if dialect == "anthropic" else answer["choices"][0]["message"]["content"]
    return text


def text_streamed(dialect: str, lines: list[bytes]) -> str:
    """As scripts of a dialect read it."""
    text = ""
    for line in lines:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if dialect == "anthropic":
                text += event.get("delta", {}).get("text", "")
            else:
                text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return text


@pytest.fixture
def router_between(
    a: Simulator, b: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> Callable[[str], Router]:
    """B declared in a dialect; whatever is written for A may go there."""

    def between(answerer: str) -> Router:
        declared = dict(PROVIDERS[answerer])
        root = b.base_url.removesuffix("/v1")
        provider = {"base_url": root + declared.pop("path"), "api_key_env": "KEY_B", **declared}
        host = a.base_url.split("/")[2]
        return Router(
            holyroute.load(
                env={},
                cwd_file=False,
                providers={"b": provider},
                models={"mb": {"provider": "b", "price": {"input": 3, "output": 6}}},
                failover={host: ["mb"]},
                routes={"general": {"normal": ["mb"]}},
            ),
            env=env,
        )

    del configured
    return between


@pytest.fixture
def post(a: Simulator, router_between: Callable[[str], Router]) -> Callable[..., requests.Response]:
    """Asks A in one dialect, with B declared in another one."""

    def post(caller: str, answerer: str, *, stream: bool = False, **fields: Any) -> requests.Response:
        path, body, header, _ = SCRIPTS[caller]
        key = "Bearer test-key-a" if header == "Authorization" else "test-key-a"
        headers = {header: key, **({"anthropic-version": "2023-06-01"} if caller == "anthropic" else {})}
        body = {**body, "messages": MESSAGES, **({"stream": True} if stream else {}), **fields}
        session = holyroute.Session(router=router_between(answerer))
        return session.post(a.base_url.removesuffix("/v1") + path, json=body, headers=headers, stream=stream)

    return post


@pytest.mark.parametrize("caller", SCRIPTS)
@pytest.mark.parametrize("answerer", PROVIDERS)
def test_a_script_reads_its_own_format(
    a: Simulator, b: Simulator, post: Callable[..., requests.Response], caller: str, answerer: str
) -> None:
    """A is down; B answers in its dialect, under its own key and model name."""
    a.always("*", "503")
    response = post(caller, answerer)
    trace = holyroute.trace_of(response)

    assert response.status_code == 200
    assert text_of(caller, response.json()) == GOOD
    assert trace is not None
    assert trace.answered_by is not None
    assert (trace.answered_by.name, trace.attempts[-1].usage is not None) == ("mb", True)
    assert [seen.model for seen in b.seen] == ["mb"]
    assert "test-key-a" not in str(b.seen[0].headers)


@pytest.mark.parametrize("header", ["x-api-key", "Authorization"])
def test_the_scripts_key_is_good_for_another_dialect_of_its_host(
    a: Simulator, b: Simulator, configured: Callable[..., Config], env: dict[str, str], header: str
) -> None:
    """It goes into the header of that dialect, in the form that belongs there."""
    _, body, _, _ = SCRIPTS["anthropic"]
    session = holyroute.Session(router=Router(configured(), env=env))
    key = "test-key-a" if header == "x-api-key" else "Bearer test-key-a"
    asked = {**body, "model": "route:simple_qa", "messages": MESSAGES}
    response = session.post(f"{a.base_url}/messages", json=asked, headers={header: key})

    assert text_of("anthropic", response.json()) == GOOD
    assert [seen.status for seen in a.seen] == [200]
    assert b.seen == []


@pytest.mark.parametrize("caller", SCRIPTS)
@pytest.mark.parametrize("answerer", PROVIDERS)
def test_a_script_reads_its_own_stream(
    a: Simulator, post: Callable[..., requests.Response], caller: str, answerer: str
) -> None:
    """Event by event, with the end that its dialect has."""
    a.always("*", "503")
    response = post(caller, answerer, stream=True)
    lines = list(response.iter_lines())
    trace = holyroute.trace_of(response)

    assert text_streamed(caller, lines) == GOOD
    assert (b"message_stop" if caller == "anthropic" else b"[DONE]") in lines[-2]
    assert trace is not None
    assert trace.verdict is verdicts.ANSWERED
    assert trace.attempts[-1].usage is not None


@pytest.mark.parametrize("caller", SCRIPTS)
@pytest.mark.parametrize("answerer", PROVIDERS)
def test_a_stream_read_as_one_body_is_the_scripts_own(
    a: Simulator, post: Callable[..., requests.Response], caller: str, answerer: str
) -> None:
    """`stream` in the body, and none for requests."""
    a.always("*", "503")
    body = {**SCRIPTS[caller][1], "stream": True}
    response = post(caller, answerer, **body)

    assert text_streamed(caller, response.content.splitlines()) == GOOD


@pytest.mark.parametrize(
    ("caller", "answerer"), [("openai", "anthropic"), ("anthropic", "openai"), ("azure", "anthropic")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_translated_stream_is_no_success(
    a: Simulator, b: Simulator, post: Callable[..., requests.Response], caller: str, answerer: str, *, stream: bool
) -> None:
    """Cut in the middle: the exception of requests, or somebody else's answer where nothing was handed out."""
    a.always("*", "503")
    b.script("*", faults.cut_stream(5))
    if stream:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = post(caller, answerer, stream=True).content
    else:
        response = post(caller, answerer, stream=False)
        assert text_of(caller, response.json()).startswith(GOOD[:9])


def echo_in_a_stream() -> Fault:
    """Behind the first word an error event repeats the key, which comes in two pieces."""

    def play(exchange: Exchange) -> None:
        events = exchange.events(exchange.answer)
        exchange.send(exchange.stream_head() + b"".join(map(answers.chunk, [*events.first, *events.tokens[:2]])))
        event = exchange.form.error_event(500, Told("Out of order for test-key-b.", "server_error"))
        middle = event.index(b"test-key-b") + 4
        exchange.send(answers.chunk(event[:middle]))
        exchange.wait(0.05)
        exchange.finish(answers.chunk(event[middle:]) + answers.END)

    return Fault("echo-in-a-stream", play)


@pytest.mark.parametrize("caller", SCRIPTS)
@pytest.mark.parametrize("answerer", PROVIDERS)
def test_a_substitutes_stream_tells_no_key(
    a: Simulator, b: Simulator, post: Callable[..., requests.Response], caller: str, answerer: str
) -> None:
    """Neither in its bytes, nor in the exception and what is wrapped in it."""
    a.always("*", "503")
    b.always("*", echo_in_a_stream())
    response = post(caller, answerer, stream=True)
    pieces = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError) as caught:
        pieces.extend(response.iter_content(None))
    told = [b"".join(pieces), pickle.dumps(caught.value), "".join(traceback.format_exception(caught.value)).encode()]

    assert b"Out of order for ***." in told[0]
    assert not [text for text in told if b"test-key-b" in text]


@pytest.mark.parametrize(("caller", "answerer"), [("openai", "anthropic"), ("anthropic", "openai")])
@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called_in_the_scripts_format(
    a: Simulator, b: Simulator, post: Callable[..., requests.Response], caller: str, answerer: str, *, stream: bool
) -> None:
    """Offered in one dialect, called in another one, read in the first."""
    a.always("*", "503")
    b.always("*", faults.tool_call())
    response = post(caller, answerer, stream=stream, tools=[SCRIPTS[caller][3]])
    text = response.text

    assert ('"tool_use"' if caller == "anthropic" else '"tool_calls"') in text.replace(" ", "")


@pytest.mark.parametrize("caller", ["openai", "anthropic"])
@pytest.mark.parametrize("answerer", PROVIDERS)
def test_an_error_of_a_substitute_has_the_scripts_shape(
    a: Simulator, b: Simulator, router_between: Callable[[str], Router], caller: str, answerer: str
) -> None:
    """A virtual model has no target of the script's own, so that B's refusal is what is shown, in the script's form."""
    b.always("*", "400")
    path, body, header, _ = SCRIPTS[caller]
    body = {**body, "model": "route:general/normal", "messages": MESSAGES}
    session = holyroute.Session(router=router_between(answerer))
    url = a.base_url.removesuffix("/v1") + path
    response = session.post(url, json=body, headers={header: "test-key-a"}, timeout=3)
    error = response.json()

    assert response.status_code == 400
    assert error["error"]["message"]
    assert (error.get("type") == "error") == (caller == "anthropic")


def test_what_cannot_be_said_is_skipped_with_the_reason(
    a: Simulator, b: Simulator, post: Callable[..., requests.Response]
) -> None:
    """Four answers at once are nothing that Anthropic can give: B is not asked, and the trace says why."""
    a.always("*", "503")
    response = post("openai", "anthropic", n=4)
    trace = holyroute.trace_of(response)

    assert response.status_code == 503
    assert b.seen == []
    assert trace is not None
    assert "its dialect cannot say it: n" in str(trace)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_asks_any_dialect(
    a: Simulator, b: Simulator, router_between: Callable[[str], Router], *, stream: bool
) -> None:
    """Completions are the same, whoever wrote them."""
    del a, b
    with holyroute.Client(router=router_between("anthropic")) as client:
        answer = client.chat(MESSAGES, model="mb", stream=True).read() if stream else client.chat(MESSAGES, model="mb")

    assert (answer.content, answer.finish_reason) == (GOOD, "stop")
    assert answer.usage is not None
    assert answer.cost_usd is not None
