"""What the documents show works as shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import holyroute
from holyroute.simulator import Simulator

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_in_the_readme_is_python(code: str) -> None:
    """Every block compiles, as it stands."""
    compile(code, "README.md", "exec")


def test_the_readmes_configuration_loads(tmp_path: Path) -> None:
    """The example file is one that holyroute accepts, and means what the text says."""
    path = tmp_path / "holyroute.toml"
    path.write_text(blocks("toml")[0])
    config = holyroute.load(path)

    assert config.failover["api.openai.com"].targets == ("gpt-4.1-mini@backup",)
    assert config.failover["api.openai.com"].owned


def test_the_alerts_of_the_monitoring_page_load(tmp_path: Path) -> None:
    """Its TOML example is one that holyroute accepts, its Python compiles."""
    page = (ROOT / "docs" / "monitoring.md").read_text()
    path = tmp_path / "holyroute.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    config = holyroute.load(path)
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        compile(code, "monitoring.md", "exec")

    assert config.alerts.rules["careful"].models == ("gpt-4.1",)
    assert config.alerts.webhooks.keys() == {"operations", "chat"}


def test_the_readme_is_short() -> None:
    """A reader gets through it."""
    assert len(README.splitlines()) <= 150


def test_the_readmes_commands_are_the_ones_that_ci_runs() -> None:
    """What a newcomer copies is what is checked."""
    commands = re.findall(r"^    .*pip install (.*)$", README, re.MULTILINE)
    ci = (ROOT / ".ci" / "run").read_text()

    assert commands == ["'.[cli]' && holyroute demo", "'.[test]' && pytest"]
    assert "pip install --quiet '.[test]' && pytest\n" in ci
    assert "holyroute demo" in ci


def test_every_command_is_documented() -> None:
    """The README names each command of the command line."""
    from holyroute.cli.app import app

    section = README.split("## Command line")[1].split("##")[0]

    assert {name for name in app.commands if name not in section} == set()


def test_the_thread_pool_example_loses_nothing() -> None:
    """It runs without a key, and every question is answered while the first model fails."""
    shown = run("thread_pool.py")

    assert "answered: 100 of 100" in shown


INSTALLING = "import holyroute, runpy, sys; holyroute.install(); runpy.run_path(sys.argv[1], run_name='__main__')"


@pytest.mark.parametrize("start", [["-m", "holyroute", "run"], ["-c", INSTALLING]], ids=["run", "install"])
def test_the_legacy_script_answers_through_an_outage(tmp_path: Path, start: list[str]) -> None:
    """Not a word of it changed; the owner's file says where its prompts may go."""
    with Simulator() as provider, Simulator() as backup:
        provider.always("gpt-4.1", 503)
        config = tmp_path / "holyroute.toml"
        config.write_text(
            f"""
            [providers.backup]
            base_url = "{backup.base_url}"
            [models.substitute]
            provider = "backup"
            [failover]
            "127.0.0.1:{provider.port}" = ["substitute"]
            """
        )
        url = provider.base_url + "/chat/completions"
        variables = {"CHAT_URL": url, "CHAT_KEY": "test-key-a", "HOLYROUTE_CONFIG": str(config)}
        shown = run("legacy_script.py", *start, **variables)
        asked = [one.model for one in (*provider.seen, *backup.seen)]

    assert "Say hello." in shown
    assert asked == ["gpt-4.1", "substitute"]


def run(example: str, *start: str, **environment: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, *start, ROOT / "examples" / example],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
    )

    assert done.returncode == 0, done.stderr
    return done.stdout
