"""`holyroute queue`: what people and cron do with parked calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

import holyroute
from holyroute.cli.app import app
from holyroute.deferred import handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holyroute.simulator import Simulator

KEYS = {"KEY_A": "test-key-a"}
PROMPT = "What is the time?"
COMMAND = Path(sys.executable).with_name("holyroute")  # not `python -m`, which looks for modules in the working folder


@pytest.fixture
def cli(a: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs `holyroute queue …` on a file of its own."""
    monkeypatch.setenv("KEY_A", "test-key-a")
    config = tmp_path / "holyroute.toml"
    config.write_text(
        f'[providers.a]\nbase_url = "{a.base_url}"\napi_key_env = "KEY_A"\n[models.ma]\nprovider = "a"\n'
        f'[queue]\nenabled = true\npath = "{tmp_path}/q/queue.db"\n[retry]\nsole_attempts = 1\n'
    )

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["queue", *words, "--config", str(config)])

    run.config = config  # type: ignore[attr-defined]
    return run


def test_the_command_line_looks_after_the_queue(cli: Any) -> None:
    """List, show, drain, dead, requeue, purge, check, stats: tables for people, JSON for programs."""
    with holyroute.Client(cli.config) as client:
        ticket = client.submit(PROMPT, model="ma")
        listed = json.loads(cli("list", "--json").stdout)
        table = cli("list").stdout
        drained = json.loads(cli("drain", "--until-empty", "--json").stdout)
        shown = json.loads(cli("show", ticket.id, "--json").stdout)

    assert [item["id"] for item in listed] == [ticket.id]
    assert ticket.id in table
    assert f"ma: {PROMPT}" in table
    assert drained == {"answered": 1, "dead": 0, "postponed": 0, "lost": 0, "unhandled": 0, "cause": "", "waiting": 0}
    assert shown["result"]["content"] == f"Answer to: {PROMPT}"
    assert json.loads(cli("stats", "--json").stdout)["done"] == 1
    assert cli("check").exit_code == cli("repair").exit_code == 0
    assert "deleted: 1" in cli("purge", "--older-than", "0").stdout


def test_sigterm_stops_a_drain(a: Simulator, cli: Any) -> None:
    """It ends by itself with exit code 0, and what was not asked yet still waits."""
    a.always("*", "silent")
    with holyroute.Client(cli.config) as client:
        client.submit(PROMPT, model="ma")
        command = [sys.executable, "-m", "holyroute", "queue", "drain", "--until-empty", "--config", str(cli.config)]
        with subprocess.Popen(command, env={**os.environ, **KEYS}, stdout=subprocess.PIPE) as drain:
            assert a.wait_for(1)
            drain.terminate()
            drain.send_signal(signal.SIGTERM)
            a.heal()
            a.drop_connections()
            shown, _ = drain.communicate(timeout=15)
        stats = client.queue.stats()

        assert drain.returncode == 0
        assert b"still waiting 1" in shown
        assert (stats.ready, stats.leased) == (1, 0)


def test_exit_codes_tell_of_dead_letters(a: Simulator, cli: Any) -> None:
    """1 where a call was given up in this run, or a ticket is unknown; 2 where nobody said which; else 0."""
    a.always("*", 400)
    with holyroute.Client(cli.config) as client:
        ticket = client.submit(PROMPT, model="ma")
    codes = []
    for _ in range(5):
        codes.append(cli("drain").exit_code)
        cli("retry", "--all")

    assert codes == [0, 0, 0, 0, 1]
    assert ticket.id in cli("dead").stdout
    assert cli("requeue", ticket.id).exit_code == 0
    assert cli("requeue", "nobody").exit_code == cli("show", "nobody").exit_code == 1
    assert cli("retry").exit_code == 2


