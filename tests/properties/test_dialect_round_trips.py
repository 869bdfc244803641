"""Laws of translation: there and back is where one was, a stream says what the whole answer says, nothing surprises.

Requests and answers are drawn in their normal form, the one in which every freedom of the format is used in one way
only; what brings others into it (a lone text block that becomes a string, a system message that moves to the front)
has its examples in the unit tests.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holyroute.core.sse import Event
from holyroute.core.target import Provider, Target
from holyroute.dialects import anthropic, azure, openai
from holyroute.dialects.anthropic import tables
from holyroute.dialects.base import Untranslatable, pieces

TARGET = Target(
    name="t", model="m", provider=Provider(name="p", base_url="https://there.example/v1", dialect="anthropic")
)
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# --- what both forms are made of --------------------------------------------------------------------------------------

texts = st.text(max_size=12).filter(str.strip)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner), max_leaves=6
)
inputs = st.dictionaries(st.text(max_size=5), values, max_size=3)
schemas = st.dictionaries(names, scalars, max_size=2).map(lambda extra: {**extra, "type": "object"})
shares = st.floats(0, 0.99)
counts = st.integers(0, 10**6)


def some(required: dict[str, Any], **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def kind(name: str, /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"type": st.just(name), **fields})


words = kind("text", text=texts)
several_words = st.lists(words, min_size=2, max_size=3)


def content_of(others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A string, or parts of which at least one is no text."""
    return texts | several_words | st.tuples(st.lists(words, max_size=2), others).map(lambda both: [*both[0], both[1]])


# --- OpenAI's form ----------------------------------------------------------------------------------------------------

image_urls = st.sampled_from(["https://x.example/a.png", "data:image/png;base64,AA==", "data:image/webp;base64,BB=="])
images = kind("image_url", image_url=st.fixed_dictionaries({"url": image_urls}))
files = kind(
    "file",
    file=st.fixed_dictionaries({"filename": names, "file_data": st.just("data:application/pdf;base64,JVBE")}),
)
calls = kind(
    "function",
    id=names,
    function=st.fixed_dictionaries(
        {"name": names, "arguments": inputs.map(lambda given: json.dumps(given, ensure_ascii=False))}
    ),
)
users = st.fixed_dictionaries({"role": st.just("user"), "content": content_of(images | files)})
spoken = st.fixed_dictionaries({"role": st.just("assistant"), "content": texts | several_words})


@st.composite
def used_tools(draw: st.DrawFn) -> list[dict[str, Any]]:
    """An assistant that calls tools, and their results."""
    asked = draw(st.lists(calls, min_size=1, max_size=3))
    content = draw(st.none() | texts | several_words)
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": draw(st.just("") | texts | several_words)}
        for call in asked
    ]
    return [{"role": "assistant", "content": content, "tool_calls": asked}, *results]


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    system = draw(
        st.lists(st.fixed_dictionaries({"role": st.just("system"), "content": texts | several_words}), max_size=1)
    )
    turns = draw(st.lists(used_tools() | users.map(lambda one: [one]) | spoken.map(lambda one: [one]), max_size=3))
    return [*system, *(message for turn in turns for message in turn), draw(users)]


def format_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


functions = some({"name": names, "parameters": schemas}, description=texts, strict=st.booleans())
openai_requests = some(
    {"model": names, "messages": conversations(), "max_completion_tokens": st.integers(1, 10**6)},
    stop=st.lists(texts, min_size=1, max_size=tables.MAX_STOPS),
    temperature=shares,
    top_p=shares,
    user=names.filter(lambda user: not user.isdecimal()),
    response_format=schemas.map(format_of),
) | st.builds(
    lambda request, tools, choice: {**request, "tools": tools, **choice},
    some(
        {"model": names, "messages": conversations(), "max_completion_tokens": st.integers(1, 10**6)},
        stream=st.just(True),
    ).map(lambda one: {**one, "stream_options": {"include_usage": True}} if "stream" in one else one),
    st.lists(kind("function", function=functions), min_size=1, max_size=3),
    some(
        {
            "tool_choice": st.sampled_from(["auto", "required"])
            | kind("function", function=st.fixed_dictionaries({"name": names}))
        },
        parallel_tool_calls=st.just(False),
    )
    | st.just({})
    | st.just({"tool_choice": "none"}),
)

