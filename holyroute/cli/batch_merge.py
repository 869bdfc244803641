"""`holyroute batch-merge`: outputs put together, in the order of the input, in any shape."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from holyroute.cli.output import FAILED, Misuse, json_option, show, show_json
from holyroute.stores.place import put

if TYPE_CHECKING:
    from holyroute.batch.meta import Meta
    from holyroute.batch.printing import Ordered

_SHOWN = 10  # rows and lines that a message names


@click.command(short_help="Put outputs of batches together, in order, as JSON Lines, CSV or OpenAI's shape.")
@click.argument("parts", metavar="PART...", nargs=-1, required=True)
@click.argument("output", metavar="OUTPUT")
@click.option("--openai", is_flag=True, help="Write OUTPUT as OpenAI's Batch API does.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it is there.")
@json_option
def batch_merge(parts: tuple[str, ...], output: str, *, openai: bool, force: bool, as_json: bool) -> None:
    """Put the outputs PART... of `holyroute batch --shard` together into OUTPUT, in the order of the input.

    With one PART it puts that in order, or into another shape: CSV if OUTPUT ends in .csv. Exit code 1 if rows are
    missing, or lines are damaged.
    """
    from holyroute.batch import meta as metas
    from holyroute.batch.printing import Ordered, shaped

    target = Path(output)
    paths = [Path(part) for part in parts]
    _check(paths, target, force=force)
    merged = _merged_meta(paths)
    shape = "openai" if openai else "csv" if target.suffix.lower() == ".csv" else "jsonl"
    ordered = Ordered(paths)
    if merged is not None and shape == "jsonl":
        metas.write(target, merged)
    put(target, shaped(ordered, shape))
    total = merged.input.rows if merged is not None and merged.input is not None else 0
    if not _tell(ordered, total, as_json=as_json):
        raise click.exceptions.Exit(FAILED)


def _tell(ordered: Ordered, total: int, *, as_json: bool) -> bool:
    """Show what came of it; whether it is whole."""
    first = list(islice(ordered.missing(total), _SHOWN))
    missing = sum(1 for _ in ordered.missing(total))
    failed = ordered.rows - ordered.ok
    if as_json:
        counts = {"rows": ordered.rows, "answered": ordered.ok, "failed": failed}
        show_json({**counts, "missing": missing, "first_missing": first, "damaged": ordered.damaged})
    else:
        show(f"{ordered.rows:,} rows: {ordered.ok:,} answered, {failed:,} failed")
    if missing:
        show(f"{missing:,} rows are missing; the first by index: {', '.join(map(str, first))}", err=True)
    show(*ordered.damaged[:_SHOWN], err=True)
    return not missing and not ordered.damaged


def _check(paths: list[Path], target: Path, *, force: bool) -> None:
    for path in paths:
        if not path.is_file():
            raise Misuse(f"{path}: expected the output of a batch, got no file")
        if target.exists() and target.samefile(path):
            raise Misuse(f"{target}: is one of the parts; expected another name")
    if target.exists() and not force:
        raise Misuse(f"{target}: is there already; --force replaces it")


def _merged_meta(paths: list[Path]) -> Meta | None:
    """The meta file of all parts together; None where one has none.

    Raises:
        Misuse: the parts do not belong together.
    """
    from holyroute.batch import meta as metas

    known = {path: metas.read(path) for path in paths}
    for path, meta in known.items():
        if meta is None:
            show(f"{path}: nothing beside it ({metas.path_of(path).name}) tells of which input it is", err=True)
    whole = {path: replace(meta, shard="") for path, meta in known.items() if meta is not None}
    for path, meta in whole.items():
        first = next(iter(whole))
        if changed := whole[first].differences(meta):
            raise Misuse("\n".join([f"{path}: does not belong to {first}", *changed]))
    if None in known.values():
        return None
    dropped = sum((Decimal(meta.dropped_usd) for meta in whole.values()), Decimal(0))
    return replace(next(iter(whole.values())), dropped_usd=str(dropped))