def test_a_second_signal_calls_off_what_is_under_way(a: Simulator, cli: Any) -> None:
    """Ctrl-C ends with 130, as everywhere, and with the summary; what hangs goes back untried."""
    a.always("*", "silent")
    with holyroute.Client(cli.config) as client:
        ticket = client.submit(PROMPT, model="ma")
        command = [COMMAND, "queue", "drain", "--config", cli.config]
        with subprocess.Popen(command, env={**os.environ, **KEYS}, stdout=subprocess.PIPE) as drain:
            assert a.wait_for(1)
            drain.send_signal(signal.SIGTERM)
            drain.send_signal(signal.SIGINT)
            shown, _ = drain.communicate(timeout=8)  # less than the grace after one
        item = client.queue.get(ticket.id)

        assert drain.returncode == 130
        assert shown == b"answered 0, given up 0, still waiting 1\n"
        assert (item.state, item.attempts) == ("ready", 0)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["list"], 0),
        (["dead"], 0),
        (["stats"], 0),
        (["drain", "--until-empty"], 0),
        (["purge"], 0),
        (["retry", "--all"], 0),
        (["requeue", "nobody"], 1),
        (["show", "nobody"], 1),
        (["check"], 1),
        (["repair"], 1),
    ],
)
def test_whoever_looks_makes_no_queue(cli: Any, tmp_path: Path, words: list[str], code: int) -> None:
    """A wrong name is told from an empty queue, and no file appears; cron may drain before anything was parked."""
    done = cli(*words, "--file", str(tmp_path / "typo" / "queue.db"))

    assert done.exit_code == code
    assert "typo/queue.db: no queue is there" in done.stderr
    assert not (tmp_path / "typo").exists()


def test_what_is_left_of_a_queue_is_no_empty_one(cli: Any, tmp_path: Path) -> None:
    """A journal without its file, a folder that is none: damage, not a queue that was never made."""
    (tmp_path / "gone.db-journal").touch()
    (tmp_path / "file").touch()
    gone = cli("list", "--file", str(tmp_path / "gone.db"))
    nowhere = cli("list", "--file", str(tmp_path / "file" / "queue.db"))

    assert gone.exit_code == nowhere.exit_code == 1
    assert "the file is gone, but its journal gone.db-journal is there" in gone.stderr
    assert "Not a directory" in nowhere.stderr


