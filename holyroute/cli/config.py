"""`holyroute config`: write, check and show the settings."""

from __future__ import annotations

import os
from pathlib import Path

import click

from holyroute.cli.output import Misuse, has_key, show

_path = click.argument("path", required=False)


@click.group()
def config() -> None:
    """Write, check or show the settings."""


@config.command()
@click.argument("path", default="holyroute.toml")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(path: str, *, force: bool) -> None:
    """Write a commented file to start from; ./holyroute.toml unless PATH is given."""
    from holyroute.config.dump import template

    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    file = Path(path).expanduser()
    try:
        with os.fdopen(os.open(file, flags, 0o600), "w", encoding="utf-8") as stream:
            os.fchmod(stream.fileno(), 0o600)  # a file that was there keeps its own mode otherwise
            stream.write(template())
    except FileExistsError:
        raise Misuse(f"{path}: is there already; --force overwrites it") from None
    except OSError as error:
        raise Misuse(f"{path}: cannot be written: {error.strerror}") from None
    show(f"{path} written. Next: edit it, then check it with: holyroute config check {path}")


@config.command()
@_path
def check(path: str | None) -> None:
    """Say what is wrong with the settings; exit code 2 if anything is."""
    from holyroute.config.credentials import Keyring
    from holyroute.config.load import load

    found, keyring = load(path), Keyring()
    routes = sum(map(len, found.routes.values()))
    show(
        f"source: {found.source}",
        f"providers: {len(found.providers)}",
        f"models: {len(found.models)}",
        f"routes: {routes}",
        f"failover lists: {len(found.failover)}",
    )
    for provider in found.providers.values():
        if not has_key(provider, keyring):
            names = " or ".join(provider.api_key_env)
            show(f"warning: {names} is not set: {provider.name} cannot be asked", err=True)
    show("valid")


@config.command(name="show")
@_path
def show_settings(path: str | None) -> None:
    """Print the settings in effect as TOML; names of variables, never keys."""
    from holyroute.config.dump import dump
    from holyroute.config.load import load

    click.echo(dump(load(path)))
