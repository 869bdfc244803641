"""From what `requests` gave back, or raised, to a row of the error table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from requests import exceptions
from urllib3 import exceptions as urllib3_exceptions

from holyroute.core import codec, verdicts
from holyroute.core.completion import Usage
from holyroute.core.hints import may_retry, retry_after
from holyroute.core.outcome import Outcome
from holyroute.core.stream import How, StreamReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import Response

    from holyroute.core.verdicts import Verdict

_DETAIL = 200  # characters of a provider's message that are worth keeping

_BY_STATUS: dict[int, Verdict] = {
    400: verdicts.BAD_REQUEST,
    401: verdicts.UNAUTHORIZED,
    402: verdicts.PAYMENT_REQUIRED,
    403: verdicts.FORBIDDEN,
    404: verdicts.NOT_FOUND,
    408: verdicts.REQUEST_TIMEOUT,
    409: verdicts.CONFLICT,
    413: verdicts.TOO_LARGE,
    422: verdicts.UNPROCESSABLE,
    429: verdicts.RATE_LIMITED_SILENT,
    500: verdicts.SERVER_ERROR,
    502: verdicts.BAD_GATEWAY,
    503: verdicts.UNAVAILABLE,
    504: verdicts.GATEWAY_TIMEOUT,
    529: verdicts.OVERLOADED,
}

# What providers write into `error.code` or `error.type` of a 200 (OpenRouter does it), as the status it stands for.
_STATUS_OF_CODE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "insufficient_quota": 429,
    "permission_error": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "api_error": 500,
    "internal_error": 500,
    "overloaded_error": 529,
    "server_is_overloaded": 503,
    "timeout": 504,
}

# Quota is spent, whatever the status says: OpenAI and Gemini say 429, Anthropic 400.
_QUOTA = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "enforced_spend_limit_reached",
    "exceeded your current quota",
    "credit balance is too low",
    "spend limit",
    "usage limit",
    "perday",
    "limit: 0",
)
_CONTEXT = ("context_length_exceeded", "maximum context length", "prompt is too long", "context window")
_POLICY = ("content_policy_violation", "content_filter", "responsibleaipolicyviolation", "moderation")
_KEY = ("api_key_invalid", "api key not valid")  # Gemini says 400
_MODEL = ("model_not_found",)

# Where the text of an error tells more than its status. First match wins.
_BY_TEXT: tuple[tuple[frozenset[int], tuple[str, ...], Verdict], ...] = (
    (frozenset({400, 413, 422, 429}), _QUOTA, verdicts.QUOTA),
    (frozenset({400}), _KEY, verdicts.UNAUTHORIZED),
    (frozenset({400, 422}), _MODEL, verdicts.NOT_FOUND),
    (frozenset({400, 413, 422}), _CONTEXT, verdicts.CONTEXT_TOO_LONG),
    (frozenset({400, 403}), _POLICY, verdicts.CONTENT_POLICY),
)


@dataclass(frozen=True, slots=True)
class _ErrorBody:
    """A provider's error object, in whichever of the usual forms it came."""

    message: str = ""
    code: str = ""
    kind: str = ""
    text: str = ""  # the whole object in lower case, for searching

    @property
    def detail(self) -> str:
        return " ".join(f"{self.code or self.kind}: {self.message}".strip(": ").split())[:_DETAIL]

    def says(self, phrases: tuple[str, ...]) -> bool:
        return any(phrase in self.text for phrase in phrases)


def of_response(
    response: Response,
    judged: Callable[[Any], Any] = lambda answer: answer,
    reader: Callable[[], StreamReader] = StreamReader,
) -> Outcome:
    """Classify an HTTP answer; a 200 counts only when it holds a valid answer.

    Args:
        response: whose body was read.
        judged: gives the decoded answer OpenAI's form.
        reader: makes a reader, for a stream that was read as one body. Its bytes for the caller replace the body.
    """
    if response.status_code == 200:
        return _of_ok(response, judged, reader)
    return _of_error(response, response.status_code, _error_of(_decode(response)))


def is_stream(response: Response) -> bool:
    """Whether the body is a stream of events."""
    return "text/event-stream" in response.headers.get("Content-Type", "")


def of_stream(reader: StreamReader, error: Exception | None, how: How = How.READ) -> Outcome:
    """Classify a stream that is over, by what was read of it."""
    answer = reader.answer
    if how is not How.READ and not reader.finished:
        return Outcome(verdict=verdicts.LEFT, status=200, usage=reader.usage)
    if reader.fault is not None and reader.fault.error is not None:
        body = _error_of(reader.fault.error)
        status = _status_in_body(body)
        return Outcome(verdict=_by_status(status), status=200, detail=body.detail, usage=reader.usage)
    if error is not None or reader.fault is not None:
        detail = reader.fault.reason if reader.fault is not None else _reason(error) if error is not None else ""
        late = isinstance(error, urllib3_exceptions.ReadTimeoutError)
        verdict = verdicts.READ_TIMEOUT if late else verdicts.BROKEN_BODY
        return Outcome(verdict=verdict, status=200, detail=detail, usage=reader.usage)
    verdict, detail = _of_choices(answer["choices"])
    return Outcome(verdict=verdict, status=200, detail=detail, answer=answer, usage=reader.usage)


