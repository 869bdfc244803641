"""The token estimate: right within an eighth after some answers, and unable to fail."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holyroute.core.completion import Usage
from holyroute.cost import tokens
from holyroute.cost.tokens import RawEstimate, TokenEstimator, count

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "data" / "tokens.jsonl").read_text(encoding="utf-8").splitlines()
]
COUNTED_BY = {
    "udhr_kor": ["o200k", "cl100k", "deepseek"],
    "udhr_cmn_hans": ["o200k", "cl100k", "deepseek"],
    "udhr_eng": ["o200k", "cl100k", "deepseek"],
    "routerarena": ["claude_3_haiku", "gemini_2_flash"],
}
PAIRS = [(source, name) for source, names in COUNTED_BY.items() for name in names]
ENGLISH = "All human beings are born free and equal in dignity and rights. "
KOREAN = "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. "


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def prompt(*messages: Any, **more: Any) -> int:
    return TokenEstimator().prompt({"messages": list(messages), **more}, "m")


def recorded(source: str, name: str) -> list[tuple[Any, int]]:
    """Requests and true counts: a billed prompt was a message, the others are bare texts."""
    rows = [row for row in ROWS if row["source"] == source]
    if source == "routerarena":
        return [(chat(row["text"]), row[name]) for row in rows]
    return [(RawEstimate(count(row["text"])), row[name]) for row in rows]


# --- accuracy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "name"), PAIRS)
def test_median_error_of_recorded_texts(source: str, name: str) -> None:
    """Once it has seen half of them, the estimate of the other half is within 12 % of the truth in the median."""
    rows = recorded(source, name)
    estimator = TokenEstimator()
    for request, true in rows[::2]:
        estimator.learn(request, "m", Usage(true, 1))
    errors = [abs(estimator.prompt(request, "m") / true - 1) for request, true in rows[1::2]]

    assert statistics.median(errors) <= 0.12


@pytest.mark.parametrize("source", ["udhr_kor", "udhr_cmn_hans", "udhr_eng"])
def test_start_values_are_those_of_o200k(source: str) -> None:
    """Before anything is learnt the estimate is within a fifth of a present vocabulary's count in the median."""
    rows = recorded(source, "o200k")
    errors = [abs(TokenEstimator().prompt(request, "m") / true - 1) for request, true in rows]

    assert statistics.median(errors) <= 0.2


def test_scripts_are_learnt_apart() -> None:
    """A vocabulary that is bad at Korean does not spoil the estimate of English."""
    estimator = TokenEstimator()
    korean, english = RawEstimate(count(KOREAN * 10)), RawEstimate(count(ENGLISH * 10))
    before = estimator.prompt(english, "m")
    for _ in range(40):
        estimator.learn(korean, "m", Usage(round(1.8 * sum(korean.scripts)), 1))

    assert estimator.prompt(korean, "m") == pytest.approx(1.8 * sum(korean.scripts), rel=0.05)
    assert estimator.prompt(english, "m") == pytest.approx(before, rel=0.05)


def test_models_are_learnt_apart() -> None:
    """What one model's answers teach says nothing about another."""
    estimator = TokenEstimator()
    before = estimator.prompt(chat(ENGLISH), "b")
    for _ in range(20):
        estimator.learn(chat(ENGLISH), "a", Usage(50, 1))

    assert estimator.prompt(chat(ENGLISH), "b") == before
    assert estimator.prompt(chat(ENGLISH), "a") > before


def test_one_outlier_moves_little() -> None:
    """An answer whose usage counts something else, such as a cached prompt, hardly changes what was learnt."""
    estimator = TokenEstimator()
    true = estimator.prompt(chat(ENGLISH * 20), "m")
    for _ in range(30):
        estimator.learn(chat(ENGLISH * 20), "m", Usage(true, 1))
    estimator.learn(chat(ENGLISH * 20), "m", Usage(900_000_000, 1))

    assert estimator.prompt(chat(ENGLISH * 20), "m") == pytest.approx(true, rel=0.02)


@pytest.mark.parametrize(("reported", "factor"), [(900_000_000, 3.0), (8, 0.3)])
def test_factors_are_bounded(reported: int, factor: float) -> None:
    """However long a provider reports nonsense, an estimate stays within a factor of three."""
    estimator = TokenEstimator()
    raw = RawEstimate(count(ENGLISH * 50))
    for _ in range(500):
        estimator.learn(raw, "m", Usage(reported, 1))

    assert estimator.prompt(raw, "m") == pytest.approx(factor * sum(raw.scripts), rel=0.01)


