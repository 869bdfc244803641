"""`holyroute run`: programs that know nothing of holyroute, and their children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holyroute.cli.run import SITE

if TYPE_CHECKING:
    from collections.abc import Iterator

from holyroute.simulator import Simulator

LEGACY = Path(__file__).parents[2] / "examples" / "legacy_script.py"
RUN = [sys.executable, "-m", "holyroute", "run"]
ASK = """
import os, requests
body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Say hello."}]}
answer = requests.post(os.environ["CHAT_URL"], json=body, timeout=5)
print(answer.status_code, answer.json().get("model"), flush=True)
"""


@pytest.fixture
def a() -> Iterator[Simulator]:
    """The scripts' own provider, which fails; it takes any key, or none."""
    with Simulator() as simulator:
        simulator.always("gpt-4.1", 503)
        yield simulator


@pytest.fixture
def b() -> Iterator[Simulator]:
    """The substitute."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def owner(tmp_path: Path, b: Simulator) -> Path:
    """A file that knows the substitute, and says nothing about the script's provider."""
    path = tmp_path / "settings" / "owner.toml"
    path.parent.mkdir()
    path.write_text(f"""
[providers.backup]
base_url = "{b.base_url}"
[models.substitute]
provider = "backup"
""")
    return path


@pytest.fixture
def env(a: Simulator, tmp_path: Path) -> dict[str, str]:
    """A user's environment."""
    return {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "CHAT_URL": f"{a.base_url}/chat/completions",
        "CHAT_KEY": "test-key-a",
    }


def run(*arguments: Any, env: dict[str, str], folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """What `holyroute run` with these arguments ends with."""
    return subprocess.run(
        [*RUN, *map(str, arguments)],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=15,
        **options,
    )


# --- what runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "trouble"), [("substitute", "503"), ("backup", "unplugged"), ("substitute", "html")])
def test_a_script_nobody_edited_answers(
    a: Simulator, b: Simulator, owner: Path, env: dict[str, str], tmp_path: Path, *, name: str, trouble: str
) -> None:
    """It does not mention holyroute; who may answer is a configured model, or a provider, named when it is started."""
    if trouble == "unplugged":
        a.unplug()
    else:
        a.always("gpt-4.1", trouble)
    done = run("--config", owner, "--failover-to", name, LEGACY, env=env, folder=tmp_path)

    assert "holyroute" not in LEGACY.read_text()
    assert (done.returncode, done.stdout) == (0, "Answer to: Say hello.\n")
    assert [seen.model for seen in b.seen] == ["substitute"]


def test_without_the_owners_word_nobody_else_is_asked(
    b: Simulator, owner: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """A known provider is no consent."""
    done = run("--config", owner, LEGACY, env=env, folder=tmp_path)

    assert done.returncode == 1
    assert "HTTPError: 503" in done.stderr
    assert b.attempts() == 0


def programs(folder: Path) -> dict[str, list[Any]]:
    """The ways to name a program; each asks once and prints status and model."""
    (folder / "chatter.py").write_text(ASK)
    (folder / "package").mkdir()
    (folder / "package" / "__main__.py").write_text(ASK)
    (folder / "parent.py").write_text("import subprocess, sys; subprocess.run([sys.executable, 'chatter.py'])")
    (folder / "spawning.py").write_text(
        "import multiprocessing, pathlib\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        pool.apply(exec, [pathlib.Path('chatter.py').read_text()])\n"
    )
    return {
        "a script": ["chatter.py"],
        "a module": ["-m", "package"],
        "a command": ["python", "chatter.py"],
        "a shell": ["sh", "-c", "python chatter.py"],
        "a child": ["parent.py"],
        "a spawned worker": ["spawning.py"],
        "after --": ["--", "python", "-c", ASK],
        "run within run": [*RUN, "chatter.py"],
    }


@pytest.mark.parametrize(
    "name",
    ["a script", "a module", "a command", "a shell", "a child", "a spawned worker", "after --", "run within run"],
)
def test_any_program_is_covered(owner: Path, env: dict[str, str], tmp_path: Path, name: str) -> None:
    """A script, a module, a command, and every Python process that it starts."""
    program = programs(tmp_path)[name]
    done = run("--config", owner, "--failover-to", "substitute", *program, env=env, folder=tmp_path)

    assert (done.returncode, done.stdout) == (0, "200 substitute\n"), done.stderr


def test_arguments_and_names_are_those_of_python(env: dict[str, str], tmp_path: Path) -> None:
    """`sys.argv`, `__name__`, `__file__` and the first folder of the path, with options that look like ours."""
    script = tmp_path / "shown.py"
    script.write_text("import sys; print(sys.argv, __name__, __file__, sys.path[0], __spec__)")
    arguments = ["--config", "theirs", "-m", "--", "x y", "--help"]
    plain = subprocess.run(
        [sys.executable, script, *arguments], env=env, cwd=tmp_path, capture_output=True, check=True, text=True
    )

    assert run(script, *arguments, env=env, folder=tmp_path).stdout == plain.stdout


def test_input_and_output_are_the_programs_own(env: dict[str, str], tmp_path: Path) -> None:
    """Nothing is read, buffered or translated on the way."""
    done = run("cat", env=env, folder=tmp_path, input="a line\nand half of one")

    assert (done.stdout, done.stderr) == ("a line\nand half of one", "")


@pytest.mark.parametrize("code", [0, 1, 255])
def test_the_exit_code_is_the_programs_own(env: dict[str, str], tmp_path: Path, code: int) -> None:
    """Whatever it is."""
    assert run("sh", "-c", f"exit {code}", env=env, folder=tmp_path).returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGPIPE])