usages = st.tuples(counts, counts, counts, counts).map(
    lambda four: {
        "prompt_tokens": sum(four[:3]),
        "completion_tokens": four[3],
        "total_tokens": sum(four),
        "prompt_tokens_details": {"cached_tokens": four[0], "cache_write_tokens": four[1]},
        "completion_tokens_details": {"reasoning_tokens": min(four[2:])},
    }
)


@st.composite
def completions(draw: st.DrawFn) -> dict[str, Any]:
    asked = draw(st.lists(calls, max_size=3))
    reason = draw(st.sampled_from(["tool_calls", "length"] if asked else ["stop", "length"]))
    refusal = None if asked else draw(st.none() | texts)
    content = draw(st.none() | texts if asked else texts)
    message = {"role": "assistant", "content": None if refusal else content, "refusal": refusal}
    choice = {
        "index": 0,
        "message": {**message, "tool_calls": asked} if asked else message,
        "logprobs": None,
        "finish_reason": "content_filter" if refusal else reason,
    }
    head = {"id": draw(names), "object": "chat.completion", "created": 0, "model": draw(names)}
    return {**head, "choices": [choice], "usage": draw(usages)}


# --- Anthropic's form -------------------------------------------------------------------------------------------------

sources = kind("url", url=st.just("https://x.example/a.png")) | kind(
    "base64", media_type=st.sampled_from(sorted(tables.IMAGE_TYPES)), data=st.just("AA==")
)
pdf = kind("base64", media_type=st.just(tables.PDF), data=st.just("JVBE"))
blocks = kind("image", source=sources) | kind("document", source=pdf, title=names)
uses = kind("tool_use", id=names, name=names, input=inputs)
own_users = st.fixed_dictionaries({"role": st.just("user"), "content": content_of(blocks)})


@st.composite
def used_own_tools(draw: st.DrawFn) -> list[dict[str, Any]]:
    asked = draw(st.lists(uses, min_size=1, max_size=3))
    results = [
        draw(some({"type": st.just("tool_result"), "tool_use_id": st.just(use["id"])}, content=texts | several_words))
        for use in asked
    ]
    return [
        {"role": "assistant", "content": [*draw(st.lists(words, max_size=2)), *asked]},
        {"role": "user", "content": results},
    ]


@st.composite
def own_conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    turns = st.lists(used_own_tools() | own_users.map(lambda one: [one]) | spoken.map(lambda one: [one]), max_size=3)
    return [*(message for turn in draw(turns) for message in turn), draw(own_users)]


own_tools = some({"name": names, "input_schema": schemas}, description=texts, strict=st.booleans())
anthropic_requests = some(
    {"model": names, "messages": own_conversations(), "max_tokens": st.integers(1, 10**6)},
    system=texts | several_words,
    stop_sequences=st.lists(texts, min_size=1, max_size=tables.MAX_STOPS),
    temperature=shares,
    top_p=shares,
    stream=st.booleans(),
    metadata=st.fixed_dictionaries({"user_id": names.filter(lambda user: not user.isdecimal())}),
    output_config=st.fixed_dictionaries({"format": kind("json_schema", schema=schemas)}),
    tools=st.lists(own_tools, min_size=1, max_size=3),
)

