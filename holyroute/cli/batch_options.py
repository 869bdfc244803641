"""The options of `holyroute batch` as one record, and what follows from them alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from holyroute.batch.checkpoint import Wishes
from holyroute.batch.meta import Meta
from holyroute.batch.spec import Spec
from holyroute.batch.template import Template
from holyroute.core import codec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from decimal import Decimal

    from holyroute.batch.row import Row
    from holyroute.batch.source import Source, Survey

CSV = ".csv"
# What is said in another way, or by each row.
_NO_PARAMETERS = frozenset(
    ("format", "id", "messages", "model", "models", "priority", "stream", "system", "task", "template")
)


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
    def wishes(self) -> Wishes:
        """How an output that is there is to be treated."""
        return Wishes(
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
    if name in _NO_PARAMETERS:
        raise click.BadParameter(f"{name} is no parameter for all rows", param_hint="--param")
    try:
        return name, codec.loads(value, strict=True)
    except ValueError:
        return name, value  # a word needs no quotes
