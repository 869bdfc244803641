"""Error bodies in the forms that providers use, as one."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from holyroute.dialects.base import Json


class Told(NamedTuple):
    """What an error body says."""

    message: str = ""
    kind: str = ""
    code: str = ""

    def says(self, *phrases: str) -> bool:
        """Whether one of some phrases, in lower case, stands in it."""
        text = " ".join(self).lower()
        return any(phrase in text for phrase in phrases)


def told(decoded: Any) -> Told:
    """Reads `{"error": {...}}`, `{"error": "text"}`, `[{"error": {...}}]`, `{"detail": ...}` and `{"message": ...}`."""
    outer = decoded[0] if isinstance(decoded, list) and decoded else decoded
    if not isinstance(outer, dict):
        return Told()
    error = outer.get("error") or outer.get("detail") or outer
    if not isinstance(error, dict):
        return Told(message=error if isinstance(error, str) else "")
    return Told(*(_text(error.get(name)) for name in ("message", "type", "code")))


def reason_of(status: int) -> str:
    """What a status stands for, where the body did not say."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def is_openai_error(decoded: Any) -> bool:
    """Whether a body has the form in which OpenAI tells of errors."""
    return isinstance(decoded, dict) and isinstance(decoded.get("error"), dict)


def openai_error(status: int, decoded: Any) -> Json:
    """An error body in OpenAI's form; the same object where it has it already."""
    if is_openai_error(decoded):
        return decoded  # type: ignore[no-any-return]
    said = told(decoded)
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return error_body(said.message or reason_of(status), said.kind or kind, said.code or None)


def error_body(message: str, kind: str, code: str | None) -> Json:
    """`{"error": {...}}` as OpenAI writes it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _text(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else ""
