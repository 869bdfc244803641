"""Batches: many rows in, every row answered once or accounted for, whatever the providers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holyroute.batch.row import Cause

if TYPE_CHECKING:
    import holyroute
    from holyroute.simulator import Simulator


def prompts(count: int) -> list[dict[str, Any]]:
    """Rows that differ."""
    return [
        {"custom_id": f"r{number}", "messages": [{"role": "user", "content": f"{number}"}]} for number in range(count)
    ]


def test_every_row_is_answered_once(client: holyroute.Client, a: Simulator) -> None:
    """Results come as they are ready, each with its row's index, name, model and cost."""
    with client.batch(prompts(200), max_workers=16) as job:
        results = list(job)

    assert sorted(result.index for result in results) == list(range(200))
    assert {result.id for result in results} == {f"r{number}" for number in range(200)}
    assert all(result.ok and result.model == "ma" and result.cost_usd for result in results)
    assert a.attempts() == 200
    assert job.stopped is None
    assert (job.progress.taken, job.progress.done, job.progress.answered) == (200, 200, 200)


def test_a_row_never_raises(client: holyroute.Client) -> None:
    """What cannot be read, and what the provider refuses, are results with their cause; the others are answered."""
    unknown = {"messages": [{"role": "user", "content": "x"}], "model": "no-such-model"}
    results = list(client.batch(["fine", 7, {"messages": []}, unknown, "fine too"], ordered=True))

    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    assert [result.error.cause if result.error else None for result in results] == [
        *(None, Cause.ROW, Cause.ROW, Cause.ROW, None)
    ]


def test_a_model_that_dies_in_the_middle_costs_no_row(client: holyroute.Client, a: Simulator, b: Simulator) -> None:
    """From then on the substitute answers."""
    answered: list[str | None] = []
    with client.batch(prompts(300), max_workers=16) as job:
        for result in job:
            answered.append(result.model if result.ok else None)
            if len(answered) == 100:
                a.always("*", 503)

    assert len(answered) == 300
    assert set(answered) == {"ma", "mb"}
