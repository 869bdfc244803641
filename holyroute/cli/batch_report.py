"""What a batch came to, for people and as JSON; and what it will take."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from holyroute.batch import meta as metas
from holyroute.batch.estimate import Estimator, pace
from holyroute.batch.row import Cause
from holyroute.batch.scan import Found, scan
from holyroute.cli.batch_display import duration, largest
from holyroute.cli.batch_run import FULL, INTERRUPTED, REJECTED
from holyroute.cli.output import FAILED, UNKNOWN, console, show, show_json, show_table, usd
from holyroute.stores.place import put

if TYPE_CHECKING:
    from holyroute.batch.estimate import Estimate
    from holyroute.batch.source import Source
    from holyroute.batch.spec import Spec
    from holyroute.cli.batch_options import Wanted
    from holyroute.cli.batch_run import Runner
    from holyroute.cli.batch_sink import Sink
    from holyroute.engine.router import Router

STOPPED, INTERRUPTED_CODE = 3, 130  # exit codes

_WHY = {
    "cost cap": "the next row might have cost more than --max-cost allows",
    "deadline": "--deadline is over",
    "canary": "not every row of the canary was answered",
    REJECTED: "one row after the other was refused for want of a good key",
    INTERRUPTED: "interrupted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a run and of its output.

    Attributes:
        before: what the output had.
        total: rows of the input that are meant; None if unknown.
        command: what was typed; empty where it cannot be gone on.
        spent_before: USD of earlier runs.
    """

    runner: Runner
    before: Found
    total: int | None
    sink: Sink
    command: str = ""
    spent_before: Decimal = Decimal(0)

    @property
    def answered(self) -> int:
        """Rows with an answer, earlier runs included."""
        return self.before.ok + self.runner.snapshot.answered

    @property
    def failed(self) -> int:
        """Rows that failed, earlier runs included; what was called off is left."""
        seen = self.runner.snapshot
        return len(self.before.done) - self.before.ok + seen.failed - seen.called_off

    @property
    def stopped(self) -> str:
        """Why it ended before its time; empty where every row is answered, also if the last ones came in after that."""
        if self.sink.problem:
            return FULL
        is_whole = self.total is not None and self.answered >= self.total
        return "" if is_whole else self.runner.stopped

    @property
    def left(self) -> int | None:
        """Rows without a line; None if unknown."""
        if not self.stopped:
            return 0
        return None if self.total is None else max(0, self.total - self.answered - self.failed)

    @property
    def code(self) -> int:
        """The exit code."""
        if self.stopped:
            return INTERRUPTED_CODE if self.stopped == INTERRUPTED else STOPPED
        return FAILED if self.failed else 0

    def show(self, wanted: Wanted) -> int:
        """Show it, write it where it was asked for; the exit code."""
        record = self._record(wanted)
        if wanted.as_json and wanted.output != "-":
            show_json(record)
        elif wanted.as_json:
            show(json.dumps(record, ensure_ascii=False, default=float), err=True)
        else:
            self._tell(wanted)
        return self._summarise(wanted.summary, record) or self.code

    def _summarise(self, path: str | None, record: dict[str, Any]) -> int:
        """Write the summary; an exit code where only that went wrong."""
        try:
            if path is not None:
                put(Path(path), [json.dumps(record, indent=2, ensure_ascii=False, default=float).encode(), b"\n"])
        except OSError as error:
            show(f"holyroute: {path}: cannot be written: {error.strerror or error}", err=True)
            return self.code or FAILED
        return 0

    def _tell(self, wanted: Wanted) -> None:
        seen, err = self.runner.snapshot, wanted.output == "-"
        left = f", {self.left:,} left" if self.left else ""
        show(f"{self.answered:,} answered, {self.failed:,} failed{left}", style="bold", err=err)
        models = [f"{name}: {count:,}" for name, count in largest(seen.models)]
        if models:
            show(f"answered by {', '.join(models)}", err=err)
        causes = [f"{cause}: {count:,}" for cause, count in largest(seen.failures)]
        if causes:
            show(f"failed: {', '.join(causes)}", err=err)
        if seen.called_off:
            show(f"called off: {seen.called_off:,}", err=err)
        earlier = f", {usd(self.spent_before)} USD before" if self.spent_before else ""
        show(f"{usd(seen.spent)} USD, {duration(seen.seconds)}{earlier}", err=err)
        for line in self._ending():
            console(err=True).print(line)  # as it is: somebody may copy it

    def _ending(self) -> list[str]:
        """Why it stopped, and how to go on."""
        sink, stopped = self.sink, self.stopped
        lines = []
        if stopped:
            lines.append(f"stopped: {sink.problem or _WHY.get(stopped, stopped)}")
        if sink.rescued:
            lines.append("what came in afterwards is in another file; when there is room again, put it back first:")
            lines.append(f"cat {quote(sink.rescued)} >> {quote(str(sink.path))}")
        if sink.lost:
            lines.append(f"{sink.lost:,} answers that came in afterwards could be written nowhere")
        if lines and self.command:
            lines.append(f"go on with: {self._resume}")
        return lines

    @property
    def _resume(self) -> str:
        """What was typed, and that failed rows are asked again where that may help."""
        later = any(Cause(cause).may_pass_later for cause in self.runner.snapshot.failures)
        wants = self.command and (later or self.before.later) and "--retry-failed" not in self.command.split()
        return f"{self.command} --retry-failed" if wants else self.command

    def _record(self, wanted: Wanted) -> dict[str, Any]:
        seen = self.runner.snapshot
        return {
            "output": wanted.output,
            "answered": self.answered,
            "failed": self.failed,
            "left": self.left,
            "earlier": len(self.before.done),
            "stopped": self.stopped or None,
            "spent_usd": seen.spent,
            "spent_before_usd": self.spent_before,
            "seconds": round(seen.seconds, 3),
            "models": dict(seen.models),
            "causes": seen.failures,
            "called_off": seen.called_off,
            "exit_code": self.code,
            "resume": self._resume if self.code in {STOPPED, INTERRUPTED_CODE} else None,
        }


