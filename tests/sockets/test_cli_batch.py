"""`holyroute batch` and `batch-merge` against a simulated provider."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from holyroute import context
from holyroute.batch.journal import Journal
from holyroute.batch.row import Row
from holyroute.cli.app import app
from holyroute.cli.batch_run import Runner
from holyroute.cli.batch_sink import StreamSink
from holyroute.client import Client
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.simulator import Profile, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Iterator

    from click.testing import Result

    from holyroute.cli.batch_run import Snapshot

SETTINGS = """
[providers.simulated]
base_url = "{url}"
api_key_env = "SIMULATED_KEY"
[models.first]
provider = "simulated"
price = {{ input = 1.00, output = 10.00 }}
[models.second]
provider = "simulated"
price = {{ input = 2.00, output = 20.00 }}
[routes.general]
normal = ["first", "second"]
[routes.other]
normal = ["second"]
[retry]
sole_attempts = 1
[routing]
task = "general"
priority = "normal"
"""
TEMPLATE = ("--template", "Say {text}", "--max-tokens", "20")
JOB = ("batch", "in.jsonl", "out.jsonl", *TEMPLATE)


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    for name in list(os.environ):
        if name.startswith("HOLY") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SIMULATED_KEY", "test-key-a")
    monkeypatch.chdir(tmp_path)
    models = {name: Profile(completion_tokens=10) for name in ("first", "second")}
    with Simulator(models, api_keys=["test-key-a"]) as simulator:
        (tmp_path / "holyroute.toml").write_text(SETTINGS.format(url=simulator.base_url))
        (tmp_path / "holyroute.toml").chmod(0o600)
        rows(tmp_path, *({"text": f"word {number}", "k": f"k{number}"} for number in range(6)))
        context.reset()
        yield simulator
        context.reset()


def rows(folder: Path, *values: Any, name: str = "in.jsonl") -> None:
    (folder / name).write_text("".join(json.dumps(value) + "\n" for value in values))


def run(*words: str, given: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, words, input=given)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_index(path: Path) -> list[dict[str, Any]]:
    return sorted(lines(path), key=lambda row: row["index"])


def test_every_row_is_answered(provider: Simulator, tmp_path: Path) -> None:
    """A line per row, with the caller's columns, tokens and cost; the summary on stdout; exit code 0."""
    result = run(*JOB, "--id", "k")
    found = by_index(tmp_path / "out.jsonl")

    assert result.exit_code == 0, result.output
    assert [row["index"] for row in found] == list(range(6))
    assert found[2]["content"].startswith("Answer to: Say word 2")
    assert found[2]["columns"] == {"text": "word 2", "k": "k2"}
    assert (found[2]["id"], found[2]["line"], found[2]["model"]) == ("k2", 3, "first")
    assert found[2]["usage"] == {"prompt_tokens": 2, "completion_tokens": 10}
    assert found[2]["cost_usd"] == "0.000102"
    assert result.stdout.splitlines()[:2] == ["6 answered, 0 failed", "answered by first: 6"]
    assert provider.attempts() == 6
    assert provider.seen[0].json["max_tokens"] == 20


def test_the_same_command_goes_on(provider: Simulator, tmp_path: Path) -> None:
    """What is answered is never paid for again; with nothing left, nobody is asked."""
    first = run(*JOB, "--limit", "2")
    second = run(*JOB)
    third = run(*JOB, "--resume")

    assert [one.exit_code for one in (first, second, third)] == [0, 0, 0]
    assert "going on with out.jsonl: 2 rows are done" in second.stderr
    assert third.stdout.startswith("6 answered, 0 failed\n")
    assert provider.attempts() == 6
    assert len(lines(tmp_path / "out.jsonl")) == 6


def test_another_question_is_refused(provider: Simulator) -> None:
    """Exit code 2, what differs by name, and nobody is asked; --overwrite starts anew."""
    run(*JOB)
    changed = run("batch", "in.jsonl", "out.jsonl", "--template", "Shout {text}", "--max-tokens", "30")

    assert changed.exit_code == 2
    assert 'template: was "Say {text}", is "Shout {text}"' in changed.stderr
    assert "max_tokens: was 20, is 30" in changed.stderr
    assert provider.attempts() == 6

    anew = run("batch", "in.jsonl", "out.jsonl", "--template", "Shout {text}", "--overwrite")

    assert anew.exit_code == 0
    assert provider.attempts() == 12


