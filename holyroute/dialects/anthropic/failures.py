"""Error bodies and their status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holyroute.dialects.anthropic.tables import CODE_OF_PHRASE, ERRORS
from holyroute.dialects.errors import error_body, reason_of, told

if TYPE_CHECKING:
    from holyroute.dialects.anthropic.tables import Error
    from holyroute.dialects.base import Json
    from holyroute.dialects.errors import Told


def is_error(decoded: Any) -> bool:
    """Whether a body tells of an error, in Anthropic's form."""
    return isinstance(decoded, dict) and isinstance(decoded.get("error"), dict)


def error_to_openai(status: int, decoded: Any) -> tuple[int, Json]:
    """Status and body in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""
    said = told(decoded)
    message = said.message or reason_of(status)
    for phrase, code in CODE_OF_PHRASE:
        if said.says(phrase):
            row = _of_code(code)
            if row is None:
                return status, error_body(message, "invalid_request_error", code)
            return row.openai[0], error_body(message, *row.openai[1:])
    row = next((row for row in ERRORS if row.anthropic[1] == said.kind), None)
    row = row or next((row for row in ERRORS if row.anthropic[0] == status), None)
    if row is None:
        return status, error_body(message, "server_error" if status >= 500 else "invalid_request_error", None)
    # The type decides, but a status that belongs to another row is kept: a 400 may come as any refusal.
    return (row.openai[0] if row.anthropic[0] == status else status), error_body(message, *row.openai[1:])


def error_from_openai(status: int, decoded: Any) -> tuple[int, Json]:
    """Status and body in Anthropic's form: `{"type": "error", "error": {"type", "message"}}`."""
    said = told(decoded)
    row = _of_told(said) or next((row for row in ERRORS if row.openai[0] == status), None)
    kind = row.anthropic[1] if row else ("api_error" if status >= 500 else "invalid_request_error")
    error = {"type": kind, "message": said.message or reason_of(status)}
    return (row.anthropic[0] if row and row.openai[0] == status else status), {"type": "error", "error": error}


def _of_told(said: Told) -> Error | None:
    return _of_code(said.code) or _of_code(said.kind)


def _of_code(code: str) -> Error | None:
    return next((row for row in ERRORS if row.openai[2] is not None and row.openai[2] == code), None)
