"""Between two dialects: who speaks which, what is asked of whom, and what passes untouched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from requests import PreparedRequest, Request, Response

from holyroute.core import classify, verdicts
from holyroute.core.target import Provider, Target
from holyroute.dialects.base import Untranslatable
from holyroute.dialects.translation import DIALECTS, dialect_of, recognise, translate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holyroute.dialects.translation import Translation

OPENAI, AZURE, ANTHROPIC = (DIALECTS[name] for name in ("openai", "azure", "anthropic"))
BODY: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 3},
}
STREAM = (
    b'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_1", "model": "claude"}}\n\n'
    b'event: content_block_start\ndata: {"type": "content_block_start", "index": 0, "content_block": '
    b'{"type": "text", "text": "Hi"}}\n\n'
    b'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}\n\n'
    b'event: message_stop\ndata: {"type": "message_stop"}'
)


def streamed(translation: Translation, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a stream in the caller's form, as they come."""
    reader = translation.reader()
    yield from filter(None, map(reader.feed, chunks))
    yield from filter(None, [reader.end()])


def target(dialect: str, base_url: str = "https://there.example/v1") -> Target:
    return Target(name="t", model="wire", provider=Provider(name="p", base_url=base_url, dialect=dialect))


def post(url: str, **body: Any) -> PreparedRequest:
    return Request("POST", url, json=BODY | body).prepare()


@pytest.mark.parametrize(
    ("url", "dialect", "model"),
    [
        ("https://api.openai.com/v1/chat/completions", OPENAI, "m"),
        ("https://name.openai.azure.com/openai/v1/chat/completions", OPENAI, "m"),
        ("https://name.openai.azure.com/openai/deployments/d/chat/completions?api-version=x", AZURE, "d"),
        ("https://api.anthropic.com/v1/messages", ANTHROPIC, "m"),
    ],
)
def test_a_request_is_recognised_by_its_path(url: str, dialect: Any, model: str) -> None:
    """The dialect in which a script speaks, the model it names and what it says."""
    found = recognise(post(url))

    assert found is not None
    assert (found.dialect, found.model, found.body) == (dialect, model, BODY)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1/responses", "https://api.anthropic.com/v1/complete"])
def test_other_requests_are_nobodys(url: str) -> None:
    """They go out as they are."""
    assert recognise(post(url)) is None


def test_every_dialect_that_can_be_configured_is_known() -> None:
    """And the other way round."""
    from holyroute.config.validate import DIALECTS as CONFIGURED

    assert set(CONFIGURED) == set(DIALECTS)
    assert [dialect_of(target(name).provider).name for name in CONFIGURED] == list(CONFIGURED)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_within_a_dialect_nothing_is_touched(dialect: str) -> None:
    """The same objects, the same bytes, whatever they hold."""
    body = {"anything": object()}
    answer = {"also": object()}
    chunks = [b"any", b"thing"]
    translation = translate(DIALECTS[dialect], target(dialect), body)

    assert not translation.is_needed
    assert translation.body is body
    assert translation.answer(answer) is answer
    assert translation.error(418, answer) == (418, answer)
    assert list(streamed(translation, chunks)) == chunks


def test_a_call_is_carried_to_another_dialect_and_back() -> None:
    """The request in the target's words, the answer in the caller's, and in OpenAI's for the error table."""
    translation = translate(OPENAI, target("anthropic"), {**BODY, "stop": "x"})
    answer = translation.answer(MESSAGE)

    assert translation.is_needed
    assert translation.body == {**BODY, "stop_sequences": ["x"]}
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert translation.judged(MESSAGE) == answer
    assert translation.error(529, {"error": {"type": "overloaded_error", "message": "m"}})[0] == 503


