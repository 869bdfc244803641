"""What a row costs at most: no answer may ever be dearer."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

import holyroute
from holyroute.batch import worst
from holyroute.batch.options import Defaults
from holyroute.batch.row import Row
from holyroute.engine.router import Router

MESSAGES = [{"role": "user", "content": "how deep is the sea? 한국어"}]


def router(**models: Any) -> Router:
    config = holyroute.load(
        env={},
        cwd_file=False,
        providers={"p": {"base_url": "http://127.0.0.1:1/v1"}},
        models={
            "cheap": {"provider": "p", "price": {"input": 1, "output": 2}},
            "dear": {"provider": "p", "price": {"input": 10, "output": 20}, "max_output": 50},
            "unpriced": {"provider": "p"},
            **models,
        },
        routes={"general": {"normal": ["cheap", "dear"]}},
    )
    return Router(config, env={})


def row(**changes: Any) -> Row:
    body = {"messages": MESSAGES, "max_tokens": 40}
    return Row(index=0, **({"body": body} | changes))


def size(body: dict[str, Any]) -> int:
    return len(json.dumps(body, ensure_ascii=False).encode()) + 3 + 5


def test_the_prompt_counts_byte_for_byte() -> None:
    """A token for each byte of the JSON that is sent, and what stands around each message."""
    body = {"messages": MESSAGES, "max_tokens": 40}

    assert worst.prompt_bound(body) == size(body)


def test_the_dearest_candidate_decides_what_an_answer_costs() -> None:
    """At full length."""
    tokens = size({"messages": MESSAGES, "max_tokens": 40, "model": None})

    assert worst.dearest(row(), router(), Defaults()) == Decimal(tokens * 10 + 40 * 20) / 1_000_000


def test_a_row_may_be_billed_by_every_candidate() -> None:
    """Each may be asked twice, each time sent twice, and bill all of it; more than that there is never."""
    tokens = size({"messages": MESSAGES, "max_tokens": 40, "model": None})
    one = Decimal(tokens * 10 + 40 * 20) + Decimal(tokens * 1 + 40 * 2)

    assert worst.worst_case(row(), router(), Defaults()) == 4 * one / 1_000_000


@pytest.mark.parametrize(
    "changes",
    [
        {"body": {"messages": MESSAGES}},  # `cheap` declares no max_output
        {"model": "unpriced"},
        {"model": "no-such-model"},
        {"problem": "no JSON"},
        {"body": {"messages": MESSAGES, "max_tokens": 4, "web_search_options": {"a": 1}}},
        {
            "body": {
                "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "u"}]}],
                "max_tokens": 4,
            }
        },
        {"body": {"messages": MESSAGES, "max_tokens": 4, "logit_bias": {1, 2}}},
    ],
)
def test_what_nobody_knows_is_none(changes: dict[str, Any]) -> None:
    """Never 0."""
    assert worst.worst_case(row(**changes), router(), Defaults()) is None
    assert worst.dearest(row(**changes), router(), Defaults()) is None


def test_a_declared_length_bounds_an_answer() -> None:
    """And so does what the batch says for all its rows, or either name of the limit: the larger one."""
    plain = Row(index=0, body={"messages": MESSAGES}, models=("dear",))
    both = Row(index=0, body={"messages": MESSAGES, "max_tokens": 7, "max_completion_tokens": 9}, models=("dear",))
    of_all = Defaults(parameters={"max_tokens": 5})

    def output(one: Row, defaults: Defaults, body: dict[str, Any]) -> Decimal:
        cost = worst.dearest(one, router(), defaults)
        assert cost is not None
        return cost * 1_000_000 - size({**body, "model": None}) * 10

    assert output(plain, Defaults(), {"messages": MESSAGES}) == 50 * 20
    assert output(plain, of_all, {"messages": MESSAGES, "max_tokens": 5}) == 5 * 20
    assert output(both, Defaults(), dict(both.body or {})) == 9 * 20


def test_each_choice_counts() -> None:
    """`n` answers are as long as that many."""
    one = worst.dearest(row(body={"messages": MESSAGES, "max_tokens": 40, "n": 1}), router(), Defaults())
    three = worst.dearest(row(body={"messages": MESSAGES, "max_tokens": 40, "n": 3}), router(), Defaults())

    assert one is not None
    assert three is not None
    assert three - one == Decimal(80 * 20) / 1_000_000


def test_the_system_prompt_counts() -> None:
    """What holds for all rows is part of each."""
    without = worst.dearest(row(), router(), Defaults())
    with_it = worst.dearest(row(), router(), Defaults(system="be brief"))

    assert without is not None
    assert with_it is not None
    assert with_it > without