def test_a_changed_input_is_refused(provider: Simulator, tmp_path: Path) -> None:
    """The message says how it has changed."""
    run(*JOB)
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write('{"text": "more"}\n')
    result = run(*JOB)

    assert result.exit_code == 2
    assert "input: was 6 rows in " in result.stderr
    assert ", is 7 rows in " in result.stderr
    assert provider.attempts() == 6


def test_bad_rows_stop_nothing(provider: Simulator, tmp_path: Path) -> None:
    """Each becomes a failed line with its number and cause; all others are answered; exit code 1."""
    good = b'{"k": "%d", "text": "fine"}\r\n'
    data = b"\xef\xbb\xbf" + good % 0 + b"not json\r\n" + good % 0 + b'{"k": "3"}\r\n\r\n'
    data += '{"k": "4", "text": "caf\xe9"}\r\n'.encode("latin-1")
    data += b'{"k": "5", "text": "' + b"x" * 20_000_000 + b'"}\r\n' + good % 6
    (tmp_path / "in.jsonl").write_bytes(data)
    result = run(*JOB, "--id", "k", "--errors", "errors.jsonl")
    failures = lines(tmp_path / "errors.jsonl")

    assert result.exit_code == 1
    assert "2 answered, 5 failed" in result.stdout
    assert "failed: row: 5" in result.stdout
    assert [(one["line"], one["cause"], one["message"].split(":")[0]) for one in failures] == [
        (2, "row", "not JSON"),
        (3, "row", "the id '0' stands on line 1 already"),
        (4, "row", "no field 'text', which the template wants; it has 'k'"),
        (6, "row", "not UTF-8"),
        (7, "row", "too large"),
    ]
    assert [row["ok"] for row in by_index(tmp_path / "out.jsonl")] == [True, *[False] * 5, True]
    assert provider.attempts() == 2


def test_an_empty_and_a_missing_file(provider: Simulator, tmp_path: Path) -> None:
    """Nothing to do is done; nothing there is an error of usage that leaves nothing behind."""
    (tmp_path / "in.jsonl").write_text("")
    empty = run(*JOB)
    missing = run("batch", "none.jsonl", "new.jsonl", *TEMPLATE)

    assert empty.exit_code == 0
    assert empty.stdout.startswith("0 answered, 0 failed\n")
    assert missing.exit_code == 2
    assert "none.jsonl: cannot be read: No such file or directory" in missing.stderr
    assert not (tmp_path / "new.jsonl").exists()
    assert provider.attempts() == 0


def test_another_run_holds_the_output(provider: Simulator, tmp_path: Path) -> None:
    """Exit code 2, and nobody is asked."""
    with Journal(tmp_path / "out.jsonl", SYSTEM_CLOCK):
        result = run(*JOB)

    assert result.exit_code == 2
    assert "out.jsonl: another run is writing it" in result.stderr
    assert provider.attempts() == 0


def test_csv_in_and_out(provider: Simulator, tmp_path: Path) -> None:
    """In the order of the input, with its columns; the checkpoint lies beside it, and is gone on with."""
    (tmp_path / "in.csv").write_text('name,text\nAda,"one,\ntwo"\nBob,three\n')
    words = ("batch", "in.csv", "out.csv", *TEMPLATE)
    first, second = run(*words, "--limit", "1"), run(*words)
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert [(row["index"], row["name"], row["text"]) for row in found] == [
        ("0", "Ada", "one,\ntwo"),
        ("1", "Bob", "three"),
    ]
    assert found[1]["content"].startswith("Answer to: Say three")
    assert (tmp_path / "out.csv.journal").exists()
    assert provider.attempts() == 2


