"""What `holyroute batch` does with its options: estimate, or open the output, run, and write what was asked for."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holyroute.batch import checkpoint as checkpoints
from holyroute.batch.calls import call_of
from holyroute.batch.meta import Meta, path_of
from holyroute.batch.options import Defaults
from holyroute.batch.printing import Ordered, failure_line, put, shaped
from holyroute.batch.row import Row
from holyroute.batch.scan import Found
from holyroute.batch.source import STDIN, Source
from holyroute.batch.spec import Spec
from holyroute.batch.template import Template
from holyroute.cli.batch_display import BatchDisplay
from holyroute.cli.batch_report import Report, announce
from holyroute.cli.batch_run import Runner
from holyroute.cli.batch_sink import FileSink, StreamSink
from holyroute.cli.output import Failure, Misuse, has_key, how_to_get_a_key, show, usd
from holyroute.client import Client
from holyroute.core import codec
from holyroute.core.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.batch.checkpoint import Checkpoint
    from holyroute.batch.source import Survey

COST_CAP, CANARY = "cost cap", "canary"
CSV = ".csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options of the command, as they were given."""

    source: str
    output: str | None
    template: str | None
    system: str | None
    id: str | None
    form: str | None
    models: tuple[str, ...]
    task: str | None
    priority: str | None
    max_tokens: int | None
    temperature: float | None
    parameters: tuple[str, ...]
    workers: int
    estimate: bool
    canary: int | None
    limit: int | None
    max_cost: Decimal | None
    deadline: float | None
    shard: tuple[int, int] | None
    dedupe: bool
    resume: bool
    retry_failed: bool
    repair: bool
    overwrite: bool
    ordered: bool
    openai: bool
    raw: bool
    errors: str | None
    summary: str | None
    as_json: bool
    path: str | None

    @property
    def shape(self) -> str:
        """In which of `printing.SHAPES` the output is written."""
        if self.openai:
            return "openai"
        return "csv" if Path(self.output or "").suffix.lower() == CSV else "jsonl"

    @property
    def journal(self) -> Path:
        """The checkpoint: the output itself, or a file beside it where the output has another shape."""
        output = Path(self.output or "")
        return output if self.shape == "jsonl" else output.with_name(f"{output.name}.journal")

    @property
    def wishes(self) -> checkpoints.Wishes:
        """How an output that is there is to be treated."""
        return checkpoints.Wishes(
            must_resume=self.resume, overwrite=self.overwrite, repair=self.repair, retry_failed=self.retry_failed
        )

    def meta(self, spec: Spec, survey: Survey | None) -> Meta:
        """What the output stands for."""
        shard = "/".join(map(str, self.shard)) if self.shard else ""
        return Meta(input=survey, spec={**spec.describe(), "format": self.form}, shard=shard)

    def rows(self, source: Source, spec: Spec) -> Iterator[Row]:
        """The rows that this run is about."""
        rows = spec.rows(islice(source.records(), self.limit))
        part, parts = self.shard or (1, 1)
        return (row for row in rows if row.index % parts == part - 1)

    def count(self, survey: Survey | None) -> int | None:
        """How many they are; None if unknown."""
        if survey is None:
            return None
        part, parts = self.shard or (1, 1)
        return len(range(part - 1, min(survey.rows, self.limit or survey.rows), parts))


def perform(wanted: Wanted, command: str) -> int:
    """Do it; the exit code."""
    source, spec = Source(wanted.source, wanted.form), spec_of(wanted)
    with Client(wanted.path) as client:
        if wanted.estimate:
            announce(wanted, source, spec, client.router)
            return 0
        if wanted.output is None:
            raise click.UsageError("missing argument 'OUTPUT'")
        _check_files(wanted)
        _check_keys(client, spec)
        if wanted.output == STDIN:
            return _to_stdout(wanted, source, spec, client)
        return _to_file(wanted, source, spec, (client, command))


def spec_of(wanted: Wanted) -> Spec:
    """How rows become calls, by the options."""
    one_model = wanted.models[0] if len(wanted.models) == 1 else None
    texts = {
        name: Template.parse(text, f"--{name}")
        for name, text in {
            "template": wanted.template,
            "system": wanted.system,
            "model": one_model,
            "task": wanted.task,
            "priority": wanted.priority,
        }.items()
        if text is not None
    }
    parameters = dict(map(_parameter, wanted.parameters))
    given = {"max_tokens": wanted.max_tokens, "temperature": wanted.temperature}
    parameters |= {name: value for name, value in given.items() if value is not None}
    models = wanted.models if len(wanted.models) > 1 else None
    return Spec(**texts, models=models, parameters=parameters, id=wanted.id)


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.BadParameter(f"expected NAME=JSON, got {text!r}", param_hint="--param")
    if name in {"model", "messages", "stream"}:
        raise click.BadParameter(f"{name} is no parameter for all rows", param_hint="--param")
    try:
        return name, codec.loads(value, strict=True)
    except ValueError:
        return name, value  # a word needs no quotes


def _check_keys(client: Client, spec: Spec) -> None:
    """Say what is missing before anything is written. Where each row says who is asked, any key will do."""
    router = client.router
    texts = (spec.model, spec.task, spec.priority)
    if any(template and template.fields for template in texts) or not (spec.is_routed or spec.template):
        providers = [target.provider for target in router.config.models.values()]
    else:
        model, task, priority = (template.text if template else None for template in texts)
        row = Row(index=0, body={"messages": []}, model=model, models=spec.models, task=task, priority=priority)
        call = call_of(row, Defaults(), router.config.time)
        providers = [candidate.target.provider for candidate in router.candidates(call)]
    if not any(has_key(one, router.keyring) for one in providers):
        raise Misuse(how_to_get_a_key(providers))


