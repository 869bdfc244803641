"""How the rows of a file become calls: template, routing, parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from holyroute.batch.row import Row
from holyroute.batch.source import TEXT
from holyroute.batch.template import MissingFieldError, Template
from holyroute.core import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from holyroute.batch.source import Record

PROMPT = "prompt"
URL = "/v1/chat/completions"  # of OpenAI's Batch API

# What the endpoint takes, by OpenAI's reference of chat completions; everything else in a row is the caller's own.
PARAMETERS = frozenset(
    {
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier"),
        *("stop", "store", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity"),
    }
)
_ROUTING = ("model", "models", "task", "priority")
_STREAMING = ("stream", "stream_options")  # a batch wants whole answers
_LIMITS = ("max_tokens", "max_completion_tokens")  # two names of one thing


class _ProblemError(Exception):
    """Why no call can be made of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """How rows become calls. What is said here holds for every row, whatever the row itself says.

    `system`, `model`, `task` and `priority` may have fields as the template has.
    """

    template: Template | None = None
    system: Template | None = None
    model: Template | None = None
    models: tuple[str, ...] | None = None  # exactly these, in this order
    task: Template | None = None
    priority: Template | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of the endpoint
    id: str | None = None  # the column that names a row

    def describe(self) -> dict[str, Any]:
        """Everything that changes what is asked, as JSON."""
        texts = {name: getattr(self, name) for name in ("template", "system", "model", "task", "priority")}
        return {
            **{name: template.text if template else None for name, template in texts.items()},
            "models": list(self.models) if self.models else None,
            "id": self.id,
            **dict(sorted(self.parameters.items())),
        }

    @property
    def is_routed(self) -> bool:
        """Whether it says who shall answer, so that the rows' own word does not count."""
        return any((self.model, self.models, self.task))

    def rows(self, records: Iterable[Record]) -> Iterator[Row]:
        """A row for every record; what is wrong with one, a second row of the same id included, is its `problem`."""
        lines: dict[int, int] = {}
        for record in records:
            row = self.row(record)
            if row.id is not None and not row.problem:
                first = lines.setdefault(_digest(row.id), record.line)  # ids may be long, and many
                if first != record.line:
                    row = _problem(record, f"the id {row.id!r} stands on line {first} already", row.id)
            yield row

    def row(self, record: Record) -> Row:
        """The call that a record asks for."""
        if record.problem:
            return _problem(record, record.problem)
        try:
            return self._row(record)
        except (_ProblemError, MissingFieldError) as error:
            return _problem(record, str(error), self._name_of(record.value))

    def _row(self, record: Record) -> Row:
        body, columns, own_id = _read(record.value, templated=self.template is not None)
        routing = {name: body.pop(name, None) for name in _ROUTING}
        if self.template is not None:
            body = {"messages": [{"role": "user", "content": self.template.fill(columns)}]}
        self._instruct(body, columns)
        for name in _STREAMING:
            body.pop(name, None)
        if any(name in self.parameters for name in _LIMITS):
            body = {name: value for name, value in body.items() if name not in _LIMITS}
        return Row(
            index=record.index,
            line=record.line,
            id=self._id(columns, own_id),
            body={**body, **self.parameters},
            columns=columns,
            **self._routing(routing, columns),
        )

    def _instruct(self, body: dict[str, Any], columns: Mapping[str, Any]) -> None:
        """Put the instructions first, in place of the row's own."""
        if self.system is None:
            return
        said = body["messages"]
        rest = said[1:] if said[0].get("role") in {"system", "developer"} else said
        body["messages"] = [{"role": "system", "content": self.system.fill(columns)}, *rest]

    def _id(self, columns: Mapping[str, Any], own: str | None) -> str | None:
        if self.id is None:
            return own
        value = columns.get(self.id)
        if value is None or isinstance(value, (dict, list)):
            raise _ProblemError(f"no id: expected a text or number in {self.id!r}, got {value!r}")
        return value if isinstance(value, str) else codec.dumps(value).decode()

    def _name_of(self, value: Any) -> str | None:
        """The id of a row that is broken otherwise, if it has one."""
        name = value.get(self.id or "custom_id") if isinstance(value, dict) else None
        return None if name is None else str(name)

    def _routing(self, own: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
        """Who is asked: by the command's word, else by the row's."""
        if not self.is_routed:
            models = own["models"]
            said = {
                "model": _name(own, "model"),
                "models": None if models is None else _names(models),
                "task": _name(own, "task"),
            }
        else:
            said = {
                "model": self.model.fill(columns) if self.model else None,
                "models": self.models,
                "task": self.task.fill(columns) if self.task else None,
            }
        priority = self.priority.fill(columns) if self.priority else _name(own, "priority")
        return {**said, "priority": priority}


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _problem(record: Record, problem: str, id_: str | None = None) -> Row:
    columns = record.value if isinstance(record.value, dict) else {}
    return Row(index=record.index, line=record.line, id=id_, columns=columns, problem=problem)


def _read(value: Any, *, templated: bool) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """What a record asks for, what is the caller's own, and its `custom_id`."""
    if isinstance(value, str):
        value = {TEXT: value}
    elif isinstance(value, list):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise _ProblemError(f"expected an object, a text or a list of messages, got {codec.dumps(value).decode()[:40]}")
    if templated:
        return {}, value, _custom_id(value)
    if isinstance(value.get("body"), dict):
        return _openai(value)
    if "messages" in value:
        asked = {name: item for name, item in value.items() if name == "messages" or name in _OURS}
        columns = {name: item for name, item in value.items() if name not in asked}
        return _checked(asked), columns, _custom_id(value)
    return {"messages": [{"role": "user", "content": _prompt(value)}]}, value, _custom_id(value)


def _prompt(value: dict[str, Any]) -> str:
    text = value.get(PROMPT, value.get(TEXT) if len(value) == 1 else None)
    if not isinstance(text, str):
        known = ", ".join(map(repr, list(value)[:10])) or "nothing"
        raise _ProblemError(f"expected 'messages', 'prompt' or 'body', or a template; it has {known}")
    if not text.strip():
        raise _ProblemError("the prompt is empty")
    return text


_OURS = PARAMETERS | {*_ROUTING, *_STREAMING}


def _openai(value: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """A line of OpenAI's Batch API."""
    url = value.get("url", URL)
    if url != URL:
        raise _ProblemError(f"url: expected {URL}, got {url!r}")
    columns = {name: item for name, item in value.items() if name not in {"custom_id", "method", "url", "body"}}
    return _checked(dict(value["body"])), columns, _custom_id(value)


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise _ProblemError("messages: expected a list of messages, each an object")
    return body


def _custom_id(value: Mapping[str, Any]) -> str | None:
    own = value.get("custom_id")
    return None if own is None else str(own)


def _name(own: Mapping[str, Any], what: str) -> str | None:
    value = own[what]
    if value is None or (isinstance(value, str) and value):
        return value
    raise _ProblemError(f"{what}: expected a name, got {value!r}")


def _names(models: Any) -> tuple[str, ...]:
    if isinstance(models, list) and models and all(isinstance(one, str) for one in models):
        return tuple(models)
    raise _ProblemError(f"models: expected a list of names, got {models!r}")
