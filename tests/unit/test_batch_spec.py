"""From a row of a file to a call: template, routing, parameters, ids."""

from __future__ import annotations

from typing import Any

import pytest

from holyroute.batch.source import Record
from holyroute.batch.spec import Spec
from holyroute.batch.template import MissingFieldError, Template
from holyroute.exceptions import ConfigurationError


def template(text: str) -> Template:
    return Template.parse(text, "--template")


def row(value: Any, **spec: Any) -> Any:
    texts = {name: template(text) if isinstance(text, str) and name != "id" else text for name, text in spec.items()}
    return Spec(**texts).row(Record(0, 1, value))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Translate: {text}", "Translate: hello"),
        ("{text} {text}", "hello hello"),
        ("{{text}} {n}", "{text} 3"),
        ("{first name}|{a.b}|{0}", "x|y|z"),
        ("{list} {flag}", '["é"] true'),
        ("nothing", "nothing"),
        ("{empty}", ""),
    ],
)
def test_a_template_is_filled(text: str, shown: str) -> None:
    """Names of columns in braces, whatever the names are; braces of the text are doubled."""
    columns = {"text": "hello", "n": 3, "first name": "x", "a.b": "y", "0": "z", "list": ["é"], "flag": True}

    assert template(text).fill({**columns, "empty": ""}) == shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Single '{' encountered"),
        ("a } b", "Single '}' encountered"),
        ("{}", "expected the name of a column, got {}"),
        ("{text!r}", "expected the name of a column, got {text!r}"),
        ("{text:>10}", "expected the name of a column, got {text:>10}"),
        ('{"a": {text}}', "--template: "),
    ],
)
def test_what_is_no_template(text: str, message: str) -> None:
    """Said before anything runs, with how a brace is written."""
    with pytest.raises(ConfigurationError) as raised:
        template(text)

    assert message in str(raised.value)
    assert "doubled" in str(raised.value)


def test_a_template_reaches_no_attribute() -> None:
    """`{x.__class__}` is the name of a column that is not there."""
    with pytest.raises(MissingFieldError, match=r"no field 'x\.__class__'"):
        template("{x.__class__}").fill({"x": "y"})


@pytest.mark.parametrize("columns", [{"other": 1}, {"text": None}], ids=["missing", "null"])
def test_a_row_without_the_field(columns: dict[str, Any]) -> None:
    """It is the row's problem, and the message says what the row has."""
    found = row(columns, template="{text}")

    assert found.body is None
    assert found.problem.startswith("no field 'text', which the template wants; it has '")


def test_a_template_makes_the_prompt() -> None:
    """All columns stay with the row; a field of the row that looks like a parameter is none."""
    found = row({"text": "hello", "priority": "P1", "model": "T"}, template="Say {text}", system="For {model}")

    assert found.body == {
        "messages": [{"role": "system", "content": "For T"}, {"role": "user", "content": "Say hello"}]
    }
    assert found.columns == {"text": "hello", "priority": "P1", "model": "T"}
    assert (found.model, found.task, found.priority) == (None, None, None)


def test_routing_by_columns() -> None:
    """Task, priority and model may come from the row, where the command says so."""
    found = row({"text": "x", "kind": "simple_qa", "p": "fast"}, template="{text}", task="{kind}", priority="{p}")

    assert (found.task, found.priority) == ("simple_qa", "fast")


@pytest.mark.parametrize(
    ("value", "body", "columns"),
    [
        ("hello", {"messages": [{"role": "user", "content": "hello"}]}, {"text": "hello"}),
        ({"text": "hello"}, {"messages": [{"role": "user", "content": "hello"}]}, {"text": "hello"}),
        (
            {"prompt": "hello", "x": 1},
            {"messages": [{"role": "user", "content": "hello"}]},
            {"prompt": "hello", "x": 1},
        ),
        (
            [{"role": "user", "content": "hello"}],
            {"messages": [{"role": "user", "content": "hello"}]},
            {},
        ),
        (
            {"messages": [{"role": "user"}], "seed": 1, "label": "a", "stream": True},
            {"messages": [{"role": "user"}], "seed": 1},
            {"label": "a"},
        ),
    ],
    ids=["text", "plain line", "prompt", "list", "messages"],
)
def test_rows_without_a_template(value: Any, body: dict[str, Any], columns: dict[str, Any]) -> None:
    """A text, a prompt, messages with parameters; what is no parameter is a column."""
    found = row(value)

    assert (found.body, found.columns, found.problem) == (body, columns, "")