def _to_stdout(wanted: Wanted, source: Source, spec: Spec, client: Client) -> int:
    if wanted.resume or wanted.retry_failed or wanted.repair:
        raise Misuse("stdout is no checkpoint, so there is nothing to resume; expected a file as OUTPUT")
    if not wanted.as_json:
        show("stdout is no checkpoint: a run that is interrupted starts anew", err=True)
    survey = source.survey()
    total = wanted.count(survey)
    with ExitStack() as stack:
        errors = stack.enter_context(Path(wanted.errors).open("wb")) if wanted.errors else None
        sink = StreamSink(sys.stdout.buffer, wanted.shape, errors, raw=wanted.raw)
        display = stack.enter_context(BatchDisplay(SYSTEM_CLOCK, total))
        stack.enter_context(_warnings(display))
        runner = Runner(sink, display, SYSTEM_CLOCK)
        work = _Work(wanted=wanted, client=client, runner=runner, display=display, total=total, ordered=wanted.ordered)
        work.run(wanted.rows(source, spec), Found(), Decimal(0))
    report = Report(runner=runner, before=Found(), total=total, sink=sink)
    return report.show(wanted)


def _to_file(wanted: Wanted, source: Source, spec: Spec, rest: tuple[Client, str]) -> int:
    client, command = rest
    output = Path(wanted.output or "")
    _check_output(wanted, output)
    survey = source.survey()
    total = wanted.count(survey)
    with checkpoints.begin(wanted.journal, wanted.meta(spec, survey), wanted.wishes, SYSTEM_CLOCK) as checkpoint:
        before = checkpoint.before
        left = None if total is None else max(0, total - len(before.done))
        if len(before.done):
            show(f"going on with {output}: {len(before.done):,} rows are done{_how(before)}", err=True)
        sink = FileSink(checkpoint, raw=wanted.raw)
        with BatchDisplay(SYSTEM_CLOCK, left, checkpoint.spent) as display, _warnings(display):
            runner = Runner(sink, display, SYSTEM_CLOCK)
            work = _Work(wanted=wanted, client=client, runner=runner, display=display, total=left)
            work.run(checkpoint.left(wanted.rows(source, spec)), before, checkpoint.spent)
        report = Report(
            runner=runner, before=before, total=total, sink=sink, command=command, spent_before=checkpoint.spent
        )
        if not sink.problem:
            _write_out(wanted, checkpoint, output, whole=not report.stopped)
    return report.show(wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The jobs of one run: the canary, then all others."""

    wanted: Wanted
    client: Client
    runner: Runner
    display: BatchDisplay
    total: int | None
    ordered: bool = False

    def run(self, rows: Iterator[Row], before: Found, spent: Decimal) -> None:
        """Run them, until one is stopped."""
        began = SYSTEM_CLOCK.now()
        canary = max(0, (self.wanted.canary or 0) - before.ok)
        with self.runner.listening():
            if canary:
                self._job(islice(rows, canary), began, spent)
                self._judge()
            if not self.runner.stopped:
                self._job(rows, began, spent)

    def _job(self, rows: Iterator[Row], began: float, spent: Decimal) -> None:
        wanted = self.wanted
        options: dict[str, Any] = {"max_workers": wanted.workers, "dedupe": wanted.dedupe, "ordered": self.ordered}
        if wanted.max_cost is not None:
            options["max_cost"] = wanted.max_cost - spent - self.runner.snapshot.spent
            if options["max_cost"] <= 0:
                self.runner.stopped = COST_CAP
                return
        if wanted.deadline is not None:
            options["deadline"] = max(0.001, wanted.deadline - (SYSTEM_CLOCK.now() - began))
        self.runner.run(partial(self.client.batch, **options), rows)

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
    output = Path(wanted.output or "")
    taken = {Path(wanted.source), output, wanted.journal, path_of(wanted.journal)}
    for path in map(Path, filter(None, (wanted.errors, wanted.summary))):
        if path.absolute() in {one.absolute() for one in taken}:
            raise Misuse(f"{path}: is the input or the output; expected another name")
        if not path.absolute().parent.is_dir():
            raise Misuse(f"{path}: its folder is not there")


def _check_output(wanted: Wanted, output: Path) -> None:
    if wanted.source != STDIN and output.exists() and output.samefile(wanted.source):
        raise Misuse(f"{output}: is the input; expected another name")
    if wanted.journal != output and output.exists() and not wanted.journal.exists() and not wanted.overwrite:
        raise Misuse(f"{output}: is there, but no batch has written it; expected another name, or --overwrite")


def _how(before: Found) -> str:
    failed = len(before.done) - before.ok
    if not failed:
        return ""
    return f", {failed:,} of them failed" + ("; --retry-failed asks them again" if before.later else "")


def _write_out(wanted: Wanted, checkpoint: Checkpoint, output: Path, *, whole: bool) -> None:
    """Everything that is made of the checkpoint at the end: order, another shape, the failed rows."""
    journal = checkpoint.journal
    wants_order = wanted.ordered and whole and wanted.shape == "jsonl"
    if not wants_order and wanted.shape == "jsonl" and wanted.errors is None:
        return
    ordered = Ordered([journal.path])
    try:
        if wants_order:
            journal.replace(iter(ordered))
            ordered = Ordered([journal.path])
        if wanted.shape != "jsonl":
            put(output, shaped(ordered, wanted.shape))
        if wanted.errors is not None:
            put(Path(wanted.errors), filter(None, map(failure_line, ordered)))
    except OSError as error:
        problem = f"{error.filename or output}: {error.strerror or error}"
        raise Failure(f"{problem}; all answers are in {journal.path}") from error


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
