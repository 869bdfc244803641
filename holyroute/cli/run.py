"""`holyroute run`: a program that knows nothing of holyroute, with its requests routed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from holyroute.cli.output import Failure

SITE = Path(__file__).parents[1] / "_site"
_SCRIPTS = (".py", ".pyw", ".pyz")


@click.command(short_help="Run a program, routed.", context_settings={"allow_interspersed_args": False})
@click.option(
    "--config",
    "path",
    metavar="FILE",
    help="Settings; by default HOLYROUTE_CONFIG or your own. ./holyroute.toml is not read.",
)
@click.option(
    "--failover-to",
    metavar="NAME",
    help="A configured model or provider that any call which fails may go to, wherever the program sent it.",
)
@click.option("-m", "as_module", is_flag=True, help="Run a Python module, as python -m does.")
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def run(path: str | None, failover_to: str | None, program: tuple[str, ...], *, as_module: bool) -> None:
    """Run a script.py, a module or any command with its arguments.

    Chat completions that it and its Python children send with requests survive an outage; nothing else changes. Exit
    code, signals, input and output are the program's own. HOLYROUTE_DISABLED=1 switches it off.
    """
    from holyroute.config.credentials import is_disabled
    from holyroute.config.find import FILE_NAME, VARIABLE
    from holyroute.config.handover import environment
    from holyroute.config.load import load

    env = environment(SITE, path, failover_to)
    if not is_disabled():
        if Path(FILE_NAME).is_file() and not env.get(VARIABLE):  # `config check` and the other doors read it
            click.echo(f"holyroute: ./{FILE_NAME} is not read; if it is yours: --config {FILE_NAME}", err=True)
        load(env=env)  # what is wrong with the settings is said now, not in the middle of the program
    if as_module:
        program = (sys.executable, "-m", *program)
    elif program[0].endswith(_SCRIPTS):
        program = (sys.executable, *program)
    _become(program, env)


def _become(program: tuple[str, ...], env: dict[str, str]) -> None:
    """Be the program from here on: same process, same terminal, its own exit code."""
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and a program would inherit that
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvpe(program[0], program, env)  # noqa: S606 - to run what the user names is the purpose
    except FileNotFoundError:
        raise _NotFound(f"{program[0]}: command not found") from None
    except OSError as error:
        raise _NotExecutable(f"{program[0]}: {error.strerror}") from None


class _NotExecutable(Failure):  # the exit codes of a shell
    exit_code = 126


class _NotFound(Failure):
    exit_code = 127