def test_openais_shape_in_and_out(provider: Simulator, tmp_path: Path) -> None:
    """A file made for OpenAI's Batch API runs as it is, and comes back in that shape, in order."""
    body = {"model": "second", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 7}
    line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    rows(tmp_path, {"custom_id": "b", **line}, {"custom_id": "a", **line, "url": "/v1/embeddings"})
    result = run("batch", "in.jsonl", "out.jsonl", "--openai", "--raw")
    answer, failure = lines(tmp_path / "out.jsonl")

    assert result.exit_code == 1
    assert (answer["custom_id"], answer["error"]) == ("b", None)
    assert answer["response"]["body"]["choices"][0]["message"]["content"].startswith("Answer to: hello")
    assert answer["response"]["body"]["object"] == "chat.completion"
    assert (failure["custom_id"], failure["response"], failure["error"]["code"]) == ("a", None, "row")
    assert [one.model for one in provider.seen] == ["second"]
    assert provider.seen[0].json["max_tokens"] == 7


def test_through_a_pipe(provider: Simulator, tmp_path: Path) -> None:
    """Rows from stdin, lines to stdout and nothing else; stderr says that this is no checkpoint."""
    (tmp_path / "errors").mkdir()
    result = run("batch", "-", "-", *TEMPLATE, "--ordered", "--errors", "errors/e.jsonl", given='{"text": "a"}\n{}\n')
    first, second = map(json.loads, result.stdout.splitlines())

    assert result.exit_code == 1
    assert (first["index"], first["ok"], second["index"], second["ok"]) == (0, True, 1, False)
    assert "stdout is no checkpoint" in result.stderr
    assert "1 answered, 1 failed" in result.stderr
    assert [one["index"] for one in lines(tmp_path / "errors" / "e.jsonl")] == [1]
    assert run("batch", "-", "-", "--resume", given="").exit_code == 2
    assert provider.attempts() == 1


def test_plain_lines_from_stdin_into_a_file(provider: Simulator, tmp_path: Path) -> None:
    """They are compared with what was answered; other rows are refused."""
    words = ("batch", "-", "out.jsonl", "--format", "lines")
    first = run(*words, "--limit", "1", given="one\ntwo\n")
    second = run(*words, given="one\ntwo\n")
    third = run(*words, given="other\ntwo\n")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert [row["columns"] for row in by_index(tmp_path / "out.jsonl")] == [{"text": "one"}, {"text": "two"}]
    assert third.exit_code == 2
    assert "line 1: is not the row that was answered here" in third.stderr
    assert provider.attempts() == 2


