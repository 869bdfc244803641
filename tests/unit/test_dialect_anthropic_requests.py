"""Requests between OpenAI's form and Anthropic's: what every field becomes, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from requests import PreparedRequest, Request

from holyroute.config.credentials import Credential
from holyroute.core.target import Provider, Target
from holyroute.dialects import anthropic
from holyroute.dialects.anthropic import tables
from holyroute.dialects.base import Fate, Untranslatable

URL = "https://api.anthropic.com/v1/messages"
PROVIDER = Provider(name="p", base_url="https://there.example/v1", dialect="anthropic")
TARGET = Target(name="t", model="claude", provider=PROVIDER)
HI = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OWN_TOOL = {"name": "f", "input_schema": {"type": "object"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}
PNG = "iVBORw0KGgo="


def to_anthropic(**fields: Any) -> dict[str, Any]:
    return anthropic.request_from_openai({"model": "m", "messages": [HI], **fields}, TARGET)


def to_openai(**fields: Any) -> dict[str, Any]:
    return anthropic.request_to_openai({"model": "m", "max_tokens": 9, "messages": [HI], **fields})


def call(id_: str = "call_1", name: str = "f", arguments: str = '{"a": 1}') -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def use(id_: str = "call_1", name: str = "f", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": name, "input": arguments}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def pdf_file(**fields: Any) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", **fields}}


INLINE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
LINKED = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}


# --- address and headers ----------------------------------------------------------------------------------------------


def prepared(url: str = URL, **options: Any) -> PreparedRequest:
    return Request("POST", url, **({"json": {"model": "m", "messages": [HI]}} | options)).prepare()


@pytest.mark.parametrize(
    ("request_", "model"),
    [
        (prepared(), "m"),
        (prepared(json=None, data=json.dumps({"model": "m", "messages": []})), "m"),
        (prepared("https://x.example/anthropic/v1/messages?beta=true"), "m"),
        (prepared(f"{URL}/batches"), None),
        (prepared(f"{URL}/count_tokens"), None),
        (prepared("https://forum.example/messages"), None),
        (prepared(json={"messages": []}), None),
        (prepared(json={"model": "", "messages": []}), None),
        (prepared(json=["model", "messages"]), None),
    ],
)
def test_what_is_a_request_for_a_message(request_: PreparedRequest, model: str | None) -> None:
    """A POST to `…/v1/messages` with JSON that holds a model and messages."""
    found = anthropic.read(request_)

    assert (found[0] if found else None) == model


def test_a_base_url_holds_no_secret() -> None:
    """It ends in /v1, without query, user and password."""
    request = prepared("https://user:secret@api.example.com:8443/v1/messages?key=secret")

    assert anthropic.base_url(request) == "https://api.example.com:8443/v1"


def test_a_new_request_carries_what_names_nobody() -> None:
    """The target's own key in its own header, and of the caller's headers those that hold no secret."""
    headers = {"x-api-key": "test-key-a", "Cookie": "a=1", "User-Agent": "script", "Anthropic-Beta": "new-thing"}
    request = anthropic.prepare(
        TARGET, {"messages": []}, Credential("K", "test-key-b"), prepared(headers=headers).headers
    )

    assert dict(request.headers) == {
        "Accept": "application/json",
        "User-Agent": "script",
        "Content-Type": "application/json",
        "Content-Length": str(len(request.body or b"")),
        "anthropic-beta": "new-thing",
        "anthropic-version": "2023-06-01",
        "x-api-key": "test-key-b",
    }
    assert request.url == "https://there.example/v1/messages"
    assert json.loads(request.body or b"") == {"messages": [], "model": "claude"}


def test_a_callers_version_travels_and_no_key_is_no_header() -> None:
    """A body may be of another version."""
    request = anthropic.prepare(TARGET, {"messages": []}, None, {"anthropic-version": "2030-01-01"})

    assert request.headers["anthropic-version"] == "2030-01-01"
    assert "x-api-key" not in request.headers


def test_a_renamed_request_changes_nothing_else() -> None:
    """At the same host the caller's own request goes again, with another model."""
    original = prepared(headers={"x-api-key": "test-key-a"})
    request = anthropic.renamed(original.copy(), TARGET, {"messages": []})

    assert (request.url, request.headers["x-api-key"]) == (URL, "test-key-a")
    assert json.loads(request.body or b"") == {"messages": [], "model": "claude"}


# --- OpenAI → Anthropic -----------------------------------------------------------------------------------------------


