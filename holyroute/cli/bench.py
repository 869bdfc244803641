"""`holyroute bench`: latency, availability and cost of configured models, measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holyroute.cli.output import (
    FAILED,
    Misuse,
    config_option,
    has_key,
    how_to_get_a_key,
    json_option,
    show,
)

if TYPE_CHECKING:
    from holyroute.cli.bench_report import Job
    from holyroute.cli.display import Display
    from holyroute.cli.tally import Tally
    from holyroute.client import Client
    from holyroute.config.schema import Config
    from holyroute.core.target import Target

PROMPT = "In one sentence: what does a circuit breaker do for a program that calls a service over the network?"
NEVER = 1_000_000_000
# What is measured is the model, not what holyroute makes of it: nothing is asked twice, no circuit opens.
PLAIN: dict[str, Any] = {
    "retry": {"sole_attempts": 1, "blip": False, "short_wait": 0},
    "limits": {"max_wait": 60},  # seconds: a request that has to wait for its turn is sent all the same
    "breaker": {"consecutive": NEVER, "consecutive_slow": NEVER, "minimum_calls": NEVER},
}


@click.command(short_help="Measure latency, availability and cost of models.")
@click.option(
    "--requests", "size", type=click.IntRange(1, 1_000_000), default=1_000, show_default=True, help="To each."
)
@click.option("--workers", type=click.IntRange(1, 256), default=50, show_default=True, help="Threads that send them.")
@click.option(
    "--model", "names", multiple=True, help="Measure this one (repeatable); default: all models of all routes."
)
@click.option("--max-tokens", type=click.IntRange(1), default=64, show_default=True, help="Length limit of an answer.")
@click.option("--prompt", default=PROMPT, help="What to ask; a number is put before it.")
@click.option("--yes", is_flag=True, help="Send requests that may cost money.")
@json_option
@config_option
def bench(  # noqa: PLR0913 - one parameter per option
    *,
    size: int,
    workers: int,
    names: tuple[str, ...],
    max_tokens: int,
    prompt: str,
    yes: bool,
    as_json: bool,
    path: str | None,
) -> None:
    """Send requests to each model, and show average, p95, availability and cost.

    The most that this can cost is shown first; beyond this machine it needs --yes.
    """
    from holyroute.cli.bench_report import Job, announce, report
    from holyroute.cli.tally import Tally
    from holyroute.client import Client
    from holyroute.config.load import load
    from holyroute.engine.router import Router

    config = load(path, **PLAIN)
    job = Job(size=size, workers=workers, prompt=prompt, max_tokens=max_tokens, targets=_targets(config, names))
    announce(job, err=as_json)
    _permit(job, yes=yes)
    tally = Tally()
    with Client(router=Router(config, observers=(tally,))) as client:
        job = _with_keys(job, client, chosen=bool(names))
        _measure(job, client, tally, err=as_json)
        report(job, tally, client.router.ledger, as_json=as_json)
    if not all(tally.answered[target.name] for target in job.targets):
        raise click.exceptions.Exit(FAILED)


def _targets(config: Config, names: tuple[str, ...]) -> tuple[Target, ...]:
    routes = (route for priorities in config.routes.values() for route in priorities.values())
    wanted = names or [model for route in routes for model in route.targets]
    for name in wanted:
        if name not in config.models:
            raise click.BadParameter(f"unknown model {name!r}; see holyroute models", param_hint="--model")
    return tuple(config.models[name] for name in dict.fromkeys(wanted))


def _permit(job: Job, *, yes: bool) -> None:
    if job.abroad and not yes:
        raise Misuse("these requests leave this machine and may cost that much; --yes sends them")


def _with_keys(job: Job, client: Client, *, chosen: bool) -> Job:
    """The job without the models that nobody can be asked for; a model that was named must be there."""
    from dataclasses import replace

    keyring = client.router.keyring
    able = tuple(target for target in job.targets if has_key(target.provider, keyring))
    without = [target for target in job.targets if target not in able]
    if not able or (chosen and without):
        raise Misuse(how_to_get_a_key([target.provider for target in without]))
    for target in without:
        show(f"{target.name}: left out, no key is there for {target.provider.name}", err=True)
    return replace(job, targets=able)


def _measure(job: Job, client: Client, tally: Tally, *, err: bool) -> None:
    """One model after the other, so that none has to share the line."""
    from holyroute.cli.display import Display

    with Display(job.size * len(job.targets), err=err) as display:
        for target in job.targets:
            _ask_often(job, client, target, (display, tally))


def _ask_often(job: Job, client: Client, target: Target, watch: tuple[Display, Tally]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from holyroute.cli.waiting import as_completed

    def ask(number: int) -> None:
        client.ask(job.question(number), models=[target.name], max_tokens=job.max_tokens, on_failure="return")

    display, tally = watch
    pool = ThreadPoolExecutor(job.workers)
    try:
        for future in as_completed([pool.submit(ask, number) for number in range(job.size)]):
            future.result()
            display.advance(target.name, f"{len(tally.answered[target.name]):,} answered")
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # after Ctrl-C nobody waits for the answers under way