def of_open_stream(response: Response, reader: StreamReader) -> Outcome:
    """An answer that has begun."""
    return Outcome(verdict=verdicts.ANSWERED, status=200, response=response, stream=reader)


def of_cut(error: Exception | None, limit: float, *, by_caller: bool) -> Outcome:
    """An attempt that we ended ourselves: whatever the cut socket raised, it says nothing about the server."""
    if by_caller:
        return Outcome(verdict=verdicts.CANCELLED, error=error)
    late = exceptions.ReadTimeout(f"no whole answer within {limit:.3g} s", request=getattr(error, "request", None))
    late.__cause__ = error
    return Outcome(verdict=verdicts.READ_TIMEOUT, detail=str(late), error=late)


def of_status(response: Response) -> Outcome:
    """Classify by the status alone, where the body belongs to the caller."""
    ok = response.status_code == 200
    verdict = verdicts.ANSWERED if ok else _by_status(response.status_code)
    return Outcome(verdict=verdict, status=response.status_code, response=response)


def _of_whole_stream(response: Response, reader: StreamReader) -> Outcome:
    """A stream that somebody reads as one body."""
    response._content = reader.feed(response.content) + reader.end()  # noqa: SLF001 - as mocks of requests set it
    outcome = of_stream(reader, None)
    outcome.response = response
    return outcome


def _of_ok(response: Response, judged: Callable[[Any], Any], reader: Callable[[], StreamReader]) -> Outcome:
    """Validate a 200, in order: a body, JSON, no error, at least one choice, something said."""
    answer = _decode(response)
    if not isinstance(answer, dict):
        if response.content and is_stream(response):
            return _of_whole_stream(response, reader())
        return _invalid(response, "empty body" if not response.content else "no JSON object")
    if answer.get("error"):
        body = _error_of(answer)
        return _of_error(response, _status_in_body(body), body)
    answer = judged(answer)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        return _invalid(response, "no choices")
    verdict, detail = _of_choices(choices)
    return Outcome(
        verdict=verdict, status=200, detail=detail, response=response, answer=answer, usage=Usage.read(answer)
    )


def _invalid(response: Response, detail: str) -> Outcome:
    return Outcome(verdict=verdicts.INVALID_ANSWER, status=response.status_code, detail=detail, response=response)


def _of_choices(choices: list[dict[str, Any]]) -> tuple[Verdict, str]:
    if len(choices) == 1 and choices[0].get("finish_reason") == "stop":  # the usual answer
        message = choices[0].get("message")
        content = message.get("content") if isinstance(message, dict) and not message.get("refusal") else None
        if isinstance(content, str) and content.strip():
            return verdicts.ANSWERED, ""
    messages = [choice.get("message") for choice in choices]
    reasons = [choice.get("finish_reason") for choice in choices]
    refusals = [message["refusal"] for message in messages if isinstance(message, dict) and message.get("refusal")]
    if "content_filter" in reasons or refusals:
        return verdicts.FILTERED, " ".join(str((refusals or ["finish_reason content_filter"])[0]).split())[:_DETAIL]
    if any(isinstance(message, dict) and _says_something(message) for message in messages):
        return verdicts.ANSWERED, ""
    if "length" in reasons:
        return verdicts.TRUNCATED, "max_tokens was spent before a word was said"
    return verdicts.EMPTY_ANSWER, ""


def _says_something(message: dict[str, Any]) -> bool:
    content = message.get("content")
    spoken = content.strip() if isinstance(content, str) else content
    return bool(spoken or message.get("tool_calls") or message.get("function_call") or message.get("audio"))


def _of_error(response: Response, status: int, body: _ErrorBody) -> Outcome:
    wait = retry_after(response)
    return Outcome(
        verdict=_refine(_by_status(status), status, body, response, wait),
        status=response.status_code,
        detail=body.detail,
        retry_after=wait,
        may_retry=may_retry(response),
        response=response,
    )


def _by_status(status: int) -> Verdict:
    if status >= 500:
        return _BY_STATUS.get(status, verdicts.SERVER_ERROR)
    return _BY_STATUS.get(status, verdicts.UNEXPECTED)


