"""How the end of an attempt or call is shown: without our keys; as requests would, or as an exception of ours."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

from requests.exceptions import ReadTimeout, RequestException, SSLError
from urllib3 import HTTPHeaderDict

from holyroute.context import TRACE
from holyroute.core import reply, verdicts
from holyroute.core.trace import NO_CREDENTIAL
from holyroute.dialects import wire
from holyroute.dialects.translation import DIALECTS
from holyroute.exceptions import (
    AllTargetsFailed,
    ConfigurationError,
    ContentFiltered,
    DeadlineExceeded,
    HolyRouteError,
    InvalidRequest,
)
from holyroute.transport.stream import MASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest, Response

    from holyroute.core.call import Origin
    from holyroute.core.outcome import Outcome
    from holyroute.core.trace import Trace
    from holyroute.engine.attempt import Attempt


def without_key(attempt: Attempt, request: PreparedRequest, send: Callable[[], Response]) -> Response:
    """Send a request with a key of ours; neither what comes back nor what is raised tells it."""
    shown = wire.without_credentials(request)
    handled = sys.exception()
    try:
        response = send()
        _mask(response, attempt)
    except RequestException as error:
        error.request = shown
        _forget_frames(error, handled)
        raise
    except OSError as error:  # what requests says of a CA bundle or certificate that is not there
        raise SSLError(error, request=shown) from None
    response.request = shown
    return response


def _mask(response: Response, attempt: Attempt) -> None:
    """Some providers repeat the key that they reject. In a stream it is masked as it passes."""
    secret = attempt.secret
    if not secret:
        return
    content = None if attempt.reader is not None and attempt.reader.followed else response.content
    if content and secret in content:
        response._content = content.replace(secret, MASK)  # noqa: SLF001 - as mocks of requests set it
    text, mask = secret.decode(), MASK.decode()
    if not _head_tells(response, text):
        return
    response.reason = response.reason and response.reason.replace(text, mask)
    for headers in (response.headers, getattr(response.raw, "headers", None) or {}):
        # somebody else's adapter may put there what is no text
        for name in {name for name, value in headers.items() if isinstance(value, str) and text in value}:
            _mask_header(headers, name, text, mask)
    for cookie in response.cookies:
        cookie.value = cookie.value and cookie.value.replace(text, mask)


def _head_tells(response: Response, text: str) -> bool:
    """Whether a text stands in the head. Its headers, those of `raw`, and the cookies are made of the same lines."""
    store = getattr(response.headers, "_store", None)  # what requests keeps them in: names and values, without a walk
    values = response.headers.values() if store is None else [value for _, value in store.values()]
    return text in (response.reason or "") or any(isinstance(value, str) and text in value for value in values)


def _mask_header(headers: Any, name: str, text: str, mask: str) -> None:
    """One header, which urllib3 may hold several times."""
    values = headers.getlist(name) if isinstance(headers, HTTPHeaderDict) else [headers[name]]
    first, *more = [value.replace(text, mask) for value in values]
    headers[name] = first
    for value in more:
        headers.add(name, value)


def _forget_frames(error: BaseException | None, handled: BaseException | None) -> None:
    """Frames hold the headers that were sent, and error reporters send the variables of frames along."""
    while error is not None and error is not handled:  # what the caller was handling before is not ours to touch
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def exception_of(outcome: Outcome) -> HolyRouteError:
    """The exception of ours for a call without an answer."""
    trace = outcome.trace
    assert trace is not None
    if outcome.verdict in {verdicts.FILTERED, verdicts.CONTENT_POLICY}:
        text = f"{trace.attempts[-1].target.name}: {outcome.detail or outcome.verdict}"
        return ContentFiltered(text, trace=trace, response=outcome.response)
    if outcome.is_final and outcome.verdict is not verdicts.CANCELLED:
        return InvalidRequest(
            f"{outcome.verdict}: {outcome.detail}".rstrip(": "), trace=trace, response=outcome.response
        )
    if not trace.attempts and trace.skipped and all(skip.reason.startswith(NO_CREDENTIAL) for skip in trace.skipped):
        return ConfigurationError(_missing_keys(trace), trace=trace)
    kind = DeadlineExceeded if trace.out_of_time and not trace.cancelled else AllTargetsFailed
    head = (
        "cancelled by its token" if outcome.verdict is verdicts.CANCELLED else f"nobody could answer: {outcome.verdict}"
    )
    failure = kind(
        f"{head}\n{trace}",
        trace=trace,
        response=outcome.response,
        retry_at=trace.retry_at,
        retry_after=outcome.retry_after,
        ticket=trace.ticket,
    )
    failure.__cause__ = outcome.error
    return failure


def _missing_keys(trace: Trace) -> str:
    lines = dict.fromkeys(
        f"providers.{skip.target.provider.name}.api_key_env: expected a key in the environment variable "
        f"{' or '.join(skip.target.provider.api_key_env)}, which is not set (endpoint {skip.target.provider.base_url})"
        for skip in trace.skipped
    )
    return "\n".join(lines)


def as_requests_would(outcome: Outcome, origin: Origin) -> Response:
    """The response to show for a call without an answer, or the exception that requests would have raised."""
    if outcome.response is not None:
        return outcome.response
    error = outcome.error
    trace = outcome.trace
    assert trace is not None
    if error is None and trace.out_of_time:
        error = ReadTimeout(f"no answer within {trace.seconds:.1f} s")
    if error is None:
        return _synthesised(outcome, trace, origin)
    if isinstance(error, RequestException) and error.request is None:
        error.request = origin.request
    setattr(error, TRACE, trace)
    for line in trace.lines:
        error.add_note(f"holyroute: {line}")
    raise error


def _synthesised(outcome: Outcome, trace: Trace, origin: Origin) -> Response:
    """Nothing was sent: a 503, or a 429 where only rate limits are in the way, in the caller's error shape."""
    waiting = [skip for skip in trace.skipped if skip.retry_at is not None]
    limited = bool(waiting) and all(verdicts.RATE_LIMITED.name in skip.reason for skip in waiting)
    status, reason = (429, "Too Many Requests") if limited else (503, "Service Unavailable")
    reasons = "; ".join(map(str, trace.skipped))
    error = {
        "message": f"{outcome.verdict}: {reasons or 'there is no candidate'}",
        "type": "rate_limit_error" if limited else "server_error",
        "param": None,
        "code": "holyroute_nothing_sent",
    }
    headers = {
        "Content-Type": "application/json",
        "Retry-After": str(max(1, math.ceil(outcome.retry_after or 1))),
    }
    _, body = DIALECTS[origin.dialect].error_from_openai(status, {"error": error})
    return reply.build(origin.request, status, reason, headers, json.dumps(body).encode())