# --- texts -----------------------------------------------------------------------------------------------------------


def test_classes_of_characters() -> None:
    """Each class has its weight."""
    expected = {
        "word": (tokens.WORD, 0, 0, 0),
        "internationally": (tokens.WORD + 2 * tokens.SEVEN, 0, 0, 0),
        "42": (2 * tokens.DIGIT, 0, 0, 0),
        "a b": (2 * tokens.WORD + tokens.SPACE, 0, 0, 0),
        "a\n": (tokens.WORD + tokens.SPACE, 0, 0, 0),
        "{}": (2 * tokens.PUNCTUATION, 0, 0, 0),
        "é": (tokens.ACCENTED, 0, 0, 0),
        "…": (tokens.PUNCTUATION, 0, 0, 0),
        "🙂": (2 * tokens.PUNCTUATION, 0, 0, 0),
        "한국어": (0, 3 * tokens.HANGUL, 0, 0),
        "中文": (0, 0, 2 * tokens.HAN, 0),
        "かな": (0, 0, 2 * tokens.KANA, 0),
        "да": (0, 0, 0, 2 * tokens.CYRILLIC),
        "สวัสดี": (0, 0, 0, 6 * tokens.OTHER),
        "": (0, 0, 0, 0),
    }

    assert expected == {text: pytest.approx(count(text)) for text in expected}


def test_an_indent_is_one_token() -> None:
    """Indented code costs little more than flat code."""
    assert count("    a")[0] == count(" a")[0]


def test_letters_without_words() -> None:
    """A long run of letters, as in a sequence of DNA, is not taken for one word."""
    assert count("acgt" * 1_000)[0] > 1_000


@given(st.text(), st.text())
def test_a_text_is_the_sum_of_its_lines(first: str, second: str) -> None:
    """Counting is additive and never negative, whatever the characters are; lone surrogates included."""
    parts = [sum(count(text)) for text in (first + "\n", second)]

    assert sum(count(f"{first}\n{second}")) == pytest.approx(sum(parts))
    assert min(parts) >= 0


def test_lone_surrogates() -> None:
    """Half a character, which JSON can hold, is counted like any other."""
    assert sum(count("\ud800")) > 0


# --- bodies ----------------------------------------------------------------------------------------------------------


def test_messages_have_a_fixed_cost() -> None:
    """A request opens the answer with three tokens; each message has four, and its text."""
    word = {"role": "user", "content": "word"}

    assert prompt() == tokens.PER_REQUEST
    assert prompt(word) == tokens.PER_REQUEST + tokens.PER_MESSAGE + 1
    assert prompt(word, word, word) == tokens.PER_REQUEST + 3 * tokens.PER_MESSAGE + 3


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "text", "text": ""}, 0),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_999}}, tokens.IMAGE),
        ({"type": "image_url", "image_url": {"url": "https://host/a.png", "detail": "low"}}, tokens.SMALL_IMAGE),
        ({"type": "image_url", "image_url": "https://host/a.png"}, tokens.IMAGE),
        ({"type": "input_image", "detail": "low"}, tokens.SMALL_IMAGE),
        ({"type": "unheard of"}, 0),
    ],
)
def test_parts_that_are_no_text(part: dict[str, Any], expected: int) -> None:
    """An image costs a fixed number of tokens, however long its data is."""
    assert prompt({"role": "user", "content": [part]}) == expected + tokens.PER_MESSAGE + tokens.PER_REQUEST


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "weather", "description": ENGLISH}}]},
        {"functions": [{"name": "weather", "description": ENGLISH}]},
        {"response_format": {"type": "json_schema", "json_schema": {"description": ENGLISH}}},
    ],
)
def test_definitions_count(more: dict[str, Any]) -> None:
    """Tools and schemas are part of the prompt."""
    assert prompt(**more) > prompt() + 10


