"""What a row may cost at most.

Of one request: a token for each UTF-8 byte of its JSON, which no vocabulary exceeds (byte-level BPE and byte fallback
both end at single bytes), plus what a provider puts around each message; and as many tokens of answer as `max_tokens`
allows, or the model declares (`max_output`), for each choice. Prices are the configured ones.

Of one row there may be several requests that are billed, though one answer comes of it: after a read timeout, a broken
body or an answer that is none, the provider may have done the work, and somebody else is asked. A call that waits for
nobody (`Call.waits`) visits each candidate once and asks it at most twice (the blip rule), and a request whose reused
connection died before a byte came back is sent once more. So the bound of a row is `ATTEMPTS` × `SENDS` × the sum over
its candidates. That much is never set aside for a row where the batch can be asked between two attempts: there each
attempt is paid for before it is sent (`governor.Purse`), and what is set aside for a row is one at its dearest
candidate.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from holyroute.batch.calls import call_of
from holyroute.cost.tokens import PER_MESSAGE, PER_NAME, PER_REQUEST
from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from decimal import Decimal

    from holyroute.batch.options import Defaults
    from holyroute.batch.row import Row
    from holyroute.core.call import Call
    from holyroute.core.target import Target
    from holyroute.engine.router import Router

ATTEMPTS = 2  # at one target within one call that may be billed
SENDS = 2  # of one attempt

# What has a price of its own, or adds to the prompt what is not in it: searches, documents, servers.
_ELSEWHERE = (
    *("web_search_options", "data_sources", "dataSources", "mcp_servers", "container", "plugins", "search_parameters"),
)


def worst_case(row: Row, router: Router, defaults: Defaults) -> Decimal | None:
    """USD that a row costs at most, whoever is asked for it and however often; None where that is not known.

    Not known: a candidate without a price, an answer without a limit (neither `max_tokens` nor a declared
    `max_output`), an image, a web search, or a row of which no call can be made.
    """
    each = _of_candidates(row, router, defaults)
    return None if each is None else sum(each[1:], each[0]) * ATTEMPTS * SENDS


def dearest(row: Row, router: Router, defaults: Defaults) -> Decimal | None:
    """USD for one answer of full length by the dearest candidate: most that a row costs when nothing goes wrong."""
    each = _of_candidates(row, router, defaults)
    return None if each is None else max(each)


def of_request(size: int, call: Call, target: Target) -> Decimal | None:
    """USD that one request costs at most at one target.

    Args:
        size: tokens of the prompt at most, as `prompt_bound` has it.
        call: whose answer it is.
        target: who is asked.
    """
    answer = _longest(call, target)
    if target.price is None or answer is None:
        return None
    return (size * target.price.input + answer * target.price.output) / 1_000_000


def prompt_bound(body: Mapping[str, Any]) -> int | None:
    """Tokens of a prompt at most; None where something in it has no bound."""
    if any(map(body.get, _ELSEWHERE)) or any(map(_is_no_text, _parts(body))):
        return None
    try:
        text = json.dumps(body, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return None
    messages = len(body.get("messages") or ())
    return len(text.encode("utf-8", "surrogatepass")) + PER_REQUEST + messages * (PER_MESSAGE + PER_NAME)


def _of_candidates(row: Row, router: Router, defaults: Defaults) -> list[Decimal] | None:
    if row.problem or row.body is None:
        return None
    call = call_of(row, defaults, router.config.time)
    try:
        candidates = router.candidates(call)
    except ConfigurationError:
        return None
    size = prompt_bound(call.body)
    if size is None or not candidates:
        return None
    each = [of_request(size, call, one.target) for one in candidates]
    known = [amount for amount in each if amount is not None]
    return known if len(known) == len(each) else None


def _longest(call: Call, target: Target) -> int | None:
    """Tokens of all choices of an answer at most."""
    said = [call.body.get("max_tokens"), call.body.get("max_completion_tokens")]
    limits = [limit for limit in said if type(limit) is int and limit > 0]
    longest = max(limits) if limits else target.max_output
    return None if longest is None else longest * call.choices


def _parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for message in body.get("messages") or ():
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                yield part


def _is_no_text(part: Mapping[str, Any]) -> bool:
    """Whether a part of a message is an image, a sound or a file: how many tokens those are, their bytes do not say."""
    return not isinstance(part.get("text"), str)
