"""From a row to the call that it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holyroute.core.call import Call, Selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.batch.options import Defaults
    from holyroute.batch.row import Row
    from holyroute.config.schema import TimeSettings
    from holyroute.core.cancel import CancelToken


def call_of(
    row: Row, defaults: Defaults, time: TimeSettings, *, seconds: float | None = None, cancel: CancelToken | None = None
) -> Call:
    """The call of a row. It waits for nobody: a worker that slept for a limit would keep the next row from its turn.

    Args:
        row: one without a problem.
        defaults: for what it leaves open.
        time: the configuration's.
        seconds: that are left for it, if less than its own deadline.
        cancel: calls it off.
    """
    body = body_of(row, defaults)
    model, models = _named(row, body, defaults)
    own = time.deadline if defaults.call_deadline is None else defaults.call_deadline
    return Call(
        model=model,
        body={**body, "model": model},
        deadline=own if seconds is None else min(own, seconds),
        connect=time.connect,
        read=time.read,
        limit=time.read,
        background=True,
        waits=False,
        cancel=cancel,
        cache_control="" if defaults.cache else "no-store",
        selection=Selection(
            task=row.task or defaults.task,
            priority=row.priority or defaults.priority,
            models=models,
            max_latency=defaults.max_latency,
            order=defaults.order,
            direct=defaults.direct,
        ),
    )


def body_of(row: Row, defaults: Defaults) -> dict[str, Any]:
    """What is sent: the row's own words come before those for all rows."""
    own: Mapping[str, Any] = row.body or {}
    body = {**defaults.parameters, **own}
    if defaults.system is not None and not any(_is_system(message) for message in own["messages"]):
        body["messages"] = [{"role": "system", "content": defaults.system}, *own["messages"]]
    return body


def _is_system(message: Any) -> bool:
    return message.get("role") in {"system", "developer"}


def _named(row: Row, body: Mapping[str, Any], defaults: Defaults) -> tuple[str | None, tuple[str, ...] | None]:
    """Model and models: what a row says of its routing counts as a whole, before what holds for all."""
    model = row.model or body.get("model")
    if row.models is not None or model is not None or row.task is not None or row.priority is not None:
        return model, None if row.models is None else tuple(row.models)
    return defaults.model, defaults.models