own_usages = st.tuples(counts, counts, counts, st.integers(1, 10**6)).map(
    lambda four: {
        "input_tokens": four[0],
        "cache_creation_input_tokens": four[1],
        "cache_read_input_tokens": four[2],
        "output_tokens": four[3],
        "output_tokens_details": {"thinking_tokens": four[3]},
    }
)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    asked = draw(st.lists(uses, max_size=3))
    said = draw(st.lists(words, min_size=0 if asked else 1, max_size=1))
    refusal = None if asked else draw(st.none() | texts)
    reason = draw(st.sampled_from(["tool_use", "max_tokens"] if asked else ["end_turn", "max_tokens"]))
    details = {"stop_details": {"type": "refusal", "category": None, "explanation": refusal}} if refusal else {}
    return {
        "id": draw(names),
        "type": "message",
        "role": "assistant",
        "model": draw(names),
        "content": [] if refusal else [*said, *asked],
        "stop_reason": "refusal" if refusal else reason,
        "stop_sequence": None,
        **details,
        "usage": draw(own_usages),
    }


# --- there and back ---------------------------------------------------------------------------------------------------


@EXAMPLES
@given(request=openai_requests)
def test_requests_come_back_from_anthropic(request: dict[str, Any]) -> None:
    """OpenAI → Anthropic → OpenAI."""
    assert anthropic.request_to_openai(anthropic.request_from_openai(request, TARGET)) == request


@EXAMPLES
@given(request=anthropic_requests)
def test_requests_come_back_from_openai(request: dict[str, Any]) -> None:
    """Anthropic → OpenAI → Anthropic."""
    assert anthropic.request_from_openai(anthropic.request_to_openai(request), TARGET) == request


@EXAMPLES
@given(answer=completions())
def test_answers_come_back_from_anthropic(answer: dict[str, Any]) -> None:
    """OpenAI → Anthropic → OpenAI."""
    assert anthropic.answer_to_openai(anthropic.answer_from_openai(answer)) == answer


@EXAMPLES
@given(answer=messages())
def test_answers_come_back_from_openai(answer: dict[str, Any]) -> None:
    """Anthropic → OpenAI → Anthropic."""
    assert anthropic.answer_from_openai(anthropic.answer_to_openai(answer)) == answer


# --- streams ----------------------------------------------------------------------------------------------------------


def cut(text: str, at: int) -> list[str]:
    return [piece for piece in (text[:at], text[at:]) if piece]


