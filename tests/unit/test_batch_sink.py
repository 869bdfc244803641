"""Where results go: what a disk does that refuses to keep them is said, and no row has two lines for it."""

from __future__ import annotations

import errno
import os
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from holyroute.batch.checkpoint import Wishes, begin
from holyroute.batch.journal import GROUP_SECONDS
from holyroute.batch.meta import Meta
from holyroute.batch.row import RowResult
from holyroute.cli.batch_sink import FileSink
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


def broken(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("late", [False, True])
def test_lines_that_cannot_be_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, late: bool) -> None:
    """They stand there once; whether it shows under way or at the end, the run does not end as if all were well."""
    output, clock = tmp_path / "out.jsonl", FakeClock()
    monkeypatch.setattr(os, "fdatasync", broken)
    with begin(output, Meta(input=None, spec={}), Wishes(), clock) as checkpoint:
        sink = FileSink(checkpoint)
        clock.advance(0.0 if late else GROUP_SECONDS)
        may_go_on = sink.take(RowResult(index=0, ok=True, cost_usd=Decimal(1)), "00")
        sink.finish()

    assert may_go_on is late
    assert sink.problem.endswith("Input/output error")
    assert (sink.rescued, sink.lost) == ("", 0)
    assert output.read_bytes().count(b"\n") == 1
