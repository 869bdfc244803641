"""The command itself: what it loads, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from holyroute._version import __version__
from holyroute.cli.app import Commands, app
from holyroute.cli.output import table
from holyroute.exceptions import AllTargetsFailed, ConfigurationError

ROWS = [["gpt-4.1", "holysheep", "8.00"], ["a-model-with-a-long-name", "p", "10.00"]]


def python(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=15, check=False)


def test_the_package_does_not_need_the_command_line() -> None:
    """`import holyroute` loads neither click nor rich."""
    result = python("-c", "import sys, holyroute; sys.exit(bool({'click', 'rich'} & set(sys.modules)))")

    assert result.returncode == 0


def test_help_is_light() -> None:
    """Showing help loads no engine, no simulator, no rich."""
    code = (
        "import sys\n"
        "from holyroute.cli.app import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "heavy = {'rich', 'holyroute.client', 'holyroute.engine.router', 'holyroute.simulator'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))\n"
    )
    result = python("-c", code)

    assert result.returncode == 0
    assert "simulate" in result.stdout


def test_version() -> None:
    """The version of holyroute, and of what it stands on."""
    result = python("-m", "holyroute", "--version")

    assert result.returncode == 0
    assert result.stdout.startswith(f"holyroute {__version__} (requests ")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """A broken pipe ends the command quietly, with the code of an interrupt."""
    process = subprocess.Popen(
        [sys.executable, "-m", "holyroute", "config", "show"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        told = stderr.read()

    assert process.wait(timeout=15) == 128 + signal.SIGINT
    assert not told


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigurationError("time: expected a table"), 2, "holyroute: time: expected a table\n"),
        (AllTargetsFailed("nobody\nat all"), 1, "holyroute: nobody\n  at all\n"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 130, ""),
    ],
)
def test_errors_of_ours_are_one_message(error: BaseException, code: int, told: str) -> None:
    """Errors become one message on stderr and an exit code that cron can use; an interrupt says nothing."""

    @click.group(cls=Commands)
    def group() -> None: ...

    @group.command()
    def fail() -> None:
        raise error

    result = CliRunner().invoke(group, ["fail"])

    assert result.exit_code == code
    assert result.stderr == told
    assert not result.stdout


def test_every_command_explains_itself() -> None:
    """Each command has a help text whose summary fits one line of 80 columns."""
    overview = CliRunner().invoke(app, ["--help"]).stdout

    assert "..." not in overview.partition("Commands:")[2]
    for name in app.commands:
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_a_table_is_aligned() -> None:
    """Text starts at the left, figures end at the right."""
    assert table(["model", "provider", "in"], ROWS, left=2) == [
        "model                     provider      in",
        "gpt-4.1                   holysheep   8.00",
        "a-model-with-a-long-name  p          10.00",
    ]


def test_a_table_too_wide_gives_its_first_column_lines_of_their_own() -> None:
    """Where the terminal is narrow, nothing is cut."""
    assert table(["model", "provider", "in"], ROWS, left=2, width=30) == [
        "  provider      in",
        "gpt-4.1",
        "  holysheep   8.00",
        "a-model-with-a-long-name",
        "  p          10.00",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    """No rows are no error."""
    assert table(["model", "in"], []) == ["model  in"]
