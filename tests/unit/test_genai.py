"""What the conventions for generative AI want to know of a call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holyroute.core.call import Call, Origin
from holyroute.core.completion import Usage
from holyroute.core.target import Provider, Target
from holyroute.monitoring import genai


def target(base_url: str, dialect: str = "openai") -> Target:
    return Target(name="mine", model="gpt-x", provider=Provider(name="house", base_url=base_url, dialect=dialect))


def call(body: dict[str, Any], *, stream: bool = False, dialect: str = "openai") -> Call:
    origin: Any = None if dialect == "openai" else Origin(request=object(), base_url="", dialect=dialect)  # type: ignore[arg-type]
    return Call(model=None, body=body, deadline=1.0, connect=1.0, read=1.0, stream=stream, origin=origin)


@pytest.mark.parametrize(
    ("base_url", "dialect", "expected"),
    [
        ("https://api.openai.com/v1", "openai", ("openai", "api.openai.com", 443)),
        ("https://api.deepseek.com/v1", "openai", ("deepseek", "api.deepseek.com", 443)),
        ("https://api.anthropic.com/v1", "anthropic", ("anthropic", "api.anthropic.com", 443)),
        ("https://west.openai.azure.com", "azure", ("azure.ai.openai", "west.openai.azure.com", 443)),
        ("https://gateway.example/azure", "azure", ("azure.ai.openai", "gateway.example", 443)),
        ("https://eu-aiplatform.googleapis.com/v1", "openai", ("gcp.vertex_ai", "eu-aiplatform.googleapis.com", 443)),
        ("https://api.holysheep.ai/v1", "openai", ("house", "api.holysheep.ai", 443)),
        ("https://notapi.openai.com.example/v1", "openai", ("house", "notapi.openai.com.example", 443)),
        ("http://localhost:11434/v1", "openai", ("house", "localhost", 11434)),
        ("http://[::1]/v1", "openai", ("house", "::1", 80)),
        ("https://user:word@gateway.example:8443/v1", "openai", ("house", "gateway.example", 8443)),
    ],
)
def test_who_is_asked(base_url: str, dialect: str, expected: tuple[str, str, int]) -> None:
    """The convention's name of a provider where it has one, else ours; the server without credentials."""
    provider, address, port = expected

    assert genai.of_target(target(base_url, dialect)) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": "gpt-x",
        "server.address": address,
        "server.port": port,
    }


def test_what_is_asked_for() -> None:
    """The figures of the request; nothing of the prompt, and nothing that is no figure."""
    body = {
        "messages": [{"role": "user", "content": "a secret"}],
        "temperature": 0.5,
        "top_p": 1,
        "max_completion_tokens": 100,
        "seed": True,
        "frequency_penalty": "much",
        "presence_penalty": None,
        "stop": ["a secret"],
        "n": 3,
        "stream": True,
        "response_format": {"type": "json_object"},
    }

    assert genai.of_request(call(body, stream=True)) == {
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.choice.count": 3,
        "gen_ai.request.stream": True,
        "gen_ai.output.type": "json",
    }


def test_what_came_back() -> None:
    """Id, model, reasons and tokens; whatever has another form than it should is left out."""
    choices = [{"finish_reason": "stop"}, {"finish_reason": None}, "rubbish", {"finish_reason": "length"}]

    assert genai.of_answer({"id": "c-1", "model": "gpt-x-2", "choices": choices}, Usage(3, 4)) == {
        "gen_ai.response.id": "c-1",
        "gen_ai.response.model": "gpt-x-2",
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
    }
    assert genai.of_answer({"id": 1, "model": ["x"], "choices": "none"}, None) == {}
    assert genai.of_answer(None, Usage(3, 4, estimated=True)) == {}


def test_the_bounds_are_those_of_the_conventions() -> None:
    """Powers of four for tokens, doubling seconds."""
    assert (genai.TOKENS[0], genai.TOKENS[2], genai.TOKENS[-1], len(genai.TOKENS)) == (1, 16, 67_108_864, 14)
    assert [after / before for before, after in zip(genai.SECONDS, genai.SECONDS[1:], strict=False)] == [2.0] * 13


def test_a_conversation_in_the_conventions_form() -> None:
    """Messages in parts: texts, pictures, tool calls and their results."""
    asked = {"id": "t-1", "type": "function", "function": {"name": "lookup", "arguments": '{"x": 1}'}}
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/1.png"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is it?"}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": "t-1", "content": "a sheep"},
        "rubbish",
    ]
    told = genai.prompt(call({"messages": messages, "tools": [{"type": "function"}]}))

    assert json.loads(told["gen_ai.tool.definitions"]) == [{"type": "function"}]
    assert json.loads(told["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "What is it?"}, picture]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "t-1", "name": "lookup", "arguments": '{"x": 1}'}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "t-1", "response": "a sheep"}]},
    ]


def test_another_dialect_is_told_in_the_same_form() -> None:
    """A script that speaks Anthropic's has its system prompt and its words in the same places."""
    body = {"system": "Be brief.", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello."}]}
    told = genai.prompt(call(body, dialect="anthropic"))

    assert json.loads(told["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hello."}]},
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": "hello"}]},
        {"choices": [{"message": {"tool_calls": [{"function": "lookup"}, None], "content": [None, {"type": 5}]}}]},
    ],
)
def test_a_rubbish_answer_is_no_error(answer: dict[str, Any]) -> None:
    """Servers say anything."""
    assert "gen_ai.output.messages" in genai.words(answer)


def test_half_a_character_can_be_exported() -> None:
    """JSON may hold one; UTF-8 may not."""
    told = genai.prompt(call({"messages": [{"role": "user", "content": "a\ud83d é"}]}))

    assert json.loads(told["gen_ai.input.messages"].encode())[0]["parts"][0]["content"] == "a? é"


def test_an_answer_in_the_conventions_form() -> None:
    """Each choice is a message with its reason; without an answer nothing is told."""
    choices = [{"message": {"role": "assistant", "content": "A sheep."}, "finish_reason": "stop"}, {"message": None}]

    assert json.loads(genai.words({"choices": choices})["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "A sheep."}], "finish_reason": "stop"},
        {"role": "assistant", "parts": [], "finish_reason": "error"},
    ]
    assert genai.words(None) == genai.words({"choices": []}) == {}


@pytest.mark.parametrize("body", [{}, {"messages": "hello"}, {"messages": [{"content": 5}]}, {"messages": [None]}])
def test_rubbish_is_no_error(body: dict[str, Any]) -> None:
    """What a script wrote is shown as far as it can be."""
    assert "gen_ai.input.messages" in genai.prompt(call(body))