def test_signals_are_the_programs_own(env: dict[str, str], tmp_path: Path, number: signal.Signals) -> None:
    """It is the same process: what is sent to it arrives, and how it dies is seen from outside."""
    done = run("sh", "-c", f"kill -{number.name.removeprefix('SIG')} $$; exit 7", env=env, folder=tmp_path)

    assert done.returncode == -number


@pytest.mark.parametrize(
    ("program", "code", "says"),
    [
        (["no-such-program"], 127, "holyroute: no-such-program: command not found"),
        (["./plain.txt"], 126, "holyroute: ./plain.txt: Permission denied"),
        (["no_such_script.py"], 2, "can't open file"),
        ([], 2, "Missing argument"),
        (["--no-such-option", "true"], 2, "No such option"),
        (["--config", "no_such.toml", "true"], 2, "cannot be read"),
        (["--failover-to", "gtp-4.1", "true"], 2, "unknown model or provider 'gtp-4.1'; did you mean 'gpt-4.1'?"),
    ],
)
def test_what_cannot_be_run_is_said(
    env: dict[str, str], tmp_path: Path, *, program: list[str], code: int, says: str
) -> None:
    """With the exit codes of a shell for a program, and 2 for what is wrong with the settings, before anything runs."""
    (tmp_path / "plain.txt").touch()
    done = run(*program, env=env, folder=tmp_path)

    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


# --- settings ---------------------------------------------------------------------------------------------------------


def test_disabled_is_as_if_it_had_not_been_there(
    b: Simulator, owner: Path, env: dict[str, str], tmp_path: Path
) -> None:
    """`HOLYROUTE_DISABLED=1`: the script dies as ever, and not even wrong settings are noticed."""
    env["HOLYROUTE_DISABLED"] = "1"
    done = run("--config", owner, "--failover-to", "nobody", LEGACY, env=env, folder=tmp_path)

    assert done.returncode == 1
    assert "HTTPError: 503" in done.stderr
    assert b.attempts() == 0


ROUTED_BY_ITSELF = ASK.replace("import os, requests", "import os, holyroute as requests")


@pytest.mark.parametrize("code", [ASK, ROUTED_BY_ITSELF])
def test_what_lies_in_the_folder_decides_nothing(
    a: Simulator, b: Simulator, owner: Path, env: dict[str, str], tmp_path: Path, code: str
) -> None:
    """`./holyroute.toml` is read neither for requests nor for a script that imports holyroute itself; that is said."""
    text = owner.read_text() + f'[failover]\n"127.0.0.1:{a.port}" = ["substitute"]\n'
    (tmp_path / "holyroute.toml").write_text(text)
    done = run("python", "-c", code, env=env, folder=tmp_path)

    assert done.stdout == "503 None\n"
    assert b.attempts() == 0
    assert "./holyroute.toml is not read; if it is yours: --config holyroute.toml" in done.stderr
    assert "not read" not in run("--config", owner, "true", env=env, folder=tmp_path).stderr

    own = tmp_path / ".config" / "holyroute" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text(text)
    assert run("python", "-c", code, env=env, folder=tmp_path).stdout == "200 substitute\n"


