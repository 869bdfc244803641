"""`holyroute simulate`: a provider with faults, in the foreground."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from holyroute.cli.output import Failure, seconds, show, show_exactly, show_table, usd, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holyroute.simulator import Profile, Simulator

EVERY_MODEL = "*"


@click.command(short_help="Run a provider with faults on this machine.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8099, show_default=True, help="0: any free one.")
@click.option("--speed", type=click.FloatRange(0.01, 10_000), default=1.0, show_default=True, help="2: twice as fast.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of latencies and errors.")
@click.option("--key", "keys", multiple=True, help="Accept only this key (repeatable); by default no key is needed.")
@click.option(
    "--fault", "wanted", multiple=True, metavar="MODEL=FAULT", help='Answer so; MODEL may be "*" (repeatable).'
)
@click.option("--availability", type=click.FloatRange(0, 1), help="Share of calls that are answered, for all models.")
@click.option("--list-faults", is_flag=True, help="Show the names of all faults, and end.")
def simulate(  # noqa: PLR0913 - one parameter per option
    *,
    port: int,
    speed: float,
    seed: int,
    keys: tuple[str, ...],
    wanted: tuple[str, ...],
    availability: float | None,
    list_faults: bool,
) -> None:
    """Run an OpenAI-compatible provider on 127.0.0.1 until Ctrl-C, with the models of the published benchmark."""
    from holyroute.simulator import Simulator, benchmark_profiles

    if list_faults:
        _show_faults()
        return
    profiles = benchmark_profiles()
    if availability is not None:
        profiles = {name: replace(profile, availability=availability) for name, profile in profiles.items()}
    provider = Simulator(profiles, port=port, seed=seed, time_scale=1 / speed, api_keys=keys or None, keep=0)
    for text in wanted:
        _plan(provider, text, profiles)
    try:
        provider.start()
    except OSError as error:
        raise Failure(f"port {port}: {error.strerror}; --port chooses another") from None
    _serve(provider, profiles)


def _plan(provider: Simulator, text: str, models: Iterable[str]) -> None:
    model, equals, fault = text.partition("=")
    if not equals:
        raise click.BadParameter(f"expected MODEL=FAULT, got {text!r}", param_hint="--fault")
    if model not in {EVERY_MODEL, *models}:
        close = difflib.get_close_matches(model, list(models), 1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(models)}"
        raise click.BadParameter(f"unknown model {model!r}{hint}", param_hint="--fault")
    try:
        provider.always(model, fault)
    except ValueError as error:
        raise click.BadParameter(f"{error} (see --list-faults)", param_hint="--fault") from None


def _serve(provider: Simulator, profiles: dict[str, Profile]) -> None:
    """Wait for Ctrl-C or SIGTERM, then show what was asked."""
    import signal
    import threading

    from holyroute.cli.waiting import wait

    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    with provider:
        _introduce(provider, profiles)
        wait(end)
    _show_statistics(provider)  # now that whoever still waited is counted as a failure


def _introduce(provider: Simulator, profiles: dict[str, Profile]) -> None:
    url = provider.base_url
    key = ' -H "Authorization: Bearer $KEY"' if provider.api_keys else ""
    header = ', headers={"Authorization": f"Bearer {key}"}' if provider.api_keys else ""
    show(f"base URL: {url}", style="bold")
    show(*wrapped(f"models: {', '.join(profiles)}; sim:FAULT as a model's name selects a fault"))
    show_exactly(
        "",
        "shell:",
        f"  curl {url}/chat/completions \\",
        f"    -H 'Content-Type: application/json'{key} \\",
        """    -d '{"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]}'""",
        "",
        "Python:",
        "  import holyroute as requests",
        f'  requests.post("{url}/chat/completions"{header},',
        '      json={"model": "gpt-4.1", "messages": [{"role": "user", "content": "hello"}]})',
        "",
        "holyroute.toml, for the built-in models:",
        "  [providers.holysheep]",
        f'  base_url = "{url}"',
        *([] if provider.api_keys else ["  api_key_env = []"]),
        "",
        "Ctrl-C ends it.",
    )


def _show_statistics(provider: Simulator) -> None:
    rows = [
        [
            model,
            str(one.calls),
            str(one.calls - one.failures),
            seconds(one.average or None),
            seconds(one.p95 or None),
            f"{one.availability:.1%}",
            usd(one.bill),
        ]
        for model, one in provider.statistics().items()
    ]
    show("")
    if not rows:
        show("nobody asked")
        return
    show_table(["model", "calls", "answered", "average", "p95", "avail.", "USD"], rows)


def _show_faults() -> None:
    from holyroute.simulator import faults

    show(*wrapped(", ".join(faults.names())), "")
    show_exactly(
        "503                  any status; 429:2 asks to wait 2 s, 307:URL redirects",
        "late:2.5             an argument stands behind a colon: seconds, a number or a text",
        "once:503             a fault for the first request only; billed:reset bills it as well",
        "sim:late:2.5         as the name of a model: selects a fault without --fault",
    )