def test_azure_and_anthropic_meet_in_openais_form() -> None:
    """Two dialects that both are not OpenAI's."""
    there = translate(AZURE, target("anthropic"), BODY)
    back = translate(ANTHROPIC, target("azure"), BODY)
    completion = there.answer(MESSAGE)

    assert completion["object"] == "chat.completion"
    assert back.answer(completion)["content"] == MESSAGE["content"]
    assert back.error(429, {"error": {"code": "429", "message": "m"}})[1]["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("caller", ["openai", "anthropic"])
def test_what_cannot_be_said_is_refused_before_sending(caller: str) -> None:
    """So that the next target is tried."""
    body = {**BODY, "n": 2} if caller == "openai" else {**BODY, "container": "c"}
    other = "anthropic" if caller == "openai" else "openai"

    with pytest.raises(Untranslatable):
        translate(DIALECTS[caller], target(other), body)
    with pytest.raises(Untranslatable, match="data_sources"):
        translate(AZURE, target("openai"), {**BODY, "data_sources": [{}]})


@pytest.mark.parametrize(
    ("dialect", "base_url", "field"),
    [
        ("openai", "https://api.openai.com/v1", "max_completion_tokens"),
        ("openai", "https://api.deepseek.com/v1", "max_tokens"),
        ("azure", "https://name.openai.azure.com", "max_completion_tokens"),
    ],
)
def test_the_length_limit_has_the_name_that_a_host_takes(dialect: str, base_url: str, field: str) -> None:
    """Newer models of OpenAI refuse the old name, many other providers do not know the new one."""
    translation = translate(ANTHROPIC, target(dialect, base_url), BODY)

    assert {key for key in translation.body if key.startswith("max_")} == {field}
    assert translation.body[field] == 9


@pytest.mark.parametrize("limits", [{"max_tokens": 9}, {"max_tokens": 9, "max_completion_tokens": 8}, {}])
def test_a_body_of_openais_form_is_left_as_it_is(limits: dict[str, int]) -> None:
    """Between Azure and OpenAI, in both directions."""
    body = {"messages": BODY["messages"], **limits}

    assert translate(AZURE, target("openai"), body).body == body
    assert translate(OPENAI, target("azure"), body).body == body


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("usage", [True, False])
def test_bytes_of_a_stream_are_translated_as_they_come(size: int, usage: bool) -> None:
    """However they are cut; the usage comes where the caller asked for it."""
    translation = translate(
        OPENAI, target("anthropic"), {**BODY, "stream": True, "stream_options": {"include_usage": usage}}
    )
    chunks = (STREAM[at : at + size] for at in range(0, len(STREAM), size))
    lines = [line.removeprefix("data: ") for line in b"".join(streamed(translation, chunks)).decode().split("\n\n")]
    told = [json.loads(line) for line in lines[:-2]]

    assert lines[-2:] == ["[DONE]", ""]
    assert [one["choices"][0]["delta"].get("content") for one in told if one["choices"]] == ["", "Hi", None]
    assert any(one.get("usage") for one in told) is usage


def test_a_stream_goes_through_both_translators() -> None:
    """A caller of Anthropic's form sees it again after two translations, the usage included."""
    there = translate(OPENAI, target("anthropic"), {**BODY, "stream_options": {"include_usage": True}})
    back = translate(ANTHROPIC, target("azure"), BODY)
    names = [
        line.removeprefix("event: ")
        for line in b"".join(streamed(back, streamed(there, [STREAM]))).decode().splitlines()
        if line.startswith("event: ")
    ]

    assert names == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize("end", [b"", b"\n\n", b"\n\ndata: [DONE]"])
def test_a_stream_may_end_in_any_way_that_is_whole(end: bytes) -> None:
    """Without [DONE], and without its last blank line: the reason to stop says that nothing is missing."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    translation = translate(ANTHROPIC, target("openai"), BODY)
    stream = b"".join(streamed(translation, [b"data: " + json.dumps(chunk).encode() + end]))

    assert stream.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_an_answer_begins_before_its_stream_has_ended() -> None:
    """Nothing is held back that could be said."""
    translation = translate(OPENAI, target("anthropic"), BODY)
    head, rest = STREAM.split(b"event: content_block_start", 1)
    sent = []

    def chunks() -> Any:
        sent.append("head")
        yield head
        sent.append("rest")
        yield rest

    assert b'"role"' in next(streamed(translation, chunks()))
    assert sent == ["head"]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (MESSAGE, verdicts.ANSWERED),
        ({**MESSAGE, "content": []}, verdicts.EMPTY_ANSWER),
        ({**MESSAGE, "content": [], "stop_reason": "max_tokens"}, verdicts.TRUNCATED),
        ({**MESSAGE, "content": [], "stop_reason": "refusal"}, verdicts.FILTERED),
        ({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}, verdicts.RATE_LIMITED_SILENT),
        ({"type": "message"}, verdicts.INVALID_ANSWER),
        (["no message"], verdicts.INVALID_ANSWER),
    ],
)
def test_the_error_table_judges_what_was_translated(answer: Any, verdict: verdicts.Verdict) -> None:
    """Its rules hold for every dialect, by way of OpenAI's form."""
    response = Response()
    response.status_code = 200
    response._content = json.dumps(ANTHROPIC.answer_to_openai(answer)).encode()

    assert classify.of_response(response).verdict is verdict


SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}


def test_an_answer_that_only_its_own_caller_understands_is_one() -> None:
    """Within a dialect everything counts; who cannot be told it has no valid answer."""
    answer = {**MESSAGE, "content": [SEARCH], "stop_reason": "pause_turn"}
    own = translate(ANTHROPIC, target("anthropic"), BODY)
    foreign = translate(OPENAI, target("anthropic"), BODY)

    assert own.judged(answer)["choices"][0]["message"]["content"] == [SEARCH]
    assert own.judged(answer)["usage"]["prompt_tokens"] == 5
    assert foreign.judged(answer) == {}
    with pytest.raises(Untranslatable):
        foreign.answer(answer)


def test_arguments_that_are_no_json_are_no_answer_for_anthropics_callers() -> None:
    """OpenAI hands on what its models wrote; a `tool_use` block cannot."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}

    assert translate(ANTHROPIC, target("openai"), BODY).judged(answer) == {}
    assert translate(AZURE, target("openai"), BODY).judged(answer) is answer


def test_a_translation_shows_no_prompt() -> None:
    """Its repr may end in a log."""
    body = {**BODY, "messages": [{"role": "user", "content": "secret"}]}

    assert "secret" not in repr(translate(OPENAI, target("anthropic"), body))