def test_a_drain_says_why_calls_still_wait(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key nobody can answer, and nothing is lost: the summary has the cause, for people and programs."""
    monkeypatch.delenv("KEY_A")
    with holyroute.Client(cli.config) as client:
        client.submit(PROMPT, model="ma")
    shown = cli("drain")
    cli("retry", "--all")
    told = json.loads(cli("drain", "--json").stdout)

    assert (shown.exit_code, shown.stdout.splitlines()) == (
        0,
        ["answered 0, given up 0, still waiting 1", "last cause: ma at a: not asked, no credential: set KEY_A"],
    )
    assert (told["waiting"], told["cause"]) == (1, "ma at a: not asked, no credential: set KEY_A")


def test_figures_fit_a_narrow_terminal(cli: Any) -> None:
    """One a line, each with its name."""
    with holyroute.Client(cli.config) as client:
        client.submit(PROMPT, model="ma")
    rows = [line.split() for line in cli("stats").stdout.splitlines()]

    assert rows[:3] == [["what", "how", "many"], ["waiting", "1"], ["leased", "0"]]
    assert [row[0] for row in rows[3:]] == ["answered", "dead", "bytes", "next"]


def test_other_peoples_text_does_not_steer_the_terminal(cli: Any) -> None:
    """Escape sequences of a prompt are not shown as such; JSON has them escaped."""
    with holyroute.Client(cli.config) as client:
        client.submit("\x1b[2J\x1b]0;title\x07 hi\r\nthere", model="ma")
    shown = cli("list")

    assert "ma: [2J ]0;title hi there" in shown.stdout
    assert shown.stdout.count("\n") == 2
    assert "\x1b" not in shown.stdout + cli("list", "--json").stdout


def test_a_list_says_that_it_is_not_all(cli: Any) -> None:
    """A hundred by default, or as many as wanted, of all there are."""
    with holyroute.Client(cli.config) as client:
        for number in range(3):
            client.submit(f"{number}", model="ma")
    some, everything = cli("list", "--limit", "2").stdout, cli("list").stdout

    assert some.splitlines()[-1] == "2 of 3: --limit shows more"
    assert "--limit" not in everything


# --- handlers ---------------------------------------------------------------------------------------------------------

TAKERS = """
import json, holyroute

@holyroute.handler("save")
def save(answer):
    with open("saved.jsonl", "a") as file:
        print(json.dumps([answer.id, answer.metadata, answer.result["content"]]), file=file)

@holyroute.handler("break")
def broken(answer):
    raise ValueError("no disk")
"""


def test_a_drain_hands_answers_to_a_modules_handlers(cli: Any, tmp_path: Path) -> None:
    """Found in the working folder; one that raises loses no answer, but says so by exit code 1."""
    (tmp_path / "takers.py").write_text(TAKERS)
    with holyroute.Client(cli.config) as client:
        saved = client.submit("save me", model="ma", handler="save", attach={"row": 17})
        broken = client.submit("break me", model="ma", handler="break")
        command = [COMMAND, "queue", "drain", "--handlers", "takers", "--config", cli.config]
        done = subprocess.run(
            command, env={**os.environ, **KEYS}, cwd=tmp_path, capture_output=True, text=True, timeout=15, check=False
        )
        answers = [ticket.result(0)["content"] for ticket in (saved, broken)]

    assert done.stdout == "answered 2, given up 0, handlers failed 1, still waiting 0\n"
    assert done.returncode == 1
    assert "1 answers are recorded, but their handlers failed" in done.stderr
    assert "ValueError: no disk" in done.stderr
    assert json.loads((tmp_path / "saved.jsonl").read_text()) == [saved.id, {"row": 17}, "Answer to: save me"]
    assert answers == ["Answer to: save me", "Answer to: break me"]


@pytest.fixture
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What modules of tests register and import is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(handlers, "OF_PROCESS", {})
    yield
    sys.modules.pop("taker", None)


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize(
    ("name", "text", "code", "said"),
    [
        ("nowhere", None, 2, "no module 'nowhere', neither in this folder nor installed"),
        ("nowhere.at.all", None, 2, "no module 'nowhere.at.all'"),
        ("taker.py", "", 2, "expected the name of a module, such as app.handlers, got 'taker.py'"),
        ("./taker", "", 2, "expected the name of a module"),
        ("", "", 2, "expected the name of a module"),
        ("taker", "", 2, "taker registers no handler; expected @holyroute.handler(NAME) in it"),
        ("taker", "\n1 / 0", 1, "taker cannot be imported: ZeroDivisionError: division by zero"),
        ("taker", "def", 1, "taker cannot be imported: SyntaxError: invalid syntax (taker.py, line 1)"),
        ("taker", "import no_such_thing", 1, "taker cannot be imported: ModuleNotFoundError: No module named"),
        ("taker", "import holyroute\n@holyroute.handler\ndef save(_): ...", 1, "expected a name, as in @handler("),
    ],
)
def test_handlers_that_cannot_be_had(
    cli: Any, tmp_path: Path, name: str, text: str | None, code: int, said: str
) -> None:
    """Said before anything is leased: 2 for a wrong name, 1 for a module that breaks, with the place."""
    if text is not None:
        (tmp_path / "taker.py").write_text(text)
    with holyroute.Client(cli.config) as client:
        client.submit(PROMPT, model="ma", handler="save")
        done = cli("drain", "--handlers", name)

        assert (done.exit_code, done.stdout) == (code, "")
        assert said in done.stderr
        assert ("taker.py" in done.stderr) is (code == 1 or name == "taker.py")
        assert client.queue.stats().ready == 1


@pytest.mark.usefixtures("_clean")
def test_handlers_of_a_process_serve_all_its_queues(cli: Any) -> None:
    """`holyroute.handler` before or after the queue was opened; a queue's own of the same name goes first."""
    heard: list[str] = []
    with holyroute.Client(cli.config) as client:
        queue = client.queue
        holyroute.handler("save")(lambda answer: heard.append(f"process {answer.result['content']}"))
        holyroute.handler("keep")(lambda answer: heard.append(f"process {answer.result['content']}"))
        queue.handler("keep")(lambda answer: heard.append(f"queue {answer.result['content']}"))
        for name in ("save", "keep"):
            client.submit(name, model="ma", handler=name)
        progress = queue.drain()

    assert (progress.answered, progress.unhandled) == (2, 0)
    assert sorted(heard) == ["process Answer to: save", "queue Answer to: keep"]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256, None, 17])
def test_a_handler_needs_a_name(name: Any) -> None:
    """One that a call could have."""
    with pytest.raises(holyroute.QueueError, match="handler: expected 1 to 255 printable characters"):
        holyroute.handler(name)