def test_the_smallest_request() -> None:
    """`max_tokens` is required there: 4096 where nobody says more, else what the target declares."""
    larger = Target(name="t", model="claude", provider=PROVIDER, max_output=64_000)

    assert to_anthropic() == {"model": "m", "max_tokens": 4096, "messages": [HI]}
    assert anthropic.request_from_openai({"messages": [HI]}, larger)["max_tokens"] == 64_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6}, {"max_tokens": 6}),
        ({"max_completion_tokens": 6, "max_tokens": 5}, {"max_tokens": 6}),
        ({"max_tokens": None}, {"max_tokens": 4096}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"stop": []}, {}),
        ({"temperature": 0.3}, {"temperature": 0.3}),
        ({"temperature": 1.7}, {"temperature": 1}),
        ({"temperature": "warm"}, {"temperature": "warm"}),
        ({"top_p": 0.9}, {"top_p": 0.9}),
        ({"top_p": 1}, {}),
        ({"top_k": 40}, {"top_k": 40}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"user": "u-1"}, {"metadata": {"user_id": "u-1"}}),
        ({"safety_identifier": "u-2"}, {"metadata": {"user_id": "u-2"}}),
        ({"user": "me@example.com"}, {}),
        ({"user": "+49 30 123456"}, {}),
        ({"user": "x" * 257}, {}),
        ({"n": 1, "logprobs": False, "logit_bias": {}, "modalities": ["text"], "functions": []}, {}),
        ({"seed": 1, "frequency_penalty": 1, "presence_penalty": 1, "reasoning_effort": "high"}, {}),
        ({"store": True, "metadata": {"a": "b"}, "service_tier": "flex", "prompt_cache_key": "k"}, {}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
    ],
)
def test_fields_on_the_way_to_anthropic(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Carried in its words, or left out where the answer is as good without."""
    assert to_anthropic(**fields) == {"model": "m", "max_tokens": 4096, "messages": [HI], **expected}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": 3}, "response_format"),
        ({"stop": "\n"}, "stop"),
        ({"stop": ["a", 3]}, "stop"),
        ({"something_new": 1}, "something_new"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [TOOL, {"type": "function", "function": {"name": ""}}]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "new": 1}}]}, "tools[0].function.new"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "tools[0].function.parameters.type",
        ),
        ({"tools": {}}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": "f"}, "tool_choice"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "system", "content": "s"}]}, "messages"),
        ({"messages": [HI, {"role": "assistant", "content": "{"}]}, "messages[1]"),
        ({"messages": [HI, {"role": "function", "name": "f", "content": "1"}]}, "messages[1].role"),
        ({"messages": [{"role": ["user"], "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [words("")]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": ["text"]}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [image("http://x.example/a.png")]}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [image("data:image/tiff;base64,AA")]}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
            "messages[0].content[0].file.file_data",
        ),
        (
            {"messages": [{"role": "user", "content": [pdf_file(file_data="data:text/csv;base64,AA")]}]},
            "messages[0].content[0].file.file_data",
        ),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}, HI]}, "messages[0].audio"),
        ({"messages": [{"role": "assistant", "function_call": {}}, HI]}, "messages[0].function_call"),
        (
            {"messages": [HI, {"role": "assistant", "tool_calls": [call(arguments="{")]}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [HI, {"role": "assistant", "tool_calls": [call(arguments="[1]")]}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        ({"messages": [HI, {"role": "assistant", "tool_calls": [call("")]}]}, "messages[1].tool_calls[0].id"),
        (
            {"messages": [HI, {"role": "assistant", "tool_calls": [{"type": "custom"}]}]},
            "messages[1].tool_calls[0].type",
        ),
        ({"messages": [HI, {"role": "tool", "content": "1"}]}, "messages[1].tool_call_id"),
    ],
)
def test_what_anthropic_cannot_be_asked(fields: dict[str, Any], path: str) -> None:
    """Refused with its path before anything is sent: the answer would be another one, or have another form."""
    with pytest.raises(Untranslatable) as caught:
        to_anthropic(**fields)

    assert caught.value.path == path
    assert str(caught.value) == f"{path}: {caught.value.reason}"


@pytest.mark.parametrize(
    ("content", "block"),
    [
        ([image(f"data:image/png;base64,{PNG}")], INLINE),
        ([image(f"data:IMAGE/PNG;base64,{PNG}")], INLINE),
        ([{"type": "image_url", "image_url": "https://x.example/a.png"}], LINKED),
        ([{"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}}], LINKED),
        (
            [image("data:image/jpg;base64,AA")],
            {**INLINE, "source": {**INLINE["source"], "media_type": "image/jpeg", "data": "AA"}},
        ),  # type: ignore[dict-item]
        ([pdf_file()], PDF),
        ([pdf_file(filename="a.pdf")], {**PDF, "title": "a.pdf"}),
        ([words("a")], words("a")),
    ],
)
def test_parts_become_blocks(content: list[Any], block: dict[str, Any]) -> None:
    """Images inline or at an address, PDF documents, texts."""
    asked = to_anthropic(messages=[{"role": "user", "content": [words("see"), *content]}])

    assert asked["messages"] == [{"role": "user", "content": [words("see"), block]}]


@pytest.mark.parametrize(
    ("messages", "system"),
    [
        ([{"role": "system", "content": "a"}], "a"),
        ([{"role": "developer", "content": "a"}], "a"),
        ([{"role": "system", "content": [words("a"), words("b")]}], [words("a"), words("b")]),
        ([{"role": "system", "content": "a"}, {"role": "system", "content": "b"}], [words("a"), words("b")]),
        ([HI, {"role": "system", "content": "late"}, HI], "late"),
    ],
)
def test_system_messages_move_to_the_front(messages: list[dict[str, Any]], system: Any) -> None:
    """All of them, in their order."""
    assert to_anthropic(messages=[*messages, HI])["system"] == system


def test_a_blank_system_message_is_none() -> None:
    """Blank texts are refused there."""
    assert "system" not in to_anthropic(messages=[{"role": "system", "content": " "}, HI])


def test_a_conversation_with_tools() -> None:
    """Calls become blocks, results that follow one another become one message, ids lose what Anthropic refuses."""
    asked = to_anthropic(
        messages=[
            HI,
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call("functions.f:0"), call("b", "g", "")]},
            {"role": "tool", "tool_call_id": "functions.f:0", "content": "one"},
            {"role": "tool", "tool_call_id": "b", "content": ""},
            {"role": "user", "content": "go on", "name": "me"},
            {"role": "assistant", "content": None, "refusal": None, "annotations": [], "tool_calls": [call("c")]},
            {"role": "tool", "tool_call_id": "c", "content": [words("x")]},
        ]
    )

    assert asked["messages"] == [
        HI,
        {"role": "assistant", "content": [words("Let me see."), use("functions_f_0", a=1), use("b", "g")]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "functions_f_0", "content": "one"},
                {"type": "tool_result", "tool_use_id": "b"},
            ],
        },
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": [use("c", a=1)]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": [words("x")]}]},
    ]


def test_what_the_assistant_did_not_say_is_not_repeated() -> None:
    """An empty answer in the history goes; a refusal stays as what was said."""
    history = [
        HI,
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}, words(" ")]},
    ]
    asked = to_anthropic(messages=[*history, HI])

    assert asked["messages"] == [
        HI,
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": [words("Never.")]},
        HI,
    ]


@pytest.mark.parametrize(
    ("function", "tool"),
    [
        ({"name": "f"}, {"name": "f", "input_schema": {"type": "object", "properties": {}}}),
        ({"name": "f", "parameters": {}}, {"name": "f", "input_schema": {"type": "object", "properties": {}}}),
        (
            {"name": "f", "parameters": {"properties": {}}},
            {"name": "f", "input_schema": {"type": "object", "properties": {}}},
        ),
        (
            {"name": "f", "description": "d", "strict": True, "parameters": SCHEMA},
            {"name": "f", "description": "d", "strict": True, "input_schema": SCHEMA},
        ),
        ({"name": "f", "strict": None, "parameters": SCHEMA}, {"name": "f", "input_schema": SCHEMA}),
    ],
)
def test_tools_on_the_way_to_anthropic(function: dict[str, Any], tool: dict[str, Any]) -> None:
    """Their input is an object, also where OpenAI's form leaves that out."""
    assert to_anthropic(tools=[{"type": "function", "function": function}])["tools"] == [tool]


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
    ],
)
def test_choices_of_tools_on_the_way_to_anthropic(fields: dict[str, Any], choice: Any) -> None:
    """Which tools may, must or must not be called, and whether several at once."""
    assert to_anthropic(tools=[TOOL], **fields).get("tool_choice") == choice


