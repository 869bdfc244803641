"""A result as one line of JSON, which is both the output of a batch and its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from holyroute.batch.row import Cause
from holyroute.core import codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.batch.row import RowResult

MOST = 1_000_000_000  # rows; an index beyond is damage, and would cost memory

_SAID = {"role", "content"}  # of a message: what `content` tells already


class BadLineError(ValueError):
    """A line that no batch has written; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an output, read back. `fields` has everything: see `encoded`."""

    index: int
    ok: bool
    key: str
    fields: Mapping[str, Any]

    @property
    def cause(self) -> str:
        """Why there is no answer; empty where there is one."""
        return str((self.fields.get("error") or {}).get("cause") or "")

    @property
    def may_pass_later(self) -> bool:
        """Whether the row failed, and asking once more may help."""
        known = self.cause in set(Cause)
        return not self.ok and (not known or Cause(self.cause).may_pass_later)

    @property
    def cost(self) -> Decimal | None:
        """USD; None where unknown."""
        said = self.fields.get("cost_usd")
        return None if said is None else Decimal(said)

    @property
    def completion_tokens(self) -> int:
        """Of the answer; 0 where unknown."""
        return (self.fields.get("usage") or {}).get("completion_tokens") or 0


def encoded(result: RowResult, key: str, *, raw: bool = False) -> bytes:
    """The line of a result, its end included.

    `index` comes first, money is text because it is exact, and the whole answer of the provider (`raw`) stands there if
    it is asked for, or says more than its text: tool calls, several choices.
    """
    usage, error = result.usage, result.error
    fields: dict[str, Any] = {
        "index": result.index,
        "ok": result.ok,
        "key": key,
        "id": result.id,
        "line": result.line,
        "content": result.content,
        "model": result.model,
        "model_asked": result.model_asked,
        "finish_reason": result.finish_reason,
        "usage": _usage(usage.prompt_tokens, usage.completion_tokens, estimated=usage.estimated) if usage else None,
        "cost_usd": None if result.cost_usd is None else f"{result.cost_usd:f}",
        "attempts": result.attempts,
        "seconds": round(result.seconds, 3),
        "cached": result.cached,
        "error": {"cause": str(error.cause), "message": error.message} if error else None,
        "columns": dict(result.columns),
    }
    if result.raw and (raw or _says_more(result.raw)):
        fields["raw"] = dict(result.raw)
    return codec.dumps(fields) + b"\n"


def decoded(line: bytes) -> Entry:
    """A line read back.

    Raises:
        BadLineError: it is none of ours, or damaged.
    """
    try:
        fields = codec.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadLineError("expected an object")
    index, ok, key = fields.get("index"), fields.get("ok"), fields.get("key")
    if type(index) is not int or not 0 <= index < MOST:
        raise BadLineError(f"index: expected a whole number, got {index!r}")
    if type(ok) is not bool or not isinstance(key, str):
        raise BadLineError("ok, key: expected true or false, and a text")
    entry = Entry(index, ok, key, fields)
    try:
        entry.cost, entry.completion_tokens, entry.cause  # noqa: B018 - whether they can be read
    except (AttributeError, InvalidOperation, TypeError, ValueError):
        raise BadLineError("cost_usd, usage, error: not as a batch writes them") from None
    return entry


def _usage(prompt: int, completion: int, *, estimated: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {**said, "estimated": True} if estimated else said


def _says_more(raw: Mapping[str, Any]) -> bool:
    """Whether an answer has more than one text."""
    choices = raw.get("choices") or [{}]
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    if len(choices) > 1 or not isinstance(message, dict):
        return len(choices) > 1
    return any(value for name, value in message.items() if name not in _SAID) or bool(choices[0].get("logprobs"))
