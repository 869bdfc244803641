"""Going on with an output: what it has, whether it belongs to this input and this question, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Self

from holyroute.batch import meta as metas
from holyroute.batch.journal import Journal
from holyroute.batch.scan import Bitmap, Found, short
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from holyroute.batch.meta import Meta
    from holyroute.batch.row import Row
    from holyroute.core.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """How an output that is there already is to be treated; by default it is gone on with, if it matches."""

    must_resume: bool = False  # it has to be there
    overwrite: bool = False  # forget what it has
    repair: bool = False  # drop damaged lines
    retry_failed: bool = False  # ask again what may be answered by asking once more


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """An output that is ready to be gone on with. A context manager.

    Attributes:
        journal: where results go.
        meta: what stands beside it.
        before: what it had; rows that are to be asked again do not count.
    """

    journal: Journal
    meta: Meta
    before: Found

    @property
    def spent(self) -> Decimal:
        """USD spent by earlier runs, as far as known."""
        return self.before.spent + Decimal(self.meta.dropped_usd)

    def note(self, amount: Decimal) -> None:
        """USD that were spent, or may have been, without a line that says so: for the cap of later runs.

        Raises:
            OSError: it could not be written.
        """
        if amount > 0:
            metas.write(self.journal.path, replace(self.meta, dropped_usd=str(Decimal(self.meta.dropped_usd) + amount)))

    def left(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows that have no line yet.

        Raises:
            ConfigurationError: a row that has one asks for something else now.
        """
        return _left(rows, self.before.done, self.before.keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()


def begin(path: Path, meta: Meta, wishes: Wishes, clock: Clock) -> Checkpoint:
    """Open an output, and go on with what it has.

    Raises:
        ConfigurationError: it belongs to another input or question, is damaged, held by another run, or no output.
    """
    journal = Journal(path, clock)
    try:
        return _begun(journal, meta, wishes)
    except BaseException:
        journal.close()
        raise


def _begun(journal: Journal, meta: Meta, wishes: Wishes) -> Checkpoint:
    path = journal.path
    if wishes.overwrite:
        journal.clear()
    if journal.is_empty:
        if wishes.must_resume:
            raise ConfigurationError(f"{path}: nothing to resume; expected the output of an earlier run")
        metas.write(path, meta)
        return Checkpoint(journal=journal, meta=meta, before=Found())
    was = metas.read(path)
    if was is None:
        missing = metas.path_of(path).name
        raise ConfigurationError(
            f"{path}: is there, but not {missing}, so it is not known to be an output; expected another name, or "
            "--overwrite"
        )
    if changed := was.differences(meta):
        lines = "\n".join(changed)
        raise ConfigurationError(
            f"{path}: holds answers to something else; what is paid for stays there\n{lines}\n"
            "Undo the change, name another output, or start anew with --overwrite."
        )
    return _resumed(journal, was, meta, wishes)


def _resumed(journal: Journal, was: Meta, now: Meta, wishes: Wishes) -> Checkpoint:
    keys = was.input is None or now.input is None
    found = journal.scan(keys=keys)
    if found.bad and not wishes.repair:
        raise ConfigurationError(
            f"{journal.path}: damaged: {found.complaint}\n--repair drops these lines; their rows are asked again."
        )
    if found.bad or (wishes.retry_failed and found.later):
        before = found.spent
        journal.keep(lambda entry: not (wishes.retry_failed and entry.may_pass_later))
        found = journal.scan(keys=keys)
        was = replace(was, dropped_usd=str(Decimal(was.dropped_usd) + before - found.spent))
        metas.write(journal.path, was)
    return Checkpoint(journal=journal, meta=was, before=found)


def _left(rows: Iterable[Row], done: Bitmap, keys: array[int] | None) -> Iterator[Row]:
    for row in rows:
        if row.index not in done:
            yield row
        elif keys is not None and keys[row.index] != short(row.key):
            raise ConfigurationError(
                f"line {row.line}: is not the row that was answered here; the input has changed, so name another output"
            )
