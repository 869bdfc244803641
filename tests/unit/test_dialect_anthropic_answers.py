"""Answers, usage and errors between OpenAI's form and Anthropic's."""

from __future__ import annotations

from typing import Any

import pytest

from holyroute.dialects import anthropic
from holyroute.dialects.anthropic import tables
from holyroute.dialects.base import Untranslatable

USAGE = {"input_tokens": 5, "output_tokens": 3}
TOLD = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
OWN_USAGE = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, **USAGE}


def message(*content: Any, stop_reason: Any = "end_turn", **fields: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": OWN_USAGE,
        **fields,
    }


def completion(finish_reason: Any = "stop", usage: Any = TOLD, **said: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt", "choices": [choice], "usage": usage}


def words(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def said(answer: Any) -> tuple[Any, Any]:
    """Message and finish reason of a translated answer."""
    choice = anthropic.answer_to_openai(answer)["choices"][0]
    return choice["message"], choice["finish_reason"]


def test_a_message_becomes_a_completion() -> None:
    """The whole of it, with every field that OpenAI's scripts read."""
    assert anthropic.answer_to_openai(message(words("Hello"), words(" there"))) == {
        "id": "msg_1",
        "object": "chat.completion",
        "created": 0,
        "model": "claude",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            **TOLD,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_a_completion_becomes_a_message() -> None:
    """The whole of it, with every field that Anthropic's scripts read."""
    assert anthropic.answer_from_openai(completion(content="Hello there")) == {
        **message(words("Hello there")),
        "id": "chatcmpl-1",
        "model": "gpt",
    }


@pytest.mark.parametrize(
    ("answer", "content", "calls", "reason"),
    [
        (message(USE, stop_reason="tool_use"), None, [CALL], "tool_calls"),
        (message(words("See."), USE, stop_reason="tool_use"), "See.", [CALL], "tool_calls"),
        (message({"type": "thinking", "thinking": "hm"}, words("a")), "a", None, "stop"),
        (message(stop_reason="max_tokens"), "", None, "length"),
        (message(words("a"), stop_reason="stop_sequence", stop_sequence="x"), "a", None, "stop"),
        (message(words("a"), stop_reason="model_context_window_exceeded"), "a", None, "length"),
        (message(words("a"), stop_reason="pause_turn"), "a", None, "length"),
        (message(words("a"), stop_reason="refusal"), "a", None, "content_filter"),
        (message(words("a"), stop_reason="a_new_reason"), "a", None, "a_new_reason"),
        (message(words("a"), stop_reason=None), "a", None, None),
    ],
)
def test_content_and_reason_on_the_way_to_openai(answer: Any, content: Any, calls: Any, reason: Any) -> None:
    """Texts joined, calls with their arguments as a string, thoughts left out, each reason in OpenAI's words."""
    translated, finish_reason = said(answer)

    assert (translated["content"], translated.get("tool_calls"), finish_reason) == (content, calls, reason)


@pytest.mark.parametrize(
    ("answer", "content", "reason"),
    [
        (completion("tool_calls", content=None, tool_calls=[CALL]), [USE], "tool_use"),
        (completion("tool_calls", content="See.", tool_calls=[CALL]), [words("See."), USE], "tool_use"),
        (completion("stop", content="", tool_calls=[CALL]), [USE], "tool_use"),
        (completion("length", content="a"), [words("a")], "max_tokens"),
        (completion("content_filter", content=""), [], "refusal"),
        (completion("a_new_reason", content="a"), [words("a")], "a_new_reason"),
        (completion(None, content="a"), [words("a")], None),
    ],
)
def test_content_and_reason_on_the_way_to_anthropic(answer: Any, content: Any, reason: Any) -> None:
    """A forced call ends with "stop" at OpenAI; at Anthropic every call ends with "tool_use"."""
    translated = anthropic.answer_from_openai(answer)

    assert (translated["content"], translated["stop_reason"]) == (content, reason)


def test_a_refusal_keeps_its_words() -> None:
    """At OpenAI they stand in the message, at Anthropic beside it."""
    details = {"type": "refusal", "category": None, "explanation": "I cannot."}
    refused = anthropic.answer_from_openai(completion("stop", content=None, refusal="I cannot."))

    assert (refused["content"], refused["stop_reason"], refused["stop_details"]) == ([], "refusal", details)
    assert said(refused) == ({"role": "assistant", "content": None, "refusal": "I cannot."}, "content_filter")


@pytest.mark.parametrize(
    ("given", "id_"),
    [("call:1.a", "call_1_a"), (None, "toolu_chatcmpl-1_0"), ("", "toolu_chatcmpl-1_0")],
)
def test_a_call_has_an_id_that_anthropic_takes_back(given: Any, id_: str) -> None:
    """The script sends it with the result, perhaps to Anthropic: other signs, or none at all, would be refused."""
    answer = completion("tool_calls", content=None, tool_calls=[{**CALL, "id": given}])

    assert anthropic.answer_from_openai(answer)["content"][0]["id"] == id_


def test_an_empty_argument_string_is_no_argument() -> None:
    """Some providers write nothing where a call has no arguments."""
    call = {**CALL, "function": {"name": "f", "arguments": ""}}
    answer = anthropic.answer_from_openai(completion("tool_calls", content=None, tool_calls=[call]))

    assert answer["content"][0]["input"] == {}


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        (message({"type": "server_tool_use"}), "content[0].type"),
        (message(words("a"), "b"), "content[1]"),
        (message({"type": "text", "text": 3}), "content[0].text"),
        (message({**USE, "input": []}), "content[0].input"),
    ],
)
def test_a_message_that_is_no_completion(answer: Any, path: str) -> None:
    """An answer with something that cannot be said is no valid answer."""
    with pytest.raises(Untranslatable) as caught:
        anthropic.answer_to_openai(answer)

    assert caught.value.path == path


@pytest.mark.parametrize(
    ("answer", "path"),
    [
        ({"choices": [{"message": {}}, {"message": {}}]}, "choices[1]"),
        ({"choices": [{}]}, "choices[0].message"),
        (completion(content=None, audio={"id": "a"}), "choices[0].message.audio"),
        (completion(content=None, function_call={"name": "f"}), "choices[0].message.function_call"),
        (
            completion(content=None, tool_calls=[{**CALL, "function": {"name": "f", "arguments": "{"}}]),
            "choices[0].message.tool_calls[0].function.arguments",
        ),
        (completion(content=None, tool_calls=[{**CALL, "type": "custom"}]), "choices[0].message.tool_calls[0].type"),
    ],
)
def test_a_completion_that_is_no_message(answer: Any, path: str) -> None:
    """Also arguments that are no JSON, which OpenAI hands on as they are: Anthropic's input is an object."""
    with pytest.raises(Untranslatable) as caught:
        anthropic.answer_from_openai(answer)

    assert caught.value.path == path


@pytest.mark.parametrize("answer", [None, [], "text", {}, {"content": "text"}, {"choices": []}, {"choices": None}])
def test_what_is_no_answer_becomes_none(answer: Any) -> None:
    """The error table sees the same nothing."""
    assert anthropic.answer_to_openai(answer) == answer
    assert anthropic.answer_from_openai(answer) == answer


# --- usage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        ({"input_tokens": 5, "output_tokens": 3}, (5, 3, 8, 0, 0, 0)),
        (
            {
                "input_tokens": 5,
                "cache_creation_input_tokens": 20,
                "cache_read_input_tokens": 100,
                "output_tokens": 3,
                "output_tokens_details": {"thinking_tokens": 2},
                "service_tier": "standard",
            },
            (125, 3, 128, 100, 20, 2),
        ),
        ({"input_tokens": 5, "cache_read_input_tokens": None, "output_tokens": 3}, (5, 3, 8, 0, 0, 0)),
        ({"input_tokens": "many", "output_tokens": True}, (0, 0, 0, 0, 0, 0)),
    ],
)
def test_usage_on_the_way_to_openai(usage: Any, told: tuple[int, ...]) -> None:
    """What was read from and written to the cache counts as prompt, and is told apart in the details."""
    translated = anthropic.answer_to_openai(message(words("a"), usage=usage))["usage"]

    assert (
        translated["prompt_tokens"],
        translated["completion_tokens"],
        translated["total_tokens"],
        translated["prompt_tokens_details"]["cached_tokens"],
        translated["prompt_tokens_details"]["cache_write_tokens"],
        translated["completion_tokens_details"]["reasoning_tokens"],
    ) == told