@pytest.mark.parametrize(
    "more",
    [
        {"name": "Alice"},
        {"refusal": ENGLISH},
        {"tool_calls": [{"id": "1", "function": {"name": "weather", "arguments": '{"city": "Seoul"}'}}]},
        {"content": [{"type": "text", "text": ENGLISH}]},
        {"content": [ENGLISH]},
    ],
)
def test_everything_a_message_says_counts(more: dict[str, Any]) -> None:
    """Names, refusals, calls of tools and lists of parts."""
    assert prompt({"role": "assistant", "content": None, **more}) > prompt({"role": "assistant", "content": None})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": "text"},
        {"messages": [None, 1, "text", []]},
        {"messages": [{"content": 5}, {"content": [None, 7, {"text": 9}, {"type": None}]}]},
        {"messages": [], "max_tokens": "many", "n": "two", "tools": 3},
        {"messages": [], "max_tokens": True, "n": -1},
        {"messages": [], "max_tokens": -5, "n": 0},
    ],
)
def test_no_body_is_too_odd(body: dict[str, Any]) -> None:
    """A body that no provider would take still has an estimate: it is the provider who refuses it."""
    estimator = TokenEstimator()

    assert estimator.estimate(body, "m") >= tokens.PER_REQUEST


# --- answers ---------------------------------------------------------------------------------------------------------


def test_the_answer_is_what_nine_in_ten_took() -> None:
    """The estimate of an answer is the 90th percentile of those seen, and at most what the body allows."""
    estimator = TokenEstimator()

    assert estimator.completion(chat("?"), "m") == tokens.COMPLETION

    for length in range(10, 110, 10):
        estimator.learn(chat("?"), "m", Usage(10, length))

    assert estimator.completion(chat("?"), "m") == 100
    assert estimator.completion(chat("?", max_tokens=30), "m") == 30
    assert estimator.completion(chat("?", max_completion_tokens=40), "m") == 40
    assert estimator.completion(chat("?", n=3), "m") == 300
    assert estimator.estimate(chat("?"), "m") == estimator.prompt(chat("?"), "m") + 100


def test_a_provider_that_reserves_the_maximum() -> None:
    """Where the whole allowance counts, so does the estimate; the provider's own figure where none is set."""
    estimator = TokenEstimator()

    assert estimator.completion(chat("?", max_tokens=4_096), "m", reserved=8_192) == 4_096
    assert estimator.completion(chat("?"), "m", reserved=8_192) == 8_192


def test_the_length_of_one_of_several_choices() -> None:
    """The usage of an answer with several choices is that of all of them."""
    estimator = TokenEstimator()
    estimator.learn(chat("?", n=4), "m", Usage(10, 400))

    assert estimator.completion(chat("?"), "m") == 100


# --- learning --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("usage", [None, Usage(0, 10), Usage(1, 0)])
def test_nothing_to_learn(usage: Usage | None) -> None:
    """Missing usage, or less than the fixed cost, leaves the estimate as it is."""
    estimator = TokenEstimator()
    before = estimator.prompt(chat(ENGLISH), "m")
    estimator.learn(chat(ENGLISH), "m", usage)

    assert estimator.prompt(chat(ENGLISH), "m") == before


def test_a_body_is_read_once() -> None:
    """What `read` returns stands for the body everywhere."""
    learnt, raw = TokenEstimator(), TokenEstimator()
    body = chat(ENGLISH, max_tokens=20, n=2)
    learnt.learn(body, "m", Usage(40, 10))
    raw.learn(raw.read(body), "m", Usage(40, 10))

    assert raw.estimate(raw.read(body), "m") == learnt.estimate(body, "m")


def test_memory_is_bounded() -> None:
    """A caller with a new model name for every request does not fill the memory; the oldest is forgotten."""
    estimator = TokenEstimator()
    for number in range(2 * tokens.MODELS):
        estimator.learn(chat(ENGLISH), f"m{number}", Usage(999, 5))

    assert len(estimator._models) == tokens.MODELS
    assert estimator.completion(chat("?"), "m0") == tokens.COMPLETION
    assert estimator.completion(chat("?"), f"m{2 * tokens.MODELS - 1}") == 5


def test_a_real_tokenizer() -> None:
    """A tokenizer that the caller has is used, and still learns from usage."""
    estimator = TokenEstimator(lambda text: 2 * len(text))
    before = estimator.prompt(chat("four"), "m")
    for _ in range(60):
        estimator.learn(chat("four"), "m", Usage(7 + 12, 1))

    assert before == tokens.PER_REQUEST + tokens.PER_MESSAGE + 8
    assert estimator.prompt(chat("four"), "m") == pytest.approx(19, abs=1)


def test_a_tokenizer_that_fails() -> None:
    """A text that a tokenizer refuses is estimated as if there were none."""

    def refuse(_: str) -> int:
        raise ValueError("disallowed special token")

    assert TokenEstimator(refuse).prompt(chat(ENGLISH), "m") == TokenEstimator().prompt(chat(ENGLISH), "m")