def announce(wanted: Wanted, source: Source, spec: Spec, router: Router) -> None:
    """Show what a batch will take: what is left of it, if an output is there."""
    found = _found(wanted, source, spec)
    usual = round(found.completion_tokens / found.ok) if found.ok else None
    estimator = Estimator(router, usual)
    for row in wanted.rows(source, spec):
        if row.index not in found.done:
            estimator.add(row)
    total = estimator.total
    pacing = pace(total, router, wanted.workers)
    if wanted.as_json:
        record = {name: getattr(total, name) for name in ("rows", "broken", "prompt_tokens", "completion_tokens")}
        record |= {"done": len(found.done), "low_usd": total.low, "expected_usd": total.expected}
        record |= {"worst_usd": total.worst, "unbounded_rows": total.unbounded, "seconds": round(pacing.seconds, 1)}
        show_json({**record, "held_up_by": pacing.because, "unpriced": dict(total.unpriced)})
        return
    _show_estimate(total, len(found.done), usual)
    show(f"time: at least {duration(pacing.seconds)} ({pacing.because})")


def _show_estimate(total: Estimate, done: int, usual: int | None) -> None:
    behind = f", {total.broken:,} more cannot be asked" if total.broken else ""
    ahead = f", {done:,} are done already" if done else ""
    show(f"{total.rows:,} rows to ask{behind}{ahead}", style="bold")
    shares = [[target.name, f"{share.rows:,}", f"{share.tokens:,}"] for target, share in total.shares.items()]
    if shares:
        show_table(["first choice", "rows", "tokens"], shares)
    show(f"tokens: {total.prompt_tokens:,} in, {total.completion_tokens:,} out expected")
    show(f"USD: {usd(total.low)} low, {usd(total.expected)} expected, {usd(total.worst)} at most")
    seen = f"{usual:,} tokens as those that are there" if usual else "500 tokens, or as --max-tokens says"
    show(
        f"expected: each row by its first choice, answers of {seen}; low: a tenth of that, cheapest model", style="dim"
    )
    if total.unbounded:
        show(f"at most {UNKNOWN}: {total.unbounded:,} rows have no bound; --max-tokens sets one where prices are known")
    for name, count in total.unpriced.most_common():
        show(f"{name}: no price is configured ({count:,} rows may go there)")


def _found(wanted: Wanted, source: Source, spec: Spec) -> Found:
    if wanted.output in {None, "-"} or wanted.overwrite:
        return Found()
    was = metas.read(wanted.journal)
    if was is None or not wanted.journal.exists() or was.differences(wanted.meta(spec, source.survey())):
        return Found()
    return scan(wanted.journal)