def _refine(verdict: Verdict, status: int, body: _ErrorBody, response: Response, wait: float | None) -> Verdict:
    """The same status means different things; the body and the headers tell."""
    for statuses, phrases, told in _BY_TEXT:
        if status in statuses and body.says(phrases):
            return told
    if status == 403 and "html" in response.headers.get("Content-Type", ""):
        return verdicts.FIREWALL
    if status == 429 and wait is not None:
        return verdicts.RATE_LIMITED
    return verdict


def _decode(response: Response) -> Any:
    try:
        return codec.loads(response.content)
    except (ValueError, TypeError, RecursionError):  # TypeError: a body that was streamed away
        return None


def _error_of(decoded: Any) -> _ErrorBody:
    """`{"error": {...}}`, `{"error": "text"}`, Gemini's `[{"error": {...}}]`, `{"detail": ...}`, `{"message": ...}`."""
    outer = decoded[0] if isinstance(decoded, list) and decoded else decoded
    if not isinstance(outer, dict):
        return _ErrorBody()
    error = outer.get("error") or outer.get("detail") or outer
    if not isinstance(error, dict):
        return _ErrorBody(message=str(error), text=str(error).lower())
    code = error.get("code")
    return _ErrorBody(
        message=str(error.get("message") or ""),
        code="" if code is None else str(code),
        kind=str(error.get("type") or error.get("status") or ""),
        text=json.dumps(error).lower(),
    )


def _status_in_body(body: _ErrorBody) -> int:
    """The status that an error inside a 200 stands for; 502 where it says nothing we know."""
    for code in (body.code, body.kind):
        if code.isdecimal() and 400 <= int(code) <= 599:
            return int(code)
        if code.lower() in _STATUS_OF_CODE:
            return _STATUS_OF_CODE[code.lower()]
    return 502


# First match wins: subclasses stand before their bases.
_BY_EXCEPTION: tuple[tuple[type[Exception], Verdict], ...] = (
    (exceptions.ConnectTimeout, verdicts.CONNECT_TIMEOUT),
    (exceptions.ReadTimeout, verdicts.READ_TIMEOUT),
    (exceptions.Timeout, verdicts.READ_TIMEOUT),
    (exceptions.ProxyError, verdicts.REFUSED),
    (exceptions.RetryError, verdicts.UNAVAILABLE),
    (exceptions.ChunkedEncodingError, verdicts.BROKEN_BODY),
    (exceptions.ContentDecodingError, verdicts.BROKEN_BODY),
    (exceptions.TooManyRedirects, verdicts.TOO_MANY_REDIRECTS),
)

# The reason deep inside a ConnectionError or SSLError.
_BY_CAUSE: tuple[tuple[type[BaseException], Verdict], ...] = (
    (urllib3_exceptions.NameResolutionError, verdicts.NAME_NOT_RESOLVED),
    (urllib3_exceptions.NewConnectionError, verdicts.REFUSED),
    (urllib3_exceptions.ConnectTimeoutError, verdicts.CONNECT_TIMEOUT),
    (urllib3_exceptions.ReadTimeoutError, verdicts.READ_TIMEOUT),
    (urllib3_exceptions.IncompleteRead, verdicts.BROKEN_BODY),
    (urllib3_exceptions.ProtocolError, verdicts.RESET),
    (urllib3_exceptions.InvalidHeader, verdicts.RESET),  # two lengths in one answer
)


def of_exception(error: exceptions.RequestException) -> Outcome:
    """Classify what an attempt raised."""
    return Outcome(verdict=_of_exception(error), detail=_reason(error), error=error)


def _of_exception(error: exceptions.RequestException) -> Verdict:
    if isinstance(error, exceptions.SSLError):
        # `ssl` itself need not be imported: the text is OpenSSL's own and the same in all versions
        return verdicts.CERTIFICATE if "CERTIFICATE_VERIFY_FAILED" in str(error) else verdicts.TLS_FAILED
    for kind, verdict in _BY_EXCEPTION:
        if isinstance(error, kind):
            return verdict
    causes = _causes(error)
    for kind_of_cause, verdict in _BY_CAUSE:
        if any(isinstance(cause, kind_of_cause) for cause in causes):
            return verdict
    return verdicts.REFUSED if isinstance(error, exceptions.ConnectionError) else verdicts.MALFORMED


def _causes(error: BaseException) -> list[BaseException]:
    """An exception and everything wrapped in it: requests hides urllib3's in `args`, urllib3 its own in `reason`."""
    found: list[BaseException] = []
    pending: list[Any] = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            pending += [getattr(one, "reason", None), *one.args]
    return found


def _reason(error: BaseException) -> str:
    """The innermost reason in a few words. Not `str(error)`: that may show a URL with a key in its query."""
    innermost = _causes(error)[-1]
    text = innermost.strerror if isinstance(innermost, OSError) and innermost.strerror else type(innermost).__name__
    return text[:_DETAIL]