def test_an_estimate_needs_no_key(provider: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Rows, tokens, money by the configured prices, time; nothing is sent or written."""
    monkeypatch.delenv("SIMULATED_KEY")
    shown = run("batch", "in.jsonl", "--estimate", *TEMPLATE)
    record = json.loads(run(*JOB, "--estimate", "--json").stdout)

    assert shown.exit_code == 0
    assert shown.stdout.startswith("6 rows to ask\n")
    assert (record["rows"], record["completion_tokens"], record["broken"], record["done"]) == (6, 120, 0, 0)
    # 20 tokens of answer each at the first choice, which is the cheapest: 10 USD per million
    expected = (record["prompt_tokens"] * 1 + 120 * 10) / 1e6
    assert record["expected_usd"] == pytest.approx(expected)
    assert record["low_usd"] == pytest.approx((record["prompt_tokens"] * 1 + 12 * 10) / 1e6)
    assert record["worst_usd"] > 6 * 20 * 20 / 1e6
    assert not (tmp_path / "out.jsonl").exists()
    assert provider.attempts() == 0


def test_an_estimate_knows_what_is_done(provider: Simulator) -> None:
    """It is about what is left, and expects answers as long as those that are there."""
    run(*JOB, "--limit", "4")
    record = json.loads(run(*JOB, "--estimate", "--json").stdout)

    assert (record["rows"], record["done"]) == (2, 4)
    assert record["completion_tokens"] == 2 * 10
    assert provider.attempts() == 4


def test_without_a_key_nothing_is_written(provider: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 2, with the variable to set."""
    monkeypatch.delenv("SIMULATED_KEY")
    result = run(*JOB)

    assert result.exit_code == 2
    assert "export SIMULATED_KEY=" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()
    assert provider.attempts() == 0


def test_a_rejected_key_ends_the_run(provider: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not every one of many rows is wasted on it; once the key is right, they are asked."""
    rows(tmp_path, *({"text": str(number)} for number in range(600)))
    monkeypatch.setenv("SIMULATED_KEY", "test-key-wrong")
    result = run(*JOB)

    assert result.exit_code == 3
    assert "for want of a good key" in result.stderr
    assert f"go on with: holyroute {shlex.join(JOB)} --retry-failed\n" in result.stderr
    assert len(lines(tmp_path / "out.jsonl")) < 400

    monkeypatch.setenv("SIMULATED_KEY", "test-key-a")
    context.reset()
    again = run(*JOB, "--retry-failed")

    assert again.exit_code == 0, again.output
    assert len(by_index(tmp_path / "out.jsonl")) == 600
    assert "test-key" not in result.output + again.output + (tmp_path / "out.jsonl").read_text()
    assert provider.attempts() >= 600


def test_a_canary_stops_what_goes_wrong(provider: Simulator, tmp_path: Path) -> None:
    """Only its rows are asked; exit code 3. When all is well it says what all will cost, and goes on."""
    provider.always("*", faults.status(400))
    bad = run(*JOB, "--canary", "2")

    assert bad.exit_code == 3
    assert "stopped: not every row of the canary was answered" in bad.stderr
    assert len(lines(tmp_path / "out.jsonl")) == 2

    provider.heal()
    before = provider.attempts()
    good = run("batch", "in.jsonl", "good.jsonl", *TEMPLATE, "--canary", "2")

    assert good.exit_code == 0
    assert "canary: 2 rows answered for 0.0002 USD; all would be about 0.0006 USD" in good.stderr
    assert provider.attempts() - before == 6


def test_one_failed_row_stops_a_canary(provider: Simulator, tmp_path: Path) -> None:
    """Also where the others are answered; the rest waits for somebody to look."""
    rows(tmp_path, {"text": "a"}, {"wrong": "b"}, {"text": "c"})
    result = run(*JOB, "--canary", "2")

    assert result.exit_code == 3
    assert result.stdout.startswith("1 answered, 1 failed, 1 left\n")
    assert provider.attempts() == 1


def test_the_cap_holds_over_several_runs(provider: Simulator, tmp_path: Path) -> None:
    """What was spent before counts; the same command again spends nothing more. Exit code 3, and how to go on."""
    rows(tmp_path, *({"text": str(number)} for number in range(50)))
    words = (*JOB, "--max-cost", "0.003", "--workers", "2")
    first = run(*words)
    asked = provider.attempts()
    second = run(*words)
    costs = sum(float(row["cost_usd"]) for row in lines(tmp_path / "out.jsonl"))

    assert (first.exit_code, second.exit_code) == (3, 3)
    assert "stopped: the next row might have cost more than --max-cost allows" in first.stderr
    assert "go on with: holyroute batch in.jsonl out.jsonl --template 'Say {text}'" in first.stderr
    assert 0 < asked < 50
    assert asked <= provider.attempts() <= asked + 3
    assert costs <= 0.003

    last = run(*JOB, "--max-cost", "1")

    assert last.exit_code == 0
    assert len(lines(tmp_path / "out.jsonl")) == 50


@pytest.mark.parametrize("answer", ["cut-body", "silent"])
def test_the_cap_holds_over_what_no_line_tells(provider: Simulator, answer: str) -> None:
    """What was billed without a word, or may have been, counts in later runs too: cron spends no more than it is told.

    A line that failed says no cost, and a row that is called off has none at all.
    """
    provider.always("*", faults.billed(faults.cut_body()) if answer == "cut-body" else "silent")
    words = (*JOB, "--model", "first", "--max-cost", "0.004", "--workers", "2", "--retry-failed", "--deadline", "2")
    first = run(*words, "--summary", "first.json")
    asked = provider.attempts()
    run(*words, "--summary", "second.json")
    spent, second = (json.loads(Path(f"{name}.json").read_text(), parse_float=Decimal) for name in ("first", "second"))

    assert first.exit_code == 3, first.output
    assert asked > 0
    assert spent["spent_usd"] > 0
    assert second["spent_before_usd"] == spent["spent_usd"]
    assert second["spent_before_usd"] + second["spent_usd"] <= Decimal("0.004")


def test_what_costs_nothing_needs_no_money(provider: Simulator, tmp_path: Path) -> None:
    """`--max-cost 0`: models whose price is 0 are asked, and no others."""
    settings = tmp_path / "holyroute.toml"
    paid = run(*JOB, "--max-cost", "0")

    assert paid.exit_code == 3
    assert provider.attempts() == 0

    settings.write_text(re.sub("[12]0?[.]00", "0", settings.read_text()))
    context.reset()
    free = run(*JOB, "--max-cost", "0")

    assert free.exit_code == 0, free.output
    assert provider.attempts() == 6


def test_a_summary_that_cannot_be_written_hides_nothing(provider: Simulator) -> None:
    """What became of the batch is shown, and how to go on."""
    long = "s" * 250  # the name of the file beside it, that it is made of, is too long
    result = run(*JOB, "--summary", long)

    assert result.exit_code == 1
    assert result.stdout.startswith("6 answered, 0 failed\n")
    assert f"holyroute: {long}: cannot be written: File name too long" in result.stderr

    provider.always("*", faults.status(400))
    stopped = run("batch", "in.jsonl", "new.jsonl", *TEMPLATE, "--canary", "1", "--summary", long)

    assert stopped.exit_code == 3
    assert "go on with: holyroute batch in.jsonl new.jsonl" in stopped.stderr


def test_a_row_without_a_bound_is_refused_under_a_cap(provider: Simulator, tmp_path: Path) -> None:
    """It may not be started, because nobody knows what it costs; --retry-failed asks it once there is a bound."""
    result = run("batch", "in.jsonl", "out.jsonl", "--template", "{text}", "--max-cost", "1")

    assert result.exit_code == 1
    assert {row["error"]["cause"] for row in lines(tmp_path / "out.jsonl")} == {"budget"}
    assert provider.attempts() == 0


def test_a_deadline_stops_the_run(provider: Simulator, tmp_path: Path) -> None:
    """Exit code 3; what was in flight has a line."""
    provider.always("*", faults.status(503, retry_after=60))
    result = run(*JOB, "--deadline", "0.5", "--summary", "summary.json")
    summary = json.loads((tmp_path / "summary.json").read_text())

    assert result.exit_code == 3
    assert "stopped: --deadline is over" in result.stderr
    assert (summary["stopped"], summary["exit_code"]) == ("deadline", 3)
    assert summary["resume"].startswith("holyroute batch in.jsonl out.jsonl")


def test_failed_rows_are_asked_again_on_request(provider: Simulator, tmp_path: Path) -> None:
    """Not by default; then only those which that may help, and the output has every row once."""
    rows(tmp_path, {"text": "a"}, {"wrong": "b"}, {"text": "c"})
    words = (*JOB, "--model", "first", "--model", "second", "--workers", "1")
    provider.script("*", faults.status(401))
    first = run(*words)
    plain = run(*words)
    asked = provider.attempts()
    context.reset()
    again = run(*words, "--retry-failed")

    assert (first.exit_code, plain.exit_code, again.exit_code) == (1, 1, 1)
    assert "--retry-failed asks them again" in plain.stderr
    assert asked == 1  # the key is benched
    assert again.stdout.startswith("2 answered, 1 failed\n")
    assert [row["ok"] for row in by_index(tmp_path / "out.jsonl")] == [True, False, True]


def test_shards_make_one_output(provider: Simulator, tmp_path: Path) -> None:
    """Each row belongs to one; put together they are the whole, which may be gone on with."""
    parts = [run("batch", "in.jsonl", f"part{part}.jsonl", *TEMPLATE, "--shard", f"{part}/3") for part in (1, 2, 3)]
    merged = run("batch-merge", "part1.jsonl", "part2.jsonl", "part3.jsonl", "all.jsonl")
    on = run("batch", "in.jsonl", "all.jsonl", *TEMPLATE)

    assert [part.exit_code for part in parts] == [0, 0, 0]
    assert [row["index"] for row in lines(tmp_path / "part2.jsonl")].sort() is None
    assert {row["index"] for row in lines(tmp_path / "part2.jsonl")} == {1, 4}
    assert (merged.exit_code, merged.stdout) == (0, "6 rows: 6 answered, 0 failed\n")
    assert [row["index"] for row in lines(tmp_path / "all.jsonl")] == list(range(6))
    assert on.exit_code == 0
    assert provider.attempts() == 6


def test_merging_tells_what_is_missing(provider: Simulator, tmp_path: Path) -> None:
    """Exit code 1, and which rows; parts of different questions are refused."""
    run("batch", "in.jsonl", "part1.jsonl", *TEMPLATE, "--shard", "1/3")
    run("batch", "in.jsonl", "part3.jsonl", *TEMPLATE, "--shard", "3/3")
    run("batch", "in.jsonl", "other.jsonl", "--template", "Other {text}", "--limit", "1")
    missing = run("batch-merge", "part1.jsonl", "part3.jsonl", "all.jsonl")
    other = run("batch-merge", "part1.jsonl", "other.jsonl", "mixed.jsonl")

    assert missing.exit_code == 1
    assert "2 rows are missing; the first by index: 1, 4" in missing.stderr
    assert other.exit_code == 2
    assert "other.jsonl: does not belong to part1.jsonl" in other.stderr
    assert not (tmp_path / "mixed.jsonl").exists()
    assert run("batch-merge", "part1.jsonl", "all.jsonl").exit_code == 2  # is there already
    assert provider.attempts() == 5


def test_merging_tells_what_is_damaged(provider: Simulator, tmp_path: Path) -> None:
    """A line that is left out is named, and its row is missing, also behind the last one."""
    run(*JOB, "--workers", "1")
    (tmp_path / "out.jsonl").write_bytes((tmp_path / "out.jsonl").read_bytes()[:-20])
    result = run("batch-merge", "out.jsonl", "all.jsonl")

    assert result.exit_code == 1
    assert "1 rows are missing; the first by index: 5" in result.stderr
    assert "out.jsonl: line 6 is damaged or cut off" in result.stderr
    assert provider.attempts() == 6


def test_merging_into_another_shape(provider: Simulator, tmp_path: Path) -> None:
    """One output, as CSV and in OpenAI's shape."""
    run(*JOB)
    table = run("batch-merge", "out.jsonl", "out.csv")
    openai = run("batch-merge", "out.jsonl", "openai.jsonl", "--openai", "--json")

    assert (table.exit_code, openai.exit_code) == (0, 0)
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == (
        "index,id,text,k,content,model,finish_reason,cost_usd,cause,error"
    )
    assert json.loads(openai.stdout)["answered"] == 6
    assert [one["custom_id"] for one in lines(tmp_path / "openai.jsonl")] == [f"row-{number}" for number in range(6)]
    assert provider.attempts() == 6


def test_ordered_lines(provider: Simulator, tmp_path: Path) -> None:
    """At the end the output stands in the order of the input, and is still a checkpoint."""
    provider.script("first", faults.late(0.3))
    result = run(*JOB, "--ordered")
    again = run(*JOB, "--ordered")

    assert (result.exit_code, again.exit_code) == (0, 0)
    assert [row["index"] for row in lines(tmp_path / "out.jsonl")] == list(range(6))
    assert provider.attempts() == 6


def test_routing_from_the_rows(provider: Simulator, tmp_path: Path) -> None:
    """Task by column; a row that names an unknown model is a failed row."""
    rows(tmp_path, {"text": "a", "kind": "general"}, {"text": "b", "kind": "other"})
    run(*JOB, "--task", "{kind}", "--workers", "1")
    rows(tmp_path, {"prompt": "a", "model": "x"}, {"messages": [{"role": "user", "content": "b"}], "model": "none"})
    result = run("batch", "in.jsonl", "two.jsonl")

    assert [one.model for one in provider.seen][:2] == ["first", "second"]
    assert result.exit_code == 1
    assert [row["ok"] for row in by_index(tmp_path / "two.jsonl")] == [True, False]
    assert "got 'none'" in by_index(tmp_path / "two.jsonl")[1]["error"]["message"]


def test_parameters_reach_the_provider(provider: Simulator) -> None:
    """JSON values, and words without quotes."""
    result = run(
        *JOB, "--limit", "1", "--param", "seed=7", "--param", "user=me", "--temperature", "0.5", "--system", "S {k}"
    )
    body = provider.seen[0].json

    assert result.exit_code == 0
    assert (body["seed"], body["user"], body["temperature"]) == (7, "me", 0.5)
    assert body["messages"][0] == {"role": "system", "content": "S k0"}


def test_equal_rows_are_sent_once(provider: Simulator, tmp_path: Path) -> None:
    """With --dedupe, while one of them is under way."""
    provider.always("first", faults.late(0.2))
    rows(tmp_path, *[{"text": "same"}] * 5)
    result = run(*JOB, "--dedupe")

    assert result.exit_code == 0
    assert len(lines(tmp_path / "out.jsonl")) == 5
    assert provider.attempts() == 1


def test_nobody_looks(provider: Simulator) -> None:
    """A display that cannot be shown any more, because its terminal is gone, stops nothing."""

    class Gone:
        def show(self, _: Snapshot) -> None:
            raise BrokenPipeError

        def say(self, _: str) -> None:
            raise BrokenPipeError

    out = io.BytesIO()
    runner = Runner(StreamSink(out, "jsonl", None), Gone())
    with Client() as client:
        runner.run(client.batch, [Row(index=0, body={"messages": [{"role": "user", "content": "hello"}]})])

    assert runner.snapshot.answered == out.getvalue().count(b"\n") == provider.attempts() == 1


def test_a_substitute_is_told_above_the_display(provider: Simulator) -> None:
    """Warnings come through, as lines on stderr."""
    provider.always("first", 503)
    result = run(*JOB)

    assert result.exit_code == 0
    assert "answered by second: 6" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch", "in.jsonl"], "missing argument 'OUTPUT'"),
        (["batch", "in.jsonl", "in.jsonl"], "in.jsonl: is the input; expected another name"),
        ([*JOB, "--template", "{"], "--template: "),
        ([*JOB, "--shard", "3/2"], "expected K/N such as 2/8, got '3/2'"),
        ([*JOB, "--max-cost", "much"], "expected an amount in USD, got 'much'"),
        ([*JOB, "--param", "seed"], "expected NAME=JSON, got 'seed'"),
        ([*JOB, "--param", "stream=true"], "stream is no parameter for all rows"),
        ([*JOB, "--estimate", "--model", "firs"], "did you mean 'first'?"),
        ([*JOB, "--param", "template=x"], "template is no parameter for all rows"),
        ([*JOB, "--model", "firs"], "did you mean 'first'?"),
        ([*JOB, "--resume"], "out.jsonl: nothing to resume"),
        ([*JOB, "--errors", "out.jsonl"], "out.jsonl: is the input, the output or named twice"),
        ([*JOB, "--summary", "./in.jsonl"], "in.jsonl: is the input, the output or named twice"),
        ([*JOB, "--summary", "s.json", "--errors", "s.json"], "s.json: is the input, the output or named twice"),
        ([*JOB, "--errors", "."], ".: is a folder; expected a file"),
        ([*JOB, "--deadline", "nan"], "expected a number, got 'nan'"),
        ([*JOB, "--deadline", "inf"], "expected a number, got 'inf'"),
        ([*JOB, "--temperature", "nan"], "expected a number, got 'nan'"),
        ([*JOB, "--errors", "none/e.jsonl"], "none/e.jsonl: its folder is not there"),
        (["batch", "in.jsonl", "none/out.jsonl", *TEMPLATE], "none/out.jsonl: cannot be written"),
        (["batch", "in.jsonl", "taken.csv", *TEMPLATE], "taken.csv: is there, but no batch has written it"),
        (["batch", "in.jsonl", "taken.jsonl", *TEMPLATE], "taken.jsonl: is there, but not taken.jsonl.meta.json"),
        (["batch-merge", "none.jsonl", "all.jsonl"], "none.jsonl: expected the output of a batch, got no file"),
        (["batch-merge", "taken.jsonl", "taken.jsonl"], "taken.jsonl: is one of the parts"),
    ],
)
def test_wrong_usage(provider: Simulator, tmp_path: Path, words: list[str], message: str) -> None:
    """Exit code 2, what was expected, and nobody is asked."""
    for name in ("taken.csv", "taken.jsonl"):
        (tmp_path / name).write_text("precious")
    result = run(*words)

    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert (tmp_path / "taken.jsonl").read_text() == "precious"
    assert provider.attempts() == 0
