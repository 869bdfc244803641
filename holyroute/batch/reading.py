"""From whatever a caller has to rows: prompts, lists of messages, request dicts, lines of OpenAI's Batch API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from holyroute.batch.row import Row
from holyroute.exceptions import ConfigurationError

PROMPT = {"temperature": 0.7, "max_tokens": 2000}  # as `Client.ask` has it
_ROUTING = ("model", "models", "task", "priority")
_EXPECTED = "expected a prompt, a list of messages or a request with `messages`"


class Pause:
    """Stands in an input for a row that has not come yet, so that whoever reads it may do something else."""


def rows_of(given: Iterable[Any], parameters: Mapping[str, Any]) -> Iterator[Row | Pause]:
    """The rows of an input, each read when it is asked for; what cannot be read becomes a row with its problem.

    Args:
        given: prompts, lists of messages, request dicts, or rows and pauses.
        parameters: that the caller gave for all: they come before the usual ones of a prompt.

    Raises:
        ConfigurationError: it is no input of rows at all; at once, not when the first row is asked for.
    """
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ConfigurationError(f"rows: expected an iterable of rows, got {type(given).__name__}")
    usual = {name: value for name, value in PROMPT.items() if name not in parameters}
    if "max_completion_tokens" in parameters:
        usual.pop("max_tokens", None)
    return _rows(iter(given), usual)


def _rows(given: Iterator[Any], usual: Mapping[str, Any]) -> Iterator[Row | Pause]:
    for index, one in enumerate(given):
        yield one if isinstance(one, (Row, Pause)) else row_of(index, one, usual)


def row_of(index: int, one: Any, usual: Mapping[str, Any] = PROMPT) -> Row:
    """One row of an input."""
    if isinstance(one, str):
        return Row(index=index, body={"messages": [{"role": "user", "content": one}], **usual})
    if isinstance(one, Mapping):
        return _of_request(index, one)
    if isinstance(one, Sequence) and not isinstance(one, (bytes, bytearray)):
        return _checked(Row(index=index, body={"messages": list(one)}))
    return Row(index=index, problem=f"{_EXPECTED}, got {type(one).__name__}")


def _of_request(index: int, one: Mapping[str, Any]) -> Row:
    """A request as the endpoint takes it, or a line of the Batch API, which has it in its `body`."""
    name = one.get("custom_id")
    identity = None if name is None else str(name)
    body = one["body"] if "body" in one and "messages" not in one else one
    if not isinstance(body, Mapping):
        return Row(index=index, id=identity, problem=f"body: {_EXPECTED}, got {type(body).__name__}")
    parameters = {key: value for key, value in body.items() if key not in {*_ROUTING, "custom_id"}}
    models = body.get("models")
    if models is not None and (isinstance(models, str) or not isinstance(models, Sequence) or not models):
        return Row(index=index, id=identity, problem=f"models: expected a list of names, got {models!r}")
    row = Row(
        index=index,
        id=identity,
        body=parameters,
        model=body.get("model"),
        models=None if models is None else tuple(models),
        task=body.get("task"),
        priority=body.get("priority"),
    )
    return _checked(row)


def _checked(row: Row) -> Row:
    problem = problem_of(row)
    return replace(row, problem=problem) if problem else row


def problem_of(row: Row) -> str:
    """What keeps a row from being asked; empty where nothing does."""
    if row.problem:
        return row.problem
    if not isinstance(row.body, Mapping):
        return f"body: {_EXPECTED}, got {type(row.body).__name__}"
    return _in_messages(row.body.get("messages")) or _in_parameters(row, row.body)


def _in_messages(messages: Any) -> str:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        return f"messages: expected a list of messages, got {_short(messages)}"
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or "role" not in message:
            return f"messages[{number}]: expected an object with a role, got {_short(message)}"
    return ""


def _in_parameters(row: Row, body: Mapping[str, Any]) -> str:
    if body.get("stream"):
        return "stream: answers of a batch come whole"
    for name, value in (("model", row.model or body.get("model")), ("task", row.task), ("priority", row.priority)):
        if value is not None and not isinstance(value, str):
            return f"{name}: expected a text, got {_short(value)}"
    if row.models is not None and not all(isinstance(one, str) for one in row.models):
        return f"models: expected a list of names, got {_short(row.models)}"
    return ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
