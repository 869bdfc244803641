"""Streams between OpenAI's chunks and Anthropic's events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.core.sse import Event
from holyroute.dialects import anthropic
from holyroute.dialects.base import pieces

if TYPE_CHECKING:
    from collections.abc import Iterable

DONE = Event("[DONE]")
OWN_USAGE = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}


def own(kind: str, **fields: Any) -> Event:
    return Event(json.dumps({"type": kind, **fields}), kind)


def chunk(delta: dict[str, Any] | None = None, finish_reason: str | None = None, **fields: Any) -> Event:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return Event(json.dumps({"id": "chatcmpl-1", "model": "gpt", "choices": choices, **fields}))


def to_openai(*events: Event, usage: bool = False) -> list[Any]:
    return decoded(pieces(anthropic.stream_to_openai(usage=usage), iter(events)))


def to_anthropic(*events: Event) -> list[Any]:
    translated = list(pieces(anthropic.stream_from_openai(), iter(events)))

    assert all(event.name == json.loads(event.data)["type"] for event in translated)
    return decoded(translated)


def decoded(events: Iterable[Event]) -> list[Any]:
    return [event.data if event == DONE else json.loads(event.data) for event in events]


def told(chunks: list[Any]) -> list[Any]:
    """Each chunk's delta, with the finish reason where there is one."""
    short = []
    for one in chunks:
        choice = one["choices"][0] if isinstance(one, dict) and one.get("choices") else None
        short.append((choice["delta"], choice["finish_reason"]) if choice else one)
    return short


START = own(
    "message_start", message={"id": "msg_1", "model": "claude", "usage": {"input_tokens": 7, "output_tokens": 1}}
)
STOP = own("message_stop")
ROLE = ({"role": "assistant", "content": "", "refusal": None}, None)


def text_block(*texts: str, index: int = 0) -> list[Event]:
    return [
        own("content_block_start", index=index, content_block={"type": "text", "text": ""}),
        *(own("content_block_delta", index=index, delta={"type": "text_delta", "text": text}) for text in texts),
        own("content_block_stop", index=index),
    ]


def use_block(*arguments: str, index: int = 0, **fields: Any) -> list[Event]:
    block = {"type": "tool_use", "id": f"toolu_{index}", "name": "f", "input": {}, **fields}
    deltas = [{"type": "input_json_delta", "partial_json": text} for text in arguments]
    return [
        own("content_block_start", index=index, content_block=block),
        *(own("content_block_delta", index=index, delta=delta) for delta in deltas),
        own("content_block_stop", index=index),
    ]


def end(reason: str = "end_turn", **delta: Any) -> Event:
    return own(
        "message_delta", delta={"stop_reason": reason, "stop_sequence": None, **delta}, usage={"output_tokens": 4}
    )


# --- Anthropic → OpenAI -----------------------------------------------------------------------------------------------


def test_a_stream_of_text_becomes_chunks() -> None:
    """Every chunk is whole: id, model, one choice; pings are passed over, the end is [DONE]."""
    chunks = to_openai(START, own("ping"), *text_block("Hel", "lo"), end(), STOP)

    assert chunks[0] == {
        "id": "msg_1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "claude",
        "choices": [{"index": 0, "delta": ROLE[0], "logprobs": None, "finish_reason": None}],
    }
    assert told(chunks) == [ROLE, ({"content": "Hel"}, None), ({"content": "lo"}, None), ({}, "stop"), "[DONE]"]


