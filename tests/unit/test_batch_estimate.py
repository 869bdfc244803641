"""What a batch will take: tokens, money, time."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

import holyroute
from holyroute.batch.estimate import Estimate, Estimator, pace
from holyroute.batch.row import Row
from holyroute.engine.router import Router


def router(**models: dict[str, Any]) -> Router:
    base = {"providers": {"p": {"base_url": "https://p.example.com/v1", "api_key_env": "NO_SUCH_KEY"}}}
    known = {name: {"provider": "p", **model} for name, model in models.items()}
    routes = {"general": {"normal": list(known)}}
    return Router(holyroute.load(env={}, cwd_file=False, **base, models=known, routes=routes), env={})


def estimated(engine: Router, *rows: Row, answer: int | None = None) -> Estimate:
    estimator = Estimator(engine, answer)
    for row in rows:
        estimator.add(row)
    return estimator.total


def asked(text: str = "hello there", **fields: Any) -> Row:
    parameters = fields.pop("parameters", {"max_tokens": 100})
    return Row(index=0, body={"messages": [{"role": "user", "content": text}], **parameters}, **fields)


DEAR = {"price": {"input": 10, "output": 100}}
CHEAP = {"price": {"input": 1, "output": 10}}


def test_three_amounts() -> None:
    """Expected: the first choice; low: a tenth of the answer at the cheapest; worst: bytes as tokens at the dearest."""
    total = estimated(router(first=DEAR, second=CHEAP), asked())
    prompt = total.prompt_tokens

    assert total.completion_tokens == 100
    assert total.expected == (prompt * Decimal(10) + 100 * 100) / 1_000_000
    assert total.low == (prompt * Decimal(1) + 10 * 10) / 1_000_000
    assert total.worst is not None
    assert total.worst > (len("hello there") * Decimal(10) + 100 * 100) / 1_000_000
    assert total.low < total.expected < total.worst


def test_an_unknown_price_is_never_nothing() -> None:
    """One model without a price among those who may be asked, and there is no upper bound; it is named."""
    total = estimated(router(first=CHEAP, second={}), asked(), asked())

    assert total.expected is not None
    assert (total.worst, total.unbounded) == (None, 2)
    assert total.unpriced == {"second": 2}


def test_an_answer_without_a_limit() -> None:
    """500 tokens are expected; the worst case is known only where the model declares its longest answer."""
    free = asked(parameters={})
    unknown = estimated(router(first=CHEAP), free)
    declared = estimated(router(first={**CHEAP, "max_output": 1_000}), free)

    assert unknown.completion_tokens == declared.completion_tokens == 500
    assert unknown.worst is None
    assert declared.worst is not None


def test_answers_that_were_seen_count() -> None:
    """As long as they were, but no longer than allowed, for each choice."""
    engine = router(first=CHEAP)

    assert estimated(engine, asked(), answer=40).completion_tokens == 40
    assert estimated(engine, asked(), answer=400).completion_tokens == 100
    assert estimated(engine, asked(parameters={"n": 3}), answer=40).completion_tokens == 120


def test_rows_that_cannot_be_asked() -> None:
    """They cost nothing: broken ones, and those that name an unknown model."""
    total = estimated(router(first=CHEAP), Row(index=0, problem="not JSON"), asked(), asked(model="none"))

    assert (total.rows, total.broken) == (1, 2)


@pytest.mark.parametrize(
    ("model", "workers", "seconds", "because"),
    [
        ({"rpm": 60}, 50, 100 / 0.95, "60 requests a minute of first"),
        ({"tpm": 1_000}, 50, None, "1,000 tokens a minute of first"),
        ({"latency": "slow"}, 5, 100 * 10 / 5, "5 at a time"),
    ],
)
def test_what_holds_a_batch_up(model: dict[str, Any], workers: int, seconds: float | None, because: str) -> None:
    """The tightest of rate limits and workers, and which it is."""
    engine = router(first={**CHEAP, **model})
    total = estimated(engine, *[asked()] * 100)
    found = pace(total, engine, workers)
    tokens = (total.prompt_tokens + total.completion_tokens) / (1_000 * 0.95 / 60)

    assert found.seconds == pytest.approx(tokens if seconds is None else seconds)
    assert found.because.startswith(because)


def test_nothing_takes_no_time() -> None:
    """An empty input."""
    engine = router(first=CHEAP)

    assert pace(estimated(engine), engine, 50).seconds == 0