def test_no_usage_is_none() -> None:
    """What was not reported is unknown to the ledger, not 0."""
    assert "usage" not in anthropic.answer_to_openai(message(words("a"), usage=None))


@pytest.mark.parametrize(
    ("usage", "told"),
    [
        (TOLD, OWN_USAGE),
        (
            {
                "prompt_tokens": 125,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 20},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            {
                "input_tokens": 5,
                "cache_creation_input_tokens": 20,
                "cache_read_input_tokens": 100,
                "output_tokens": 3,
                "output_tokens_details": {"thinking_tokens": 2},
            },
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}},
            {**OWN_USAGE, "input_tokens": 0, "cache_read_input_tokens": 9},
        ),
        ({"prompt_tokens": 5, "prompt_tokens_details": None}, {**OWN_USAGE, "output_tokens": 0}),
        (None, {**OWN_USAGE, "input_tokens": 0, "output_tokens": 0}),
    ],
)
def test_usage_on_the_way_to_anthropic(usage: Any, told: dict[str, Any]) -> None:
    """Its input leaves out what the cache took part in; its scripts find numbers in any case."""
    assert anthropic.answer_from_openai(completion(content="a", usage=usage))["usage"] == told


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", tables.ERRORS, ids=lambda row: row.anthropic[1])
def test_errors_there_and_back(row: tables.Error) -> None:
    """Each kind of error has its status, type and code in both forms."""
    status, kind = row.anthropic
    own = {"type": "error", "error": {"type": kind, "message": "No."}}
    told = {"error": {"message": "No.", "type": row.openai[1], "param": None, "code": row.openai[2]}}

    assert anthropic.error_to_openai(status, own) == (row.openai[0], told)
    assert anthropic.error_from_openai(row.openai[0], told) == (status, own)