def test_usage_comes_where_it_was_asked_for() -> None:
    """In a chunk without choices before [DONE]; a script that did not ask would stumble over it."""
    told_usage = {"usage": {"input_tokens": 7, "cache_read_input_tokens": 2, "output_tokens": 1}}
    start = own("message_start", message={"id": "msg_1", "model": "claude", **told_usage})
    chunks = to_openai(start, end(), STOP, usage=True)

    assert [one["usage"] for one in chunks[:2]] == [None, None]
    assert chunks[2]["choices"] == []
    assert chunks[2]["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "total_tokens": 13,
        "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert chunks[3:] == ["[DONE]"]


def test_usage_that_is_not_told_again_stays() -> None:
    """The last event repeats some of the figures, and says null or nothing of the others."""
    start = own("message_start", message={"usage": {"input_tokens": 7, "cache_read_input_tokens": 2}})
    last = own("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4, "input_tokens": None})
    usage = to_openai(start, last, STOP, usage=True)[-2]["usage"]

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (9, 4)


def test_an_event_may_have_its_type_as_its_name_alone() -> None:
    """Anthropic writes it in both places; its own SDK trusts the name."""
    events = [Event(json.dumps({"delta": {"type": "text_delta", "text": "a"}}), "content_block_delta")]

    assert told(to_openai(START, *events)) == [ROLE, ({"content": "a"}, None)]


def test_calls_are_counted_from_zero() -> None:
    """Blocks have one numbering for all, calls one of their own."""
    blocks = [*text_block("See."), *use_block("", '{"a"', ": 1}", index=1), *use_block(index=2)]
    chunks = to_openai(START, *blocks, end("tool_use"), STOP)
    first = {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": ""}}

    assert told(chunks) == [
        ROLE,
        ({"content": "See."}, None),
        ({"tool_calls": [{"index": 0, **first}]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}, None),
        ({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}, None),
        ({"tool_calls": [{"index": 1, **first, "id": "toolu_2"}]}, None),
        ({"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]}, None),
        ({}, "tool_calls"),
        "[DONE]",
    ]


def test_arguments_may_stand_in_the_beginning_of_a_block() -> None:
    """As some compatible servers send them."""
    chunks = to_openai(START, *use_block(input={"a": 1}), end("tool_use"), STOP)

    assert told(chunks)[2] == ({"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}, None)


def test_thoughts_and_news_are_passed_over() -> None:
    """Thinking blocks, and types of events that nobody knows yet, as Anthropic asks for."""
    thought = [
        own("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        own("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        own("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "s"}),
        own("content_block_stop", index=0),
        own("something_new", delta={"text": "x"}),
    ]
    chunks = to_openai(START, *thought, *text_block("a", index=1), end(), STOP)

    assert told(chunks) == [ROLE, ({"content": "a"}, None), ({}, "stop"), "[DONE]"]


def test_a_refusal_is_told_before_the_end() -> None:
    """In the words that Anthropic has for it."""
    details = {"type": "refusal", "explanation": "I cannot."}
    chunks = to_openai(START, *text_block(), end("refusal", stop_details=details), STOP)

    assert told(chunks) == [ROLE, ({"refusal": "I cannot."}, None), ({}, "content_filter"), "[DONE]"]


ERROR = {"error": {"message": "Overloaded", "type": "server_error", "param": None, "code": "server_is_overloaded"}}
OWN_ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize(
    ("events", "rest"),
    [
        ([Event(json.dumps(OWN_ERROR), "error")], [ERROR]),
        ([own("content_block_start", index=0, content_block={"type": "server_tool_use"})], None),
        ([Event("{")], None),
        ([Event("[]")], None),
    ],
)
def test_an_error_ends_a_stream_to_openai(events: list[Event], rest: Any) -> None:
    """It is told as one, and nothing comes behind it: no finish_reason, no [DONE]."""
    chunks = to_openai(START, *text_block("a"), *events, end(), STOP)[2:]

    assert len(chunks) == 1
    assert "error" in chunks[0]
    assert rest is None or chunks == rest


@pytest.mark.parametrize("events", [[START, *text_block("a")], [START, STOP], [START, end()], []])
def test_a_stream_to_openai_that_breaks_off_is_broken(events: list[Event]) -> None:
    """[DONE] comes behind both a reason to stop and the last event only."""
    assert "[DONE]" not in to_openai(*events, usage=True)


def test_no_reason_is_invented_for_openai() -> None:
    """A stream that was cut has no finish_reason."""
    assert all(reason is None for _, reason in told(to_openai(START, *text_block("a", "b"))))


# --- OpenAI → Anthropic -----------------------------------------------------------------------------------------------


def shape(events: list[Any]) -> list[Any]:
    """Types and what is new in them."""
    short = []
    for event in events:
        news = event.get("content_block") or event.get("delta") or event.get("error")
        short.append((event["type"], event.get("index"), news) if news is not None else event["type"])
    return short


def call(index: int | None = 0, id_: Any = None, name: Any = None, arguments: Any = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    place = {} if index is None else {"index": index}
    return {"tool_calls": [{**place, **({"id": id_} if id_ is not None else {}), "function": function}]}


def ended(reason: str) -> list[Any]:
    return [("message_delta", None, {"stop_reason": reason, "stop_sequence": None}), "message_stop"]


def test_chunks_become_a_stream_of_blocks() -> None:
    """In Anthropic's order: the start, a block with its beginning and end, the reason with the usage, the stop."""
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
    events = to_anthropic(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        chunk(usage=usage),
        DONE,
    )

    assert events[0] == {
        "type": "message_start",
        "message": {
            "id": "chatcmpl-1",
            "type": "message",
            "role": "assistant",
            "model": "gpt",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": OWN_USAGE,
        },
    }
    assert shape(events[1:]) == [
        ("content_block_start", 0, {"type": "text", "text": ""}),
        ("content_block_delta", 0, {"type": "text_delta", "text": "Hel"}),
        ("content_block_delta", 0, {"type": "text_delta", "text": "lo"}),
        "content_block_stop",
        *ended("end_turn"),
    ]
    assert events[-2]["usage"] == {**OWN_USAGE, "input_tokens": 7, "cache_read_input_tokens": 2, "output_tokens": 4}


def test_what_was_told_is_not_taken_back() -> None:
    """Some providers send the usage with the reason, and an empty chunk behind them."""
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    events = to_anthropic(chunk({"content": "a"}), chunk({}, "length", usage=usage), chunk({}, usage=None), DONE)

    assert shape(events)[-2:] == ended("max_tokens")
    assert (events[-2]["usage"]["input_tokens"], events[-2]["usage"]["output_tokens"]) == (9, 4)


def test_calls_become_blocks() -> None:
    """One after the other, numbered with the texts; the reason is Anthropic's even where it was "stop"."""
    events = to_anthropic(
        chunk({"role": "assistant", "content": "See."}),
        chunk(call(0, "call:0", "f", "")),
        chunk(call(0, arguments='{"a"')),
        chunk(call(0, arguments=": 1}")),
        chunk(call(1, "b", "g", "{}")),
        chunk({}, "stop"),
        DONE,
    )

    assert shape(events)[4:] == [
        ("content_block_start", 1, {"type": "tool_use", "id": "call_0", "name": "f", "input": {}}),
        ("content_block_delta", 1, {"type": "input_json_delta", "partial_json": '{"a"'}),
        ("content_block_delta", 1, {"type": "input_json_delta", "partial_json": ": 1}"}),
        "content_block_stop",
        ("content_block_start", 2, {"type": "tool_use", "id": "b", "name": "g", "input": {}}),
        ("content_block_delta", 2, {"type": "input_json_delta", "partial_json": "{}"}),
        "content_block_stop",
        *ended("tool_use"),
    ]


@pytest.mark.parametrize(
    "deltas",
    [
        [call(0, "a", "f", "{}"), call(0, "b", "g", "{}")],
        [call(None, "a", "f", "{}"), call(None, "b", "g", "{}")],
        [call(0, "a", "f", "{"), call(0, "a", "f", "}"), call(1, "b", "g", "{}")],
    ],
)
def test_calls_are_told_apart_by_their_ids(deltas: list[dict[str, Any]]) -> None:
    """Some providers give every call the index 0, some none, some repeat the id with every piece."""
    events = to_anthropic(*map(chunk, deltas), chunk({}, "tool_calls"), DONE)

    assert [event["content_block"]["id"] for event in events if event["type"] == "content_block_start"] == ["a", "b"]


def test_a_refusal_is_told_at_the_end() -> None:
    """Beside the reason."""
    events = to_anthropic(chunk({"refusal": "I "}), chunk({"refusal": "cannot."}), chunk({}, "stop"), DONE)
    details = {"type": "refusal", "category": None, "explanation": "I cannot."}

    assert events[-2]["delta"] == {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}


@pytest.mark.parametrize(
    "last",
    [
        Event(json.dumps(ERROR)),
        Event("{"),
        Event("null"),
        chunk(call(1, "b", "g", "{"), None),
        chunk(call(2, "c", None, "{}")),
        chunk({"tool_calls": [*call(2, "c")["tool_calls"], *call(1, "b", "g", "{}")["tool_calls"]]}),
        chunk(call("x", "c", "f", "{}")),  # type: ignore[arg-type]
    ],
)
def test_an_error_ends_a_stream_to_anthropic(last: Event) -> None:
    """Also calls whose pieces are interleaved, or which have no name: Anthropic's blocks cannot tell them."""
    interleaved = [last, chunk(call(0, arguments="}"))]
    events = to_anthropic(chunk(call(0, "a", "f", "{")), *interleaved, chunk({}, "stop"), DONE)

    assert [event["type"] for event in events].count("error") == 1
    assert events[-1]["type"] == "error"


def test_an_error_is_told_in_anthropics_words() -> None:
    """Its type follows from OpenAI's code."""
    assert to_anthropic(Event(json.dumps(ERROR))) == [OWN_ERROR]


def test_a_stream_without_its_last_event_is_whole() -> None:
    """Some providers leave [DONE] out; the reason to stop says that the answer is complete."""
    assert shape(to_anthropic(chunk({"content": "a"}), chunk({}, "length")))[-2:] == ended("max_tokens")


@pytest.mark.parametrize("events", [[chunk({"content": "a"})], [chunk({"content": "a"}), DONE], [DONE], []])
def test_a_stream_to_anthropic_that_breaks_off_is_broken(events: list[Event]) -> None:
    """Without a reason to stop there is no message_delta and no message_stop."""
    assert {event["type"] for event in to_anthropic(*events)} <= {
        "message_start",
        "content_block_start",
        "content_block_delta",
    }


def test_chunks_about_nothing_say_nothing() -> None:
    """Azure tells of filters in chunks without choices, before the first word."""
    events = to_anthropic(chunk(id="", model=""), chunk({"content": "a"}), chunk({}, "stop"), DONE)

    assert events[0]["message"]["id"] == "chatcmpl-1"