def test_no_choice_without_tools() -> None:
    """Anthropic refuses a choice among nothing, OpenAI lets it pass."""
    assert "tool_choice" not in to_anthropic(tool_choice="none", parallel_tool_calls=False)


# --- Anthropic → OpenAI -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"system": "s"}, {"messages": [{"role": "system", "content": "s"}, HI]}),
        ({"system": [words("s")]}, {"messages": [{"role": "system", "content": "s"}, HI]}),
        (
            {"system": [words("s"), {**words("t"), "cache_control": {"type": "ephemeral"}}]},
            {"messages": [{"role": "system", "content": [words("s"), words("t")]}, HI]},
        ),
        ({"system": ""}, {}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop_sequences": []}, {}),
        ({"temperature": 0.3, "top_p": 0.9, "top_k": 40}, {"temperature": 0.3, "top_p": 0.9}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stream": False}, {"stream": False}),
        ({"metadata": {"user_id": "u-1"}}, {"user": "u-1"}),
        ({"metadata": {"user_id": None}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}, "service_tier": "auto"}, {}),
        ({"thinking": {"type": "adaptive"}, "tools": [OWN_TOOL]}, {"tools": [TOOL]}),
        ({"output_config": {"effort": "high"}}, {}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
                }
            },
        ),
        (
            {"tools": [{**OWN_TOOL, "description": "d", "cache_control": {}}]},
            {"tools": [{"type": "function", "function": {**TOOL["function"], "description": "d"}}]},  # type: ignore[dict-item]
        ),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}),
        (
            {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
        ),
    ],
)
def test_fields_on_the_way_to_openai(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    """Carried in its words, or left out where the answer is as good without."""
    assert to_openai(**fields) == {"model": "m", "max_completion_tokens": 9, "messages": [HI], **expected}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"inference_geo": "us"}, "inference_geo"),
        ({"something_new": 1}, "something_new"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}, "tools": [OWN_TOOL]}, "thinking"),
        ({"stop_sequences": list("abcde")}, "stop_sequences"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{**OWN_TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config.format.type"),
        ({"output_config": {"task_budget": {}}}, "output_config.task_budget"),
        ({"system": [INLINE]}, "system[0].type"),
        ({"messages": [HI, {"role": "assistant", "content": "{"}]}, "messages[1]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "search_result"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{**words("a"), "new": 1}]}]}, "messages[0].content[0].new"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url"}}]}]},
            "messages[0].content[0].source",
        ),
        (
            {"messages": [{"role": "user", "content": [{**PDF, "citations": {"enabled": True}}]}]},
            "messages[0].content[0].citations",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}, HI]},
            "messages[0].content[0].type",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [INLINE]}]}
                ]
            },
            "messages[0].content[0].content[0].type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{**use(), "input": "x"}]}, HI]},
            "messages[0].content[0].input",
        ),
    ],
)
def test_what_openai_cannot_be_asked(fields: dict[str, Any], path: str) -> None:
    """Refused with its path before anything is sent."""
    with pytest.raises(Untranslatable) as caught:
        to_openai(**fields)

    assert caught.value.path == path


