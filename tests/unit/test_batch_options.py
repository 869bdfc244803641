"""What a batch may be told, and how it says what is wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

import holyroute
from holyroute.batch.options import Options, options_of
from holyroute.batch.reading import row_of, rows_of
from holyroute.batch.row import Row


def test_the_defaults() -> None:
    """Fifty at a time, two further rounds, no cap, no order."""
    assert options_of({}) == Options()
    assert (Options().max_workers, Options().passes, Options().ordered, Options().max_cost) == (50, 2, False, None)


def test_what_is_not_ours_goes_to_the_model() -> None:
    """Own options, those of every row, and the parameters of the endpoint."""
    given = {"max_workers": 8, "task": "simple_qa", "models": ["a", "b"], "temperature": 0, "max_tokens": 5}
    options = options_of(given)

    assert options.max_workers == 8
    assert (options.defaults.task, options.defaults.models) == ("simple_qa", ("a", "b"))
    assert options.defaults.parameters == {"temperature": 0, "max_tokens": 5}


@pytest.mark.parametrize("given", ["12.50", 12.5, Decimal("12.50")])
def test_money_is_exact(given: Any) -> None:
    """However it is written."""
    assert options_of({"max_cost": given}).max_cost == Decimal("12.5")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_workers": 0}, "max_workers: expected a whole number from 1 on, got 0"),
        ({"max_workers": True}, "max_workers: expected"),
        ({"max_in_flight": -1}, "max_in_flight: expected"),
        ({"chunk": 4}, "chunk: expected together with executor"),
        ({"chunk": 0, "executor": ThreadPoolExecutor(1)}, "chunk: expected a whole number"),
        ({"executor": "threads"}, "executor: expected a concurrent.futures.Executor, got 'threads'"),
        ({"ordered": 1}, "ordered: expected True or False, got 1"),
        ({"max_cost": "much"}, "max_cost: expected USD from 0 on, got 'much'"),
        ({"max_cost": "NaN"}, "max_cost: expected USD"),
        ({"max_cost": -1}, "max_cost: expected USD"),
        ({"max_cost": True}, "max_cost: expected USD"),
        ({"deadline": 0}, "deadline: expected seconds above 0, got 0"),
        ({"call_deadline": float("inf")}, "call_deadline: expected seconds"),
        ({"passes": -1}, "passes: expected a whole number from 0 on, got -1"),
        ({"models": "gpt"}, "models: expected a list of names, got 'gpt'"),
        ({"models": []}, "models: expected a list of names"),
        ({"model": 3}, "model: expected a text, got 3"),
        ({"stream": True}, "stream: answers of a batch come whole"),
        ({"on_failure": "raise"}, "on_failure: failures of a batch are values"),
        ({"max_worker": 3}, "max_worker: unknown; did you mean 'max_workers'"),
        ({"max_costs": 3}, "max_costs: unknown; did you mean 'max_cost'"),
    ],
)
def test_what_is_wrong_is_named(given: dict[str, Any], message: str) -> None:
    """The path, what was expected, what was found."""
    with pytest.raises(holyroute.ConfigurationError) as raised:
        options_of(given)

    assert str(raised.value).startswith(message)


def test_rows_of_every_form() -> None:
    """A prompt as `ask` has it, messages, a request, a line of the Batch API, a row as it is."""
    messages = [{"role": "user", "content": "hi"}]
    line = {
        "custom_id": 7,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": messages},
    }
    own = Row(index=40, body={"messages": messages})
    request = {"messages": messages, "seed": 1, "task": "t", "priority": "fast", "models": ["a"], "custom_id": "x"}
    rows = list(rows_of(["hi", messages, request, line, own], {}))

    assert rows == [
        Row(index=0, body={"messages": messages, "temperature": 0.7, "max_tokens": 2000}),
        Row(index=1, body={"messages": messages}),
        Row(
            index=2,
            id="x",
            body={"messages": messages, "seed": 1},
            task="t",
            priority="fast",
            models=("a",),
        ),
        Row(index=3, id="7", body={"messages": messages}, model="m"),
        own,
    ]


def test_a_prompt_takes_what_was_said_for_all() -> None:
    """The usual temperature and length are only for those who say nothing."""
    row = next(rows_of(["hi"], {"temperature": 0, "max_completion_tokens": 9}))

    assert row.body == {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (None, "expected a prompt, a list of messages or a request with `messages`, got NoneType"),
        (b"hi", "expected a prompt"),
        ({}, "messages: expected a list of messages, got None"),
        ({"messages": "hi"}, "messages: expected a list of messages, got 'hi'"),
        ({"messages": []}, "messages: expected a list of messages, got []"),
        ([], "messages: expected a list of messages, got []"),
        (["hi"], "messages[0]: expected an object with a role, got 'hi'"),
        ([{"content": "hi"}], "messages[0]: expected an object with a role"),
        ({"custom_id": "x", "body": "hi"}, "body: expected a prompt"),
        ({"messages": [{"role": "user"}], "models": "a"}, "models: expected a list of names, got 'a'"),
        ({"messages": [{"role": "user"}], "models": [1]}, "models: expected a list of names, got (1,)"),
        ({"messages": [{"role": "user"}], "model": 1}, "model: expected a text, got 1"),
        ({"messages": [{"role": "user"}], "task": ["t"]}, "task: expected a text, got ['t']"),
        ({"messages": [{"role": "user"}], "stream": True}, "stream: answers of a batch come whole"),
    ],
)
def test_what_cannot_be_read_is_a_row_with_its_problem(given: Any, problem: str) -> None:
    """It keeps its place among the others."""
    row = row_of(5, given)

    assert row.index == 5
    assert row.problem.startswith(problem)


@pytest.mark.parametrize("given", ["one prompt", {"messages": []}, b"", 5, None])
def test_what_is_no_input_of_rows_is_refused_at_once(given: Any) -> None:
    """One prompt in place of a list of them would be a row for each letter."""
    with pytest.raises(holyroute.ConfigurationError, match="rows: expected an iterable of rows"):
        rows_of(given, {})


def test_rows_are_read_when_they_are_asked_for() -> None:
    """An input without an end is as good as any."""
    taken = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield "hi"

    rows = rows_of(endless(), {})

    assert taken == []

    next(rows)

    assert taken == [1]
