"""`holyroute models`: who can be asked, at what price, and by which routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from holyroute.cli.output import (
    NONE,
    UNKNOWN,
    config_option,
    has_key,
    json_option,
    key_names,
    show,
    show_json,
    show_table,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.config.credentials import Keyring
    from holyroute.config.schema import Config
    from holyroute.core.target import Route, Target


@click.command(short_help="Show models, prices, keys and routes.")
@click.option("--routes", "with_routes", is_flag=True, help="Show which models each task and priority asks.")
@json_option
@config_option
def models(path: str | None, *, with_routes: bool, as_json: bool) -> None:
    """Show the configured models, and whether their keys are there."""
    from holyroute.config.credentials import Keyring
    from holyroute.config.load import load

    config, keyring = load(path), Keyring()
    if as_json:
        show_json(_record(config, keyring, with_routes=with_routes))
        return
    rows = [_row(target, keyring) for target in config.models.values()]
    show_table(["model", "provider", "in", "out", "class", "rpm", "tpm", "key"], rows, left=2)
    show("", "in, out: USD per million tokens; rpm, tpm: requests and tokens per minute", style="dim")
    providers = [[one.name, one.base_url, key_names(one, keyring)] for one in config.providers.values()]
    show("")
    show_table(["provider", "base URL", "key"], providers, left=3)
    if with_routes:
        _show_routes(config)


def _show_routes(config: Config) -> None:
    show("")
    show("routes, first choice first", style="bold")
    for route in _routes(config):
        show(f"{route.task}/{route.priority}", *(f"  {line}" for line in wrapped(", ".join(route.targets))))


def _routes(config: Config) -> Iterator[Route]:
    return (route for priorities in config.routes.values() for route in priorities.values())


def _row(target: Target, keyring: Keyring) -> list[str]:
    price = target.price
    prices = [f"{price.input:f}", f"{price.output:f}"] if price else [UNKNOWN, UNKNOWN]
    key = NONE if not target.provider.api_key_env else "yes" if has_key(target.provider, keyring) else "no"
    limits = [_short(target.rpm), _short(target.tpm)]
    return [target.name, target.provider.name, *prices, target.latency, *limits, key]


def _short(limit: int | None) -> str:
    """A limit per minute: 500, 150k, 1M."""
    if limit is None:
        return NONE
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if limit % size == 0:
            return f"{limit // size}{letter}"
    return str(limit)


def _record(config: Config, keyring: Keyring, *, with_routes: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "source": config.source,
        "models": [_model_record(target, keyring) for target in config.models.values()],
    }
    if with_routes:
        record["routes"] = {f"{route.task}/{route.priority}": route.targets for route in _routes(config)}
    return record


def _model_record(target: Target, keyring: Keyring) -> dict[str, Any]:
    provider, price = target.provider, target.price
    return {
        "name": target.name,
        "model": target.model,
        "provider": provider.name,
        "base_url": provider.base_url,
        "price_input": price.input if price else None,
        "price_output": price.output if price else None,
        "latency": target.latency,
        "rpm": target.rpm,
        "tpm": target.tpm,
        "key_variables": provider.api_key_env,
        "key_present": has_key(provider, keyring),
    }