@pytest.mark.parametrize(
    ("status", "own", "expected"),
    [
        (
            400,
            ("invalid_request_error", "prompt is too long: 9 > 8"),
            (400, "invalid_request_error", "context_length_exceeded"),
        ),
        (
            400,
            ("invalid_request_error", "Your credit balance is too low to access the API."),
            (429, "insufficient_quota", "insufficient_quota"),
        ),
        (418, ("a_new_error", "Tea."), (418, "invalid_request_error", None)),
        (599, ("a_new_error", "?"), (599, "server_error", None)),
        (400, ("authentication_error", "?"), (400, "invalid_request_error", "invalid_api_key")),
        (529, ("a_new_error", "?"), (503, "server_error", "server_is_overloaded")),
    ],
)
def test_errors_that_say_it_otherwise(status: int, own: tuple[str, str], expected: tuple[Any, ...]) -> None:
    """In words only, under another status, or of a kind that nobody knows yet."""
    told_status, body = anthropic.error_to_openai(
        status, {"type": "error", "error": {"type": own[0], "message": own[1]}}
    )

    assert (told_status, body["error"]["type"], body["error"]["code"]) == expected
    assert body["error"]["message"] == own[1]


@pytest.mark.parametrize(
    ("status", "told", "expected"),
    [
        (400, {"message": "m", "type": "x", "code": "context_length_exceeded"}, (400, "invalid_request_error")),
        (403, {"message": "m", "code": "insufficient_quota"}, (403, "billing_error")),
        (429, {"message": "m", "type": "insufficient_quota", "code": None}, (402, "billing_error")),
        (422, {"message": "m"}, (422, "invalid_request_error")),
        (408, {"message": "m"}, (408, "invalid_request_error")),
        (502, {"message": "m"}, (502, "api_error")),
        (429, {"message": "m", "code": 429}, (429, "rate_limit_error")),
    ],
)
def test_errors_without_a_row(status: int, told: dict[str, Any], expected: tuple[int, str]) -> None:
    """The status is kept, and the nearest type stands for it."""
    own_status, body = anthropic.error_from_openai(status, {"error": told})

    assert (own_status, body["error"]["type"]) == expected
    assert body["error"]["message"] == "m"


@pytest.mark.parametrize(
    ("decoded", "text"),
    [
        (None, "Service Unavailable"),
        ("<html>", "Service Unavailable"),
        ([], "Service Unavailable"),
        ({"error": "down"}, "down"),
        ({"detail": "down"}, "down"),
        ({"message": "down"}, "down"),
        ([{"error": {"message": "down"}}], "down"),
        ({"error": {"message": ["down"]}}, "Service Unavailable"),
    ],
)
def test_any_body_of_an_error_becomes_one(decoded: Any, text: str) -> None:
    """Pages of proxies, and the forms that other providers have."""
    assert anthropic.error_from_openai(503, decoded)[1]["error"]["message"] == text
    assert anthropic.error_to_openai(503, decoded)[1]["error"]["message"] == text


def test_a_status_that_nobody_knows_is_told_by_its_number() -> None:
    """There is always a message."""
    assert anthropic.error_to_openai(599, None)[1]["error"]["message"] == "status 599"


def test_an_error_inside_a_200_stays_an_error() -> None:
    """For the error table, and for the script."""
    own = {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow."}}
    told = {"error": {"message": "Slow.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}

    assert anthropic.answer_to_openai(own) == told
    assert anthropic.answer_from_openai(told) == own
