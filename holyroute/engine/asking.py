"""One target asked once: what comes back, judged, and in the form that the caller wants."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from requests.exceptions import RequestException

from holyroute.core import classify, codec, reply
from holyroute.core.cancel import LATE

if TYPE_CHECKING:
    from requests import Response

    from holyroute.core.outcome import Outcome
    from holyroute.engine.attempt import Attempt, Transport


def ask(attempt: Attempt, transport: Transport, *, only_look: bool = False) -> Outcome:
    """Send, and say what became of it. Failures come back as values."""
    token = attempt.token
    try:
        response = transport(attempt)
    except RequestException as error:
        outcome = classify.of_exception(error)
    except Exception:  # a cut socket may raise anything
        if not token.cancelled:
            raise
        outcome = classify.of_cut(None, attempt.patience.limit, by_caller=token.reason != LATE)
    else:
        outcome = classify.of_status(response) if only_look else _judged(attempt, response)
    if token.cancelled and not outcome.is_answer:
        return classify.of_cut(outcome.error, attempt.patience.limit, by_caller=token.reason != LATE)
    return outcome


def _judged(attempt: Attempt, response: Response) -> Outcome:
    reader, translation = attempt.reader, attempt.translation
    if reader is not None and reader.followed:
        return _of_stream(attempt, response)
    outcome = classify.of_response(response, translation.judged, lambda: translation.reader(attempt.call.choices))
    if translation.is_needed and not classify.is_stream(response):
        _translate(attempt, response, outcome)
    return outcome


def _of_stream(attempt: Attempt, response: Response) -> Outcome:
    """A stream of which something has come, or all of it."""
    reader = attempt.reader
    assert reader is not None
    if not reader.over:
        return classify.of_open_stream(response, reader)
    outcome = classify.of_stream(reader, None)
    outcome.response = response
    return outcome


def _translate(attempt: Attempt, response: Response, outcome: Outcome) -> None:
    """Give a response the form that its caller reads."""
    translation = attempt.translation
    if outcome.answer is not None:
        status, body = 200, translation.caller.answer_from_openai(outcome.answer)
    else:
        failed = response.status_code if response.status_code != 200 else HTTPStatus.BAD_GATEWAY
        status, body = translation.error(failed, _decoded(response))
    if status != response.status_code:
        response.status_code = status
        response.reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    reply.replace_body(response, codec.dumps(body))


def _decoded(response: Response) -> Any:
    try:
        return codec.loads(response.content)
    except (ValueError, RecursionError):
        return None
