"""What `holyroute batch` does: estimate, or open the output, run, and write what was asked for."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holyroute.batch import checkpoint as checkpoints
from holyroute.batch.calls import call_of
from holyroute.batch.meta import path_of
from holyroute.batch.options import Defaults
from holyroute.batch.printing import Ordered, failure_line, shaped
from holyroute.batch.row import Row
from holyroute.batch.scan import Found
from holyroute.batch.source import STDIN, Source
from holyroute.cli.batch_display import BatchDisplay
from holyroute.cli.batch_options import spec_of
from holyroute.cli.batch_pipe import awaited
from holyroute.cli.batch_report import Report, announce
from holyroute.cli.batch_run import Runner
from holyroute.cli.batch_sink import FileSink, StreamSink
from holyroute.cli.output import Failure, Misuse, has_key, how_to_get_a_key, show, usd
from holyroute.client import Client
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.exceptions import HolyRouteError
from holyroute.stores.place import put

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.batch.checkpoint import Checkpoint
    from holyroute.batch.spec import Spec
    from holyroute.cli.batch_options import Wanted
    from holyroute.core.target import Provider
    from holyroute.engine.router import Router

CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """One call of the command."""

    wanted: Wanted
    source: Source
    spec: Spec
    client: Client
    command: str  # as it was typed

    def rows(self) -> Iterator[Row]:
        """The rows that it is about."""
        return self.wanted.rows(self.source, self.spec)


def perform(wanted: Wanted, command: str) -> int:
    """Do it; the exit code."""
    with Client(wanted.path) as client:
        order = _Order(
            wanted=wanted,
            source=Source(wanted.source, wanted.form),
            spec=spec_of(wanted),
            client=client,
            command=command,
        )
        providers = _providers(client.router, order.spec)
        if wanted.estimate:
            announce(wanted, order.source, order.spec, client.router)
            return 0
        if wanted.output is None:
            raise click.UsageError("missing argument 'OUTPUT'")
        _check_files(wanted)
        if not any(has_key(one, client.router.keyring) for one in providers):
            raise Misuse(how_to_get_a_key(providers))
        return _to_stdout(order) if wanted.output == STDIN else _to_file(order)


def _providers(router: Router, spec: Spec) -> list[Provider]:
    """Who may be asked; where each row says that itself, everybody.

    Raises:
        ConfigurationError: an unknown model.
    """
    texts = (spec.model, spec.task, spec.priority)
    if any(template and template.fields for template in texts) or not (spec.is_routed or spec.template):
        return [target.provider for target in router.config.models.values()]
    model, task, priority = (template.text if template else None for template in texts)
    row = Row(index=0, body={"messages": []}, model=model, models=spec.models, task=task, priority=priority)
    call = call_of(row, Defaults(), router.config.time)
    return [candidate.target.provider for candidate in router.candidates(call)]


def _to_stdout(order: _Order) -> int:
    wanted = order.wanted
    if wanted.resume or wanted.retry_failed or wanted.repair:
        raise Misuse("stdout is no checkpoint, so there is nothing to resume; expected a file as OUTPUT")
    if not wanted.as_json:
        show("stdout is no checkpoint: a run that is interrupted starts anew", err=True)
    total = wanted.count(order.source.survey())
    with ExitStack() as stack:
        errors = stack.enter_context(Path(wanted.errors).open("wb")) if wanted.errors else None
        sink = StreamSink(sys.stdout.buffer, wanted.shape, errors, raw=wanted.raw)
        display = stack.enter_context(BatchDisplay(SYSTEM_CLOCK, total))
        stack.enter_context(_warnings(display))
        runner = Runner(sink, display)
        work = _Work(order=order, runner=runner, display=display, total=total, ordered=wanted.ordered)
        work.run(order.rows())
    return Report(runner=runner, before=Found(), total=total, sink=sink).show(wanted)


def _to_file(order: _Order) -> int:
    wanted = order.wanted
    survey = order.source.survey()
    total = wanted.count(survey)
    meta = wanted.meta(order.spec, survey)
    with checkpoints.begin(wanted.journal, meta, wanted.wishes, SYSTEM_CLOCK) as checkpoint:
        before = checkpoint.before
        left = None if total is None else max(0, total - len(before.done))
        if len(before.done):
            show(f"going on with {wanted.output}: {len(before.done):,} rows are done{_how(before)}", err=True)
        sink = FileSink(checkpoint, raw=wanted.raw)
        with BatchDisplay(SYSTEM_CLOCK, left, checkpoint.spent) as display, _warnings(display):
            runner = Runner(sink, display)
            work = _Work(
                order=order, runner=runner, display=display, total=left, spent=checkpoint.spent, answered=before.ok
            )
            try:
                work.run(checkpoint.left(order.rows()))
            finally:
                with suppress(OSError):  # the disk is full; the report says so
                    checkpoint.note(runner.snapshot.spent - sink.told)
        report = Report(
            runner=runner, before=before, total=total, sink=sink, command=order.command, spent_before=checkpoint.spent
        )
        problem = "" if sink.problem else _write_out(wanted, checkpoint, whole=not report.stopped)
    code = report.show(wanted)
    if problem:
        raise Failure(problem)
    return code


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The jobs of one run: the canary, then all others."""

    order: _Order
    runner: Runner
    display: BatchDisplay
    total: int | None  # rows that are left to do
    ordered: bool = False
    spent: Decimal = Decimal(0)  # by earlier runs
    answered: int = 0  # likewise

    def run(self, rows: Iterator[Row]) -> None:
        """Run them, until one is stopped."""
        began = SYSTEM_CLOCK.now()
        canary = max(0, (self.order.wanted.canary or 0) - self.answered)
        with self.runner.listening():
            if canary:
                self._job(islice(rows, canary), began)
                self._judge()
            if not self.runner.stopped:
                self._job(rows, began)

    def _job(self, rows: Iterator[Row], began: float) -> None:
        wanted = self.order.wanted
        options: dict[str, Any] = {"max_workers": wanted.workers, "dedupe": wanted.dedupe, "ordered": self.ordered}
        if wanted.max_cost is not None:
            left = wanted.max_cost - self.spent - self.runner.snapshot.spent
            options["max_cost"] = max(Decimal(0), left)  # where nothing is left, what costs nothing goes on
        if wanted.deadline is not None:
            options["deadline"] = max(0.001, wanted.deadline - (SYSTEM_CLOCK.now() - began))
        given = rows if self.order.source.is_file else awaited(rows)
        self.runner.run(partial(self.order.client.batch, **options), given)

    def _judge(self) -> None:
        """Go on after the canary only if all of its rows were answered."""
        seen = self.runner.snapshot
        if self.runner.stopped:
            return
        if seen.failed or not seen.answered:
            self.runner.stopped = CANARY if seen.failed else ""
            return
        left = "" if self.total is None else f"; all would be about {usd(seen.spent / seen.done * self.total)} USD"
        self.display.say(f"canary: {seen.answered:,} rows answered for {usd(seen.spent)} USD{left}")


