"""Answers with an error status, in the shapes in which providers send them."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import formatdate

from holyroute.simulator import answers
from holyroute.simulator.exchange import Exchange, Fault, Pairs
from holyroute.simulator.forms import Told

_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    402: ("insufficient_quota", "insufficient_balance", "Insufficient balance."),
    403: ("permission_error", "permission_denied", "This key has no access to the model."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    405: ("invalid_request_error", "method_not_supported", "Not allowed to use this method on this path."),
    408: ("timeout_error", "request_timeout", "The request timed out."),
    409: ("conflict_error", "conflict", "The request conflicts with another one."),
    413: ("invalid_request_error", "request_too_large", "The request is too large."),
    422: ("invalid_request_error", "unprocessable_entity", "The request cannot be processed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached."),
    500: ("server_error", None, "The server had an error while processing your request."),
    502: ("server_error", "bad_gateway", "Bad gateway."),
    503: ("server_error", "service_unavailable", "The service is temporarily unavailable."),
    504: ("server_error", "gateway_timeout", "The upstream did not answer in time."),
    529: ("overloaded_error", "overloaded", "Overloaded."),
}

_WAF_PAGE = (
    b"<!DOCTYPE html><html><head><title>Access denied</title></head><body><h1>Request blocked</h1></body></html>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """What an error body says; what is left None follows from the status."""

    type: str | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None


def error_body(exchange: Exchange, status: int, error: Error | None = None) -> bytes:
    """An error body for a status, in the form in which the exchange is held."""
    given = error or Error()
    kind, code, message = _ERRORS.get(status, ("server_error" if status >= 500 else "api_error", None, "Error."))
    told = Told(given.message or message, given.type or kind, given.code or code, given.param)
    return exchange.form.error(status, told)


def status(
    code: int,
    error: Error | None = None,
    *,
    retry_after: float | str | None = None,
    headers: Pairs = (),
) -> Fault:
    """Any HTTP status with an error body.

    `retry_after` is sent as it is given: a number of seconds (whole or not), a date, or rubbish.
    """
    lines = [*headers] if retry_after is None else [("Retry-After", str(retry_after)), *headers]
    name = f"{code}" if retry_after is None else f"{code}:{retry_after}"
    return Fault(name, lambda exchange: exchange.reply(code, error_body(exchange, code, error), headers=lines))


def retry_after_date(seconds: float = 2.0, code: int = 429) -> Fault:
    """An error whose Retry-After is a date (RFC 9110), so many seconds ahead of the simulator's clock."""

    def play(exchange: Exchange) -> None:
        date = formatdate(exchange.clock.wall() + seconds, usegmt=True)
        exchange.reply(code, error_body(exchange, code), headers=[("Retry-After", date)])

    return Fault(f"retry-after-date:{seconds:g}", play)


def retry_after_ms(milliseconds: float = 500.0, code: int = 429) -> Fault:
    """An error with `retry-after-ms` alone, as Azure sends it."""
    step = status(code, headers=[("retry-after-ms", f"{milliseconds:g}")])
    return Fault(f"retry-after-ms:{milliseconds:g}", step.play)


def insufficient_quota() -> Fault:
    """429 which no waiting cures: the account has no money left."""
    message = "You exceeded your current quota, please check your plan and billing details."
    error = Error(type="insufficient_quota", code="insufficient_quota", message=message)
    return Fault("insufficient-quota", status(429, error).play)


def context_length(limit: int = 8192) -> Fault:
    """400: the prompt does not fit into the model."""

    def play(exchange: Exchange) -> None:
        tokens = max(exchange.answer.prompt_tokens, limit + 1)
        message = f"This model's maximum context length is {limit} tokens, but your messages have {tokens} tokens."
        error = Error(code="context_length_exceeded", message=message, param="messages")
        exchange.reply(400, error_body(exchange, 400, error))

    return Fault("context-length", play)


def content_policy() -> Fault:
    """400: the prompt was refused for what it says."""
    message = "Your request was rejected as a result of our safety system."
    return Fault("content-policy", status(400, Error(code="content_policy_violation", message=message)).play)


def model_not_found() -> Fault:
    """404: this provider has no such model."""

    def play(exchange: Exchange) -> None:
        message = f"The model `{exchange.model}` does not exist or you do not have access to it."
        exchange.reply(404, error_body(exchange, 404, Error(message=message)))

    return Fault("model-not-found", play)


def firewall() -> Fault:
    """403 with the HTML page of a web application firewall."""
    return Fault("firewall", lambda exchange: exchange.reply(403, _WAF_PAGE, content_type="text/html; charset=utf-8"))


def no_prefill() -> Fault:
    """400 when the conversation ends with a message of the assistant; a good answer otherwise."""
    error = Error(message="Prefilling assistant messages is not supported for this model.", param="messages")

    def play(exchange: Exchange) -> None:
        last = exchange.request.json["messages"][-1:]
        if any(role == "assistant" for role, _ in answers.texts(last)):
            exchange.reply(400, error_body(exchange, 400, error))
        else:
            exchange.deliver(exchange.answer)

    return Fault("no-prefill", play)


def redirect(location: str, code: int = 307) -> Fault:
    """A redirect (301, 302, 303, 307, 308) to an address."""
    return Fault(f"{code}:{location}", lambda exchange: exchange.reply(code, b"", headers=[("Location", location)]))
