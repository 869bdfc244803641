"""The group of all commands, and how a command may end: 0 done, 1 failed or lost something, 2 not asked properly."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click
import requests

from holyroute._version import __version__
from holyroute.cli.ask import ask
from holyroute.cli.batch import batch
from holyroute.cli.batch_merge import batch_merge
from holyroute.cli.bench import bench
from holyroute.cli.config import config
from holyroute.cli.demo import demo
from holyroute.cli.health import health
from holyroute.cli.models import models
from holyroute.cli.output import Failure, Misuse
from holyroute.cli.queue import queue
from holyroute.cli.run import run
from holyroute.cli.simulate import simulate
from holyroute.exceptions import ConfigurationError, HolyRouteError

INTERRUPTED = 130  # Ctrl-C, or nobody reads on: what a shell reports for SIGINT


class Commands(click.Group):
    """Shows our own errors as one message, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that the context names."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except (KeyboardInterrupt, BrokenPipeError):
            ctx.exit(INTERRUPTED)
        except ConfigurationError as error:
            raise Misuse(str(error)) from error
        except HolyRouteError as error:
            raise Failure(str(error)) from error
        return result


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__,
    prog_name="holyroute",
    message=f"%(prog)s %(version)s (requests {requests.__version__}, Python {sys.version.split()[0]})",  # type: ignore[attr-defined]
)
def app() -> None:
    """Chat completions that survive outages, cost less and tell what happened.

    Exit codes: 0 done; 1 failed, or something was lost; 2 wrong usage or configuration; 130 interrupted.
    """


for command in (ask, batch, batch_merge, bench, config, demo, health, models, queue, run, simulate):
    app.add_command(command)


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an answer may hold what the terminal's encoding cannot show
    try:
        app(prog_name="holyroute")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            os._exit(INTERRUPTED)  # not waiting for threads that may be reading an answer for another two minutes
        raise
    except OSError as error:  # a full disk under the output
        sys.stderr.write(f"holyroute: {error.strerror or error}\n")
        os._exit(1)  # nor trying to write the rest once more