def chunks_of(answer: dict[str, Any], at: int) -> list[Event]:
    """A completion as a provider streams it."""
    frame = {"id": answer["id"], "model": answer["model"]}
    choice = answer["choices"][0]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in cut(message["content"] or "", at)]
    deltas += [{"refusal": piece} for piece in cut(message["refusal"] or "", at)]
    for index, call in enumerate(message.get("tool_calls", [])):
        function = {"name": call["function"]["name"], "arguments": ""}
        deltas.append({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]})
        for piece in cut(call["function"]["arguments"], at):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    chunks = [{**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**frame, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    chunks.append({**frame, "choices": [], "usage": answer["usage"]})
    return [*(Event(json.dumps(chunk)) for chunk in chunks), Event("[DONE]")]


def events_of(answer: dict[str, Any], at: int) -> list[Event]:
    """A message as Anthropic streams it."""
    usage = {**answer["usage"], "output_tokens": 1}
    start = {**answer, "content": [], "stop_reason": None, "usage": usage}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(answer["content"]):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        whole = block["text"] if block["type"] == "text" else json.dumps(block["input"])
        field = ("text_delta", "text") if block["type"] == "text" else ("input_json_delta", "partial_json")
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        for piece in cut(whole if whole != "{}" else "", at):
            delta = {"type": field[0], field[1]: piece}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        events.append({"type": "content_block_stop", "index": index})
    delta = {name: answer[name] for name in ("stop_reason", "stop_sequence", "stop_details") if name in answer}
    events.append({"type": "message_delta", "delta": delta, "usage": answer["usage"]})
    events.append({"type": "message_stop"})
    return [Event(json.dumps(event), event["type"]) for event in events]


def completion_of(events: list[Event]) -> dict[str, Any]:
    """What a script that reads OpenAI's stream puts together."""
    assert events[-1].data == "[DONE]"
    chunks = [json.loads(event.data) for event in events[:-1]]
    content, refusal, reason, asked = "", "", None, {}
    for choice in (chunk["choices"][0] for chunk in chunks if chunk["choices"]):
        delta = choice["delta"]
        content += delta.get("content") or ""
        refusal += delta.get("refusal") or ""
        reason = choice["finish_reason"] or reason
        for piece in delta.get("tool_calls", []):
            call = asked.setdefault(piece["index"], {**piece, "function": {"name": "", "arguments": ""}})
            call["function"]["name"] += piece["function"].get("name", "")
            call["function"]["arguments"] += piece["function"]["arguments"]
    return {
        "id": chunks[0]["id"],
        "content": content,
        "refusal": refusal,
        "reason": reason,
        "calls": [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in asked.values()
        ],
        "usage": chunks[-1]["usage"],
    }


def summary(answer: dict[str, Any]) -> dict[str, Any]:
    """The same of a whole completion."""
    choice = answer["choices"][0]
    asked = choice["message"].get("tool_calls", [])
    return {
        "id": answer["id"],
        "content": choice["message"]["content"] or "",
        "refusal": choice["message"]["refusal"] or "",
        "reason": choice["finish_reason"],
        "calls": [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in asked],
        "usage": answer["usage"],
    }


def message_of(events: list[Event]) -> dict[str, Any]:
    """What a script that reads Anthropic's stream puts together."""
    message: dict[str, Any] = {}
    written: list[str] = []
    for event in (json.loads(event.data) for event in events):
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
                written = []
            case "content_block_delta":
                assert event["index"] == len(message["content"]) - 1
                written.append(event["delta"].get("text") or event["delta"].get("partial_json"))
            case "content_block_stop":
                block = message["content"][event["index"]]
                whole = "".join(written)
                block |= {"text": whole} if block["type"] == "text" else {"input": json.loads(whole or "{}")}
            case "message_delta":
                message |= event["delta"] | {"usage": event["usage"]}
    assert json.loads(events[-1].data) == {"type": "message_stop"}
    return message


@EXAMPLES
@given(answer=messages(), at=st.integers(0, 8))
def test_a_stream_says_the_same_at_openai(answer: dict[str, Any], at: int) -> None:
    """Translated and then put together, or put together and then translated."""
    events = list(pieces(anthropic.stream_to_openai(usage=True), iter(events_of(answer, at))))

    assert completion_of(events) == summary(anthropic.answer_to_openai(answer))


@EXAMPLES
@given(answer=completions(), at=st.integers(0, 8))
def test_a_stream_says_the_same_at_anthropic(answer: dict[str, Any], at: int) -> None:
    """Translated and then put together, or put together and then translated."""
    events = list(pieces(anthropic.stream_from_openai(), iter(chunks_of(answer, at))))

    assert message_of(events) == anthropic.answer_from_openai(answer)


@EXAMPLES
@given(answer=messages(), kept=st.integers(0, 30))
def test_a_cut_stream_never_looks_whole_at_openai(answer: dict[str, Any], kept: int) -> None:
    """Without the last event, no [DONE]; without the reason to stop, no finish_reason."""
    events = events_of(answer, 3)
    part = events[: min(kept, len(events) - 1)]
    out = [event.data for event in pieces(anthropic.stream_to_openai(usage=True), iter(part))]
    reasons = [json.loads(data)["choices"][0]["finish_reason"] for data in out if data != "[DONE]"]

    assert "[DONE]" not in out
    assert any(reasons) == (len(part) == len(events) - 1)


@EXAMPLES
@given(answer=completions(), kept=st.integers(0, 30))
def test_a_cut_stream_never_looks_whole_at_anthropic(answer: dict[str, Any], kept: int) -> None:
    """Without a finish_reason, no message_delta and no message_stop."""
    chunks = chunks_of(answer, 3)
    part = chunks[: min(kept, len(chunks) - 3)]
    out = [event.name for event in pieces(anthropic.stream_from_openai(), iter(part))]

    assert not {"message_delta", "message_stop"} & set(out)


# --- any JSON ---------------------------------------------------------------------------------------------------------

WORDS = sorted(
    {*tables.FROM_OPENAI, *tables.TO_OPENAI, *tables.TOOL, *tables.DOCUMENT, *tables.TOOL_USE, *tables.TOOL_RESULT}
    | {
        "content",
        "role",
        "type",
        "tool_calls",
        "function",
        "arguments",
        "choices",
        "message",
        "delta",
        "usage",
        "error",
    }
    | {"image_url", "url", "file", "refusal", "index", "content_block", "finish_reason", "stop_reason", "parameters"}
)
TYPES = ["text", "image_url", "image", "document", "file", "tool_use", "tool_result", "function", "base64", "url"]
KINDS = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error"]
leaves = scalars | st.sampled_from([*TYPES, *KINDS, "user", "assistant", "tool", "system", "stop", "{}"]) | st.floats()
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=20,
)
objects = st.dictionaries(st.sampled_from(WORDS), anything, max_size=6)


@settings(max_examples=300, deadline=None)
@given(body=objects, answer=anything, status=st.integers(100, 999))
def test_nothing_but_untranslatable_is_raised(body: dict[str, Any], answer: Any, status: int) -> None:
    """Whatever JSON a caller or a provider sends."""
    for dialect in (anthropic, azure, openai):
        with suppress(Untranslatable):
            dialect.request_to_openai(body)
        with suppress(Untranslatable):
            dialect.request_from_openai(body, TARGET)
        with suppress(Untranslatable):
            dialect.answer_to_openai(answer)
        with suppress(Untranslatable):
            dialect.answer_from_openai(answer)
        dialect.judged(answer)
        dialect.error_to_openai(status, answer)
        dialect.error_from_openai(status, answer)


near_messages = st.lists(
    st.fixed_dictionaries({}, optional={"role": leaves, "content": anything, "tool_calls": anything}), max_size=3
)


@settings(max_examples=200, deadline=None)
@given(messages=near_messages, tools=anything)
def test_nothing_else_is_raised_for_what_is_nearly_a_request(messages: list[Any], tools: Any) -> None:
    """Messages of all kinds of wrong shapes."""
    with suppress(Untranslatable):
        anthropic.request_to_openai({"messages": messages, "tools": tools})
    with suppress(Untranslatable):
        anthropic.request_from_openai({"messages": messages, "tools": tools}, TARGET)


@settings(max_examples=300, deadline=None)
@given(events=st.lists(st.builds(Event, (objects | anything).map(json.dumps) | st.text(), st.sampled_from(KINDS))))
def test_a_stream_of_anything_is_translated(events: list[Event]) -> None:
    """A translator never raises, and what it says is JSON."""
    translators = [anthropic.stream_to_openai(usage=True), anthropic.stream_from_openai()]
    for translator in (*translators, azure.stream_to_openai(usage=True)):
        out = list(pieces(translator, iter(events)))
        if translator in translators:
            assert all(event.data == "[DONE]" or isinstance(json.loads(event.data), dict) for event in out)


def test_deep_json_is_no_surprise() -> None:
    """What nests deeper than Python likes to follow is refused, not raised."""
    deep: Any = {}
    for _ in range(5_000):
        deep = {"a": deep}
    use = {"type": "tool_use", "id": "a", "name": "f", "input": deep}
    with suppress(Untranslatable):
        anthropic.answer_to_openai({"content": [use]})
    with suppress(Untranslatable):
        anthropic.request_to_openai(
            {"messages": [{"role": "assistant", "content": [use]}, {"role": "user", "content": "x"}]}
        )
