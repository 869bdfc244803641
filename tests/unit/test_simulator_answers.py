from __future__ import annotations

import json

import pytest

from holyroute.simulator import answers, faults
from holyroute.simulator.answers import Answer


@pytest.mark.parametrize(
    ("contents", "tokens"),
    [
        (["12345678"], 2),
        (["1234567"], 1),
        (["123", "45678"], 2),
        (["äöüß"], 2),
        ([""], 1),
        ([[{"type": "text", "text": "12345678"}, {"type": "image_url", "image_url": {}}]], 2),
        ([None], 1),
    ],
)
def test_prompt_tokens_rule(contents: list[object], tokens: int) -> None:
    """UTF-8 bytes of the text of all messages together, divided by 4, rounded down, at least 1."""
    messages = [{"role": "user", "content": content} for content in contents]

    assert tokens == answers.count_prompt_tokens(messages)


def test_answer_repeats_the_last_user_message() -> None:
    """The first 80 characters of it, so that a mixed-up answer is seen."""
    messages = [
        {"role": "user", "content": "first"},
        {"role": "user", "content": "x" * 79 + "yz"},
        {"role": "assistant", "content": "prefill"},
    ]

    assert f"Answer to: {'x' * 79}y" == answers.text_for(messages)


def test_answer_is_filled_up_to_the_words_wanted() -> None:
    """Filler words make it long enough; a longer answer is never cut."""
    messages = [{"role": "user", "content": "one two"}]

    assert len(answers.text_for(messages, 60).split()) == 60
    assert answers.text_for(messages, 2) == "Answer to: one two"


def test_tokens_join_to_the_content() -> None:
    """A stream loses no white space."""
    content = "Answer to:  two\nlines \t and a tail \n"

    assert content == "".join(answers.tokens_of(content))


def test_json_is_valid_for_any_text() -> None:
    """Quotes, control characters, emoji and lone surrogates come out as valid UTF-8 JSON."""
    body = answers.completion(Answer(content='"\n\x00😀\ud800'))

    assert json.loads(body.decode("utf-8"))["choices"][0]["message"]["content"] == '"\n\x00😀?'


@pytest.mark.parametrize("name", faults.names())
def test_every_named_fault_can_be_made_by_its_name_alone(name: str) -> None:
    """Each has a default for its argument."""
    made = faults.named(name)

    assert name.split(":", maxsplit=1)[0] == made.name.split(":")[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("503", "503"),
        ("429:2", "429:2"),
        ("429:soon", "429:soon"),
        ("301:http://127.0.0.1:1/v1", "301:http://127.0.0.1:1/v1"),
        ("late:0.5", "late:0.5"),
        ("cut_body", "cut-body"),
        ("stall:3:0.5", "stall:3"),
        ("once:429:2", "once:429:2"),
        ("billed:reset", "billed:reset"),
    ],
)
def test_faults_by_name_take_arguments(text: str, name: str) -> None:
    """What follows the first colon belongs to the fault."""
    assert name == faults.named(text).name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rset", "no fault 'rset', did you mean 'reset'"),
        ("42", "no fault '42'$"),
        ("reset:now", "fault 'reset:now': it takes no argument, got 'now'"),
        ("drip:slowly", "fault 'drip:slowly': could not convert"),
        ("stall:1:2:3", "fault 'stall:1:2:3'"),
    ],
)
def test_wrong_names_are_explained(text: str, message: str) -> None:
    """A misspelt fault is an error which helps, never a fault which does nothing."""
    with pytest.raises(ValueError, match=message):
        faults.named(text)


def test_step_may_be_a_fault_a_name_or_a_status() -> None:
    """All three ways to write a step mean the same."""
    assert [faults.as_fault(step).name for step in (faults.status(503), "503", 503)] == ["503", "503", "503"]