def test_a_line_of_openais_batch_api() -> None:
    """`custom_id` names the row, `body` is the request."""
    line = {
        "custom_id": "r-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-4.1", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5},
    }
    found = row(line)

    assert (found.id, found.model) == ("r-1", "gpt-4.1")
    assert found.body == {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}
    assert found.columns == {}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (3, "expected an object, a text or a list of messages, got 3"),
        (None, "expected an object, a text or a list of messages, got null"),
        ({"x": 1}, "expected 'messages', 'prompt' or 'body', or a template; it has 'x'"),
        ({}, "expected 'messages', 'prompt' or 'body', or a template; it has nothing"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"messages": []}, "messages: expected a list of messages, each an object"),
        ({"messages": ["x"]}, "messages: expected a list of messages, each an object"),
        ({"body": {}}, "messages: expected a list of messages, each an object"),
        ({"body": {}, "url": "/v1/embeddings"}, "url: expected /v1/chat/completions, got '/v1/embeddings'"),
        ({"messages": [{}], "model": 3}, "model: expected a name, got 3"),
        ({"messages": [{}], "models": "x"}, "models: expected a list of names, got 'x'"),
    ],
)
def test_a_row_that_asks_for_nothing(value: Any, problem: str) -> None:
    """It is told what was expected."""
    found = row(value)

    assert (found.body, found.problem) == (None, problem)


def test_what_the_command_says_holds() -> None:
    """For every row, whatever the row itself says; the two names of the length limit are one thing."""
    value = {
        "messages": [{"role": "system", "content": "old"}, {"role": "user", "content": "x"}],
        "model": "theirs",
        "task": "code_generation",
        "temperature": 1,
        "max_completion_tokens": 9,
    }
    found = row(value, model="ours", system="new", parameters={"temperature": 0, "max_tokens": 5})

    assert (found.model, found.task) == ("ours", None)
    assert found.body == {
        "messages": [{"role": "system", "content": "new"}, {"role": "user", "content": "x"}],
        "temperature": 0,
        "max_tokens": 5,
    }


def test_ids() -> None:
    """The named column, texts and numbers; no id is a problem."""
    assert row({"prompt": "x", "k": "a"}, id="k").id == "a"
    assert row({"prompt": "x", "k": 7}, id="k").id == "7"
    assert row({"prompt": "x"}, id="k").problem == "no id: expected a text or number in 'k', got None"
    assert row({"prompt": "x", "id": "not asked for"}).id is None


def test_an_id_that_comes_twice() -> None:
    """The second row is the broken one; the message names the line of the first."""
    records = [Record(number, number + 1, {"prompt": "x", "k": name}) for number, name in enumerate("abca")]
    found = list(Spec(id="k").rows(records))

    assert [one.problem for one in found] == ["", "", "", "the id 'a' stands on line 1 already"]
    assert found[3].id == "a"


def test_a_description_changes_with_everything_that_is_asked() -> None:
    """So that another question is never taken for the same one."""
    base = {"template": template("{a}"), "parameters": {"seed": 1}}
    others = [
        {"template": template("{b}")},
        {"system": template("s")},
        {"model": template("m")},
        {"models": ("m", "n")},
        {"task": template("t")},
        {"priority": template("p")},
        {"parameters": {"seed": 2}},
        {"id": "k"},
    ]
    described = [Spec(**{**base, **other}).describe() for other in ({}, *others)]

    assert all(described[0] != other for other in described[1:])
