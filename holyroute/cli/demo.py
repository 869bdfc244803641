"""`holyroute demo`: an outage on this machine, and nobody notices."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from holyroute.cli.output import FAILED, Failure, Misuse, json_option, show

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from holyroute.cli.display import Display
    from holyroute.cli.stage import Stage
    from holyroute.cli.tally import Tally
    from holyroute.client import Client
    from holyroute.monitoring.dashboard.server import DashboardServer


@dataclass
class Play:
    """What became of the calls.

    Attributes:
        size: requests to be sent.
        workers: threads that send them.
        answers: answered requests, per model.
        lost: requests without an answer, or with somebody else's.
    """

    size: int
    workers: int
    answers: Counter[str] = field(default_factory=Counter)
    lost: int = 0


@click.command(short_help="Watch 1,000 requests survive an outage; needs no key.")
@click.option("--requests", "size", type=click.IntRange(3, 100_000), default=1_000, show_default=True)
@click.option("--workers", type=click.IntRange(1, 256), default=50, show_default=True, help="Threads that send them.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the simulated latencies and errors.")
@click.option(
    "--speed",
    type=click.FloatRange(0.1, 1_000),
    default=2.0,
    show_default=True,
    help="How many times faster than published the models answer.",
)
@click.option("--dashboard", is_flag=True, help="Serve a page on this machine that shows what happens.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Of the page; by default any free one.")
@json_option
def demo(  # noqa: PLR0913 - one parameter per option
    *, size: int, workers: int, seed: int, speed: float, dashboard: bool, port: int | None, as_json: bool
) -> None:
    """Send requests through an outage: first the preferred model fails, then its whole gateway disappears.

    Needs no key and no network: three simulated gateways run in this process. With --dashboard the page stays until
    Ctrl-C, on a terminal.
    """
    from holyroute.cli.demo_report import Report
    from holyroute.cli.display import Display
    from holyroute.cli.stage import Stage
    from holyroute.cli.tally import Tally
    from holyroute.core.clock import SYSTEM_CLOCK

    if port is not None and not dashboard:
        raise click.UsageError("--port is the port of the page: it needs --dashboard")
    _prepare()
    play, tally = Play(size, workers), Tally()
    began = SYSTEM_CLOCK.now()
    with Stage(seed=seed, speed=speed) as stage, stage.client(tally) as client, ExitStack() as pages:
        with Display(size, err=as_json) as display:
            if dashboard:
                display.say(f"dashboard: {pages.enter_context(_dashboard(client, port)).url}", style="bold")
            display.say(f"{size:,} requests, {workers} at a time, through 3 simulated gateways at {speed:g}x speed")
            _perform(play, stage, client, (display, tally))
        report = Report(play, tally, client, stage.bill, SYSTEM_CLOCK.now() - began)
        report.show(as_json=as_json)
        if dashboard:
            _linger()
    if not report.is_good:
        raise click.exceptions.Exit(FAILED)


def _dashboard(client: Client, port: int | None) -> DashboardServer:
    from holyroute.monitoring.dashboard.server import DashboardServer

    try:
        return DashboardServer(client.health, port or 0)
    except OSError as error:
        raise Failure(f"port {port}: {error.strerror}; --port chooses another") from None


def _linger() -> None:
    """Until Ctrl-C, so that there is time to look; where nobody sits at a terminal, not at all."""
    import sys
    import threading
    from contextlib import suppress

    from holyroute.cli.waiting import wait

    if sys.stdout.isatty():
        show("", "The dashboard stays; Ctrl-C ends it.", err=True)
        with suppress(KeyboardInterrupt):
            wait(threading.Event())


def _prepare() -> None:
    import logging

    from holyroute.config.credentials import is_disabled

    if is_disabled():
        raise Misuse("HOLYROUTE_DISABLED switches off what the demo is about; unset it and try again")
    logging.getLogger("holyroute").addHandler(logging.NullHandler())  # warnings would tear the display


def _perform(play: Play, stage: Stage, client: Client, watch: tuple[Display, Tally]) -> None:
    """Send everything; after each third of the answers the next thing breaks."""
    from concurrent.futures import ThreadPoolExecutor

    from holyroute.cli.waiting import as_completed

    display, tally = watch
    scenes = _scenes(play.size, stage)
    pool = ThreadPoolExecutor(play.workers)
    try:
        futures = [pool.submit(_question, client, number) for number in range(play.size)]
        for done, future in enumerate(as_completed(futures)):
            if done in scenes:
                _change(display, play, done, scenes[done])
            who = _note(play, future)
            display.advance(f"{who} answers", f"failovers: {tally.failovers:,}, circuit openings: {tally.openings}")
        _change(display, play, play.size, None)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stage.unplug()
        raise
    finally:
        pool.shutdown()


Scene = tuple[str, "Callable[[], None] | None"]


def _scenes(size: int, stage: Stage) -> dict[int, Scene]:
    """What happens after how many answers."""
    from holyroute.cli.stage import FIRST_GATEWAY, FIRST_MODEL

    return {
        0: ("all is well", None),
        size // 3: (f"{FIRST_MODEL} answers 503", stage.break_model),
        2 * size // 3: (f"{FIRST_GATEWAY} no longer resolves", stage.lose_gateway),
    }


def _change(display: Display, play: Play, done: int, scene: Scene | None) -> None:
    """End a scene with who answered in it, and begin the next."""
    if play.answers:
        display.say("  answered by " + ", ".join(f"{model}: {count}" for model, count in play.answers.most_common()))
    play.answers.clear()
    if scene is not None:
        title, happen = scene
        if happen is not None:
            happen()
        display.say(f"after {done:,} requests: {title}" if done else title, style="bold")


def _note(play: Play, future: Future[str | None]) -> str:
    """Count a call that is over; returns who answered."""
    model = future.result()
    if model is None:
        play.lost += 1
        return "nobody"
    play.answers[model] += 1
    return model


def _question(client: Client, number: int) -> str | None:
    """Ask a question of its own; returns who answered, None if nobody did or the answer belongs to another question."""
    prompt = f"Question {number}: which river carries the most water after a rain of {number} hours, and why? " * 3
    completion = client.ask(prompt, on_failure="return")
    own = completion.content.startswith(f"Answer to: {prompt[:80]}")
    return completion.model if completion.success and own else None