def _check_files(wanted: Wanted) -> None:
    """Nothing is read, written or overwritten twice."""
    source, output = Path(wanted.source), Path(wanted.output or "")
    if wanted.source != STDIN and output.exists() and output.samefile(source):
        raise Misuse(f"{output}: is the input; expected another name")
    if wanted.journal != output and output.exists() and not wanted.journal.exists() and not wanted.overwrite:
        raise Misuse(f"{output}: is there, but no batch has written it; expected another name, or --overwrite")
    taken = {path.absolute() for path in (source, output, wanted.journal, path_of(wanted.journal))}
    for path in map(Path, filter(None, (wanted.errors, wanted.summary))):
        if path.absolute() in taken:
            raise Misuse(f"{path}: is the input, the output or named twice; expected another name")
        if not path.absolute().parent.is_dir():
            raise Misuse(f"{path}: its folder is not there")
        if path.is_dir():
            raise Misuse(f"{path}: is a folder; expected a file")
        taken.add(path.absolute())


def _how(before: Found) -> str:
    failed = len(before.done) - before.ok
    if not failed:
        return ""
    return f", {failed:,} of them failed" + ("; --retry-failed asks them again" if before.later else "")


def _write_out(wanted: Wanted, checkpoint: Checkpoint, *, whole: bool) -> str:
    """Everything that is made of the checkpoint at the end: order, another shape, the failed rows; what went wrong."""
    journal = checkpoint.journal
    wants_order = wanted.ordered and whole and wanted.shape == "jsonl"
    if not wants_order and wanted.shape == "jsonl" and wanted.errors is None:
        return ""
    ordered = Ordered([journal.path])
    try:
        if wants_order:
            journal.replace(iter(ordered))
            ordered = Ordered([journal.path])
        if wanted.shape != "jsonl":
            put(Path(wanted.output or ""), shaped(ordered, wanted.shape))
        if wanted.errors is not None:
            put(Path(wanted.errors), filter(None, map(failure_line, ordered)))
    except OSError as error:
        problem = str(error) if isinstance(error, HolyRouteError) else f"{error.filename}: {error.strerror or error}"
        return f"{problem}; all answers are in {journal.path}"
    return ""


@contextmanager
def _warnings(display: BatchDisplay) -> Iterator[None]:
    """Show warnings above the display instead of through it."""

    class Shown(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            display.say(f"holyroute: {record.getMessage()}")

    handler, logger = Shown(logging.WARNING), logging.getLogger("holyroute")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