def test_blocks_become_parts() -> None:
    """Images, PDF documents and texts of a user; one text alone is a string, which every provider takes."""
    content = [words("see"), INLINE, LINKED, {**PDF, "title": "a.pdf", "cache_control": {}}, PDF]
    asked = to_openai(messages=[{"role": "user", "content": content}, {"role": "user", "content": [words("one")]}])

    assert asked["messages"] == [
        {
            "role": "user",
            "content": [
                words("see"),
                image(f"data:image/png;base64,{PNG}"),
                image("https://x.example/a.png"),
                pdf_file(filename="a.pdf"),
                pdf_file(filename="document.pdf"),
            ],
        },
        {"role": "user", "content": "one"},
    ]


def test_a_conversation_with_tool_blocks() -> None:
    """Results come first and say when they are errors; thoughts of earlier turns stay with the model that had them."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": "one"},
        {"type": "tool_result", "tool_use_id": "b", "content": [words("no "), words("file")], "is_error": True},
        {"type": "tool_result", "tool_use_id": "c"},
    ]
    asked = to_openai(
        messages=[
            HI,
            {"role": "assistant", "content": [thought, words("I look."), use("a", a=1), use("b", "g"), use("c", "h")]},
            {"role": "user", "content": [*results, words("go on")]},
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
            {"role": "assistant", "content": [{**use("d"), "caller": {"type": "direct"}}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "d", "content": "x", "is_error": False}],
            },
            {"role": "system", "content": "Be brief."},
        ]
    )

    assert asked["messages"] == [
        HI,
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [call("a"), call("b", "g", "{}"), call("c", "h", "{}")],
        },
        {"role": "tool", "tool_call_id": "a", "content": "one"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: no file"},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": None, "tool_calls": [call("d", arguments="{}")]},
        {"role": "tool", "tool_call_id": "d", "content": "x"},
        {"role": "system", "content": "Be brief."},
    ]


# --- the tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [tables.FROM_OPENAI, tables.TO_OPENAI], ids=["from openai", "to openai"])
def test_every_row_that_leaves_a_field_out_says_why(table: dict[str, Any]) -> None:
    """The tables are read by people who wonder where their field went."""
    unexplained = [name for name, row in table.items() if row.fate in {Fate.DROPPED, Fate.REFUSED} and not row.reason]

    assert unexplained == []


def test_nothing_given_is_changed() -> None:
    """A translation leaves the caller's body as it is: the next target gets it too."""
    body = {"messages": [HI, {"role": "assistant", "tool_calls": [call()]}, {"role": "tool", "tool_call_id": "call_1"}]}
    before = json.dumps(body)
    translated = anthropic.request_from_openai({**body, "tools": [TOOL]}, TARGET)
    after = json.dumps(translated)
    anthropic.request_to_openai(translated)

    assert json.dumps(body) == before
    assert json.dumps(translated) == after
