"""`holyroute queue`: calls that nobody could answer yet, and what becomes of them."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from holyroute.cli.draining import drained, load_handlers
from holyroute.cli.output import NONE, Failure, config_option, json_option, show, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.client import Client
    from holyroute.deferred.queue import Item

_PROMPT = 40  # characters that a table shows


@click.group(short_help="Look after parked calls.")
def queue() -> None:
    """Look after the calls that nobody could answer: they wait here until somebody can."""


@contextmanager
def _opened(path: str | None, file: str | None, *, or_empty: bool = True) -> Iterator[Client]:
    """A client with the queue; whoever only looks makes no file, and sees an empty queue where there is none."""
    from holyroute.client import Client

    with Client(path, queue=True if file is None else file) as client:
        if client.queue.exists():
            yield client
            return
        if not or_empty:
            raise Failure(f"{client.queue.name}: no queue is there")
        show(f"holyroute: {client.queue.name}: no queue is there yet", err=True)
    with Client(path, queue=":memory:") as client:
        yield client


file_option = click.option("--file", metavar="FILE", help="The queue; by default the configured one, or your own.")


def _command(name: str, short_help: str) -> Callable[..., Any]:
    """A command of the group with the options that all of them have."""

    def decorate(function: Callable[..., None]) -> Any:
        for option in (config_option, file_option, json_option):
            function = option(function)
        return queue.command(name, short_help=short_help)(function)

    return decorate


limit_option = click.option("--limit", type=click.IntRange(min=1), default=100, help="How many at most.")
ids_argument = click.argument("ids", nargs=-1)
all_option = click.option("--all", "everything", is_flag=True, help="All of them.")


@_command("list", "Show the calls that wait.")
@limit_option
def list_waiting(path: str | None, file: str | None, *, as_json: bool, limit: int) -> None:
    """Show the calls that wait or are being replayed, the next one first."""
    with _opened(path, file) as client:
        stats = client.queue.stats()
        _show_items(client.queue.waiting(limit), stats.ready + stats.leased, as_json=as_json)


@_command("dead", "Show the calls that were given up.")
@limit_option
def dead(path: str | None, file: str | None, *, as_json: bool, limit: int) -> None:
    """Show the calls that were given up, the latest first, each with the cause."""
    with _opened(path, file) as client:
        _show_items(client.queue.dead(limit), client.queue.stats().dead, as_json=as_json)


@_command("show", "Show one call, and its answer.")
@click.argument("ticket")
def show_one(path: str | None, file: str | None, *, as_json: bool, ticket: str) -> None:
    """Show the call behind a TICKET, with its answer once it is there."""
    with _opened(path, file) as client:
        item = client.queue.get(ticket)
    record = _record(item)
    if as_json:
        show_json(record)
        return
    for name, value in record.items():
        if value is not None:
            click.echo(
                f"{name}: {_harmless(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
            )


@_command("retry", "Try waiting calls as soon as possible.")
@ids_argument
@all_option
def retry(path: str | None, file: str | None, *, as_json: bool, ids: tuple[str, ...], everything: bool) -> None:
    """Let waiting calls (IDS, or --all) be due now; whoever replays the queue takes them next."""
    chosen = _chosen(ids, everything=everything)
    with _opened(path, file) as client:
        _tell("due now", client.queue.hasten(chosen), chosen, as_json=as_json)


@_command("requeue", "Let dead calls wait again.")
@ids_argument
@all_option
def requeue(path: str | None, file: str | None, *, as_json: bool, ids: tuple[str, ...], everything: bool) -> None:
    """Let calls that were given up (IDS, or --all) wait again, with fresh attempts and time."""
    chosen = _chosen(ids, everything=everything)
    with _opened(path, file) as client:
        _tell("requeued", client.queue.requeue(chosen), chosen, as_json=as_json)


@_command("purge", "Delete what is over.")
@click.option("--dead", "of_dead", is_flag=True, help="Dead calls instead of answers.")
@click.option("--older-than", type=click.FloatRange(min=0), metavar="SECONDS", help="Since it ended.")
def purge(path: str | None, file: str | None, *, as_json: bool, of_dead: bool, older_than: float | None) -> None:
    """Delete answers that have been kept for long enough, or with --dead the calls that were given up."""
    with _opened(path, file) as client:
        _tell("deleted", client.queue.purge(older_than, dead=of_dead), None, as_json=as_json)


@_command("stats", "Count.")
def stats(path: str | None, file: str | None, *, as_json: bool) -> None:
    """Count the calls in each state."""
    with _opened(path, file) as client:
        found = client.queue.stats()
    if as_json:
        show_json(asdict(found))
        return
    figures = {
        "waiting": found.ready,
        "leased": found.leased,
        "answered": found.done,
        "dead": found.dead,
        "bytes": found.size,
    }
    rows = [[name, str(value)] for name, value in figures.items()]
    show_table(["what", "how many"], [*rows, ["next", _when(found.next_at)]])


@_command("check", "Read everything, checksums included.")
def check(path: str | None, file: str | None, *, as_json: bool) -> None:
    """Read the whole queue; exit code 1 if anything is damaged."""
    with _opened(path, file, or_empty=False) as client:
        problems = client.queue.check()
    if as_json:
        show_json({"problems": problems})
    elif not problems:
        show("nothing is damaged")
    if problems:
        raise Failure("\n".join(problems))


@_command("repair", "Salvage what a damaged queue holds.")
def repair(path: str | None, file: str | None, *, as_json: bool) -> None:
    """Salvage what can be read into a new file; the damaged one stays beside it."""
    with _opened(path, file, or_empty=False) as client:
        found = client.queue.repair()
    if as_json:
        show_json(asdict(found))
    else:
        kept = f"; the file as it was: {found.kept}" if found.kept else ""
        show(f"recovered {found.recovered}, damaged {found.damaged}{kept}")


@_command("drain", "Replay the calls that wait.")
@click.option("--until-empty", is_flag=True, help="Wait for those that are not due, and for providers that are down.")
@click.option(
    "--handlers",
    "modules",
    metavar="MODULE",
    multiple=True,
    help="Import a module that registers handlers, @holyroute.handler(NAME); may be given again.",
)
def drain(path: str | None, file: str | None, *, as_json: bool, until_empty: bool, modules: tuple[str, ...]) -> None:
    """Replay what is due and may be asked now, then end: for cron. Exit code 1: a call was given up, a handler failed.

    Several at once are fine. SIGTERM and Ctrl-C stop it: calls under way get ten seconds, then go back untried; a
    second signal calls them off at once. Answers are recorded, and then handed to the handler that a call names.
    """
    load_handlers(modules)
    with _opened(path, file) as client:
        progress, interrupted = drained(client.queue, until_empty=until_empty)
        waiting = client.queue.stats().ready
    if as_json:
        show_json({**asdict(progress), "waiting": waiting})
    else:
        unhandled = f", handlers failed {progress.unhandled}" if progress.unhandled else ""
        show(f"answered {progress.answered}, given up {progress.dead}{unhandled}, still waiting {waiting}")
        if progress.cause and (waiting or progress.dead):
            show(f"last cause: {_harmless(progress.cause)}")
    if interrupted:
        raise KeyboardInterrupt
    failures = []
    if progress.dead:
        failures.append(f"{progress.dead} calls were given up: see `holyroute queue dead`")
    if progress.unhandled:
        failures.append(f"{progress.unhandled} answers are recorded, but their handlers failed")
    if failures:
        raise Failure("\n".join(failures))


def _chosen(ids: tuple[str, ...], *, everything: bool) -> tuple[str, ...] | None:
    if bool(ids) is everything:
        raise click.UsageError("name tickets, or --all")
    return None if everything else ids


def _tell(what: str, count: int, chosen: tuple[str, ...] | None, *, as_json: bool) -> None:
    if as_json:
        show_json({"count": count})
    else:
        show(f"{what}: {count}")
    if chosen is not None and count < len(set(chosen)):
        raise Failure(f"{len(set(chosen)) - count} of the tickets are unknown, or not in that state")


def _show_items(items: list[Item], of: int, *, as_json: bool) -> None:
    if as_json:
        show_json([_record(item) for item in items])
        return
    rows = [
        [item.id, item.state, str(item.attempts), _when(item.created), _asked(item), _harmless(item.error or NONE)]
        for item in items
    ]
    show_table(["ticket", "state", "attempts", "parked", "asked", "cause"], rows, left=6)
    if len(items) < of:
        show(f"{len(items)} of {of}: --limit shows more")


def _harmless(text: str) -> str:
    """On one line, without what would steer a terminal: prompts and causes are other people's."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _asked(item: Item) -> str:
    """Whom it goes to, and how it begins."""
    if item.call is None:
        return NONE
    selection = item.call.selection
    who = item.call.model or ", ".join(selection.models or ()) or selection.task or "default route"
    messages = item.call.body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    text = _harmless(str(last.get("content") if isinstance(last, dict) else last))
    return f"{who}: {text if len(text) <= _PROMPT else text[:_PROMPT] + '…'}"


def _record(item: Item) -> dict[str, Any]:
    call = item.call
    return {
        "id": item.id,
        "key": item.key,
        "state": item.state,
        "attempts": item.attempts,
        "leases": item.leases,
        "created": _when(item.created),
        "not_before": _when(item.not_before),
        "expires": _when(item.expires),
        "finished": None if item.finished is None else _when(item.finished),
        "error": item.error,
        "model": call.model if call else None,
        "selection": asdict(call.selection) if call else None,
        "handler": call.handler if call else None,
        "metadata": dict(call.metadata) if call else None,
        "body": dict(call.body) if call else None,
        "result": item.result,
    }


def _when(at: float | None) -> str:
    """A time of day, in UTC."""
    return NONE if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"