def test_a_file_is_found_from_anywhere(owner: Path, env: dict[str, str], tmp_path: Path) -> None:
    """`--config` may be relative, and the program may change its folder."""
    (tmp_path / "elsewhere").mkdir()
    code = f"import os; os.chdir('elsewhere')\n{ASK}"
    config = owner.relative_to(tmp_path)
    done = run("--config", config, "--failover-to", "substitute", "python", "-c", code, env=env, folder=tmp_path)

    assert done.stdout == "200 substitute\n", done.stderr


# --- the start of Python ----------------------------------------------------------------------------------------------

LOOKING = """
import sys
def loaded():
    return sorted(name for name in sys.modules if name.split(".")[0] in ("holyroute", "requests"))
before = loaded()
import importlib.util
spec = importlib.util.find_spec("requests")
looked = loaded()
import requests
print(before, looked, requests.__loader__ is requests.__spec__.loader, type(requests.__loader__).__name__)
print(any(type(finder).__name__ == "Watch" for finder in sys.meta_path), "holyroute.installation" in sys.modules)
"""


def test_nothing_happens_until_requests_is_imported(env: dict[str, str], tmp_path: Path) -> None:
    """Neither package is loaded before, looking whether requests is there loads nothing, and no trace stays behind."""
    done = run("python", "-c", LOOKING, env=env, folder=tmp_path)

    assert done.stdout == "[] [] True SourceFileLoader\nFalse True\n", done.stderr


@pytest.mark.parametrize("broken", ["holyroute", "requests"])
def test_it_is_inert_where_a_package_cannot_be_imported(env: dict[str, str], tmp_path: Path, broken: str) -> None:
    """In another Python there may be no holyroute, or half of one; the program meets its own errors only."""
    (tmp_path / "broken" / broken).mkdir(parents=True)
    (tmp_path / "broken" / broken / "__init__.py").write_text("raise RuntimeError('half a package')")
    code = """
for attempt in range(2):
    try:
        import requests
        print("imported")
    except RuntimeError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "PYTHONPATH": f"{SITE}{os.pathsep}{tmp_path / 'broken'}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )

    assert done.stdout == {"holyroute": "imported\n" * 2, "requests": "half a package\n" * 2}[broken]
    assert done.stderr == ""


def test_a_python_without_requests_starts_as_ever(env: dict[str, str]) -> None:
    """Also where the standard library is all there is."""
    code = "import importlib.util; print(importlib.util.find_spec('requests'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path = [p for p in sys.path if 'site-packages' not in p]\n{code}"],
        env={**env, "PYTHONPATH": str(SITE)},
        capture_output=True,
        text=True,
        check=True,
        timeout=15,
    )

    assert (done.stdout, done.stderr) == ("None\n", "")


def test_another_sitecustomize_runs_too(env: dict[str, str], tmp_path: Path) -> None:
    """Python runs only the first one on its path; ours hands on, and is not what others import by that name."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("import builtins; builtins.planted = 'theirs ran'")
    env["PYTHONPATH"] = str(tmp_path / "theirs")
    code = "import sitecustomize; print(planted, sitecustomize.__file__, 'Watch' in dir(sitecustomize))"
    done = run("python", "-c", code, env=env, folder=tmp_path)

    assert done.stdout == f"theirs ran {tmp_path}/theirs/sitecustomize.py False\n", done.stderr


def test_a_failing_sitecustomize_is_reported_as_ever(env: dict[str, str], tmp_path: Path) -> None:
    """Python says so and goes on, with requests routed all the same."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("raise RuntimeError('theirs')")
    env["PYTHONPATH"] = str(tmp_path / "theirs")
    code = "import requests, sys; print('holyroute.installation' in sys.modules)"
    done = run("python", "-c", code, env=env, folder=tmp_path)

    assert done.stdout == "True\n"
    assert "RuntimeError: theirs" in done.stderr


def test_the_path_is_kept(env: dict[str, str], tmp_path: Path) -> None:
    """What stood in PYTHONPATH stands there after our folder, however often `run` is nested."""
    env["PYTHONPATH"] = f":{tmp_path}"
    code = "import os; print(os.environ['PYTHONPATH'])"
    done = run(*RUN, "python", "-c", code, env=env, folder=tmp_path)

    assert done.stdout == f"{SITE}::{tmp_path}\n"
