"""One answer as it is kept, and the fresh objects that each hit makes of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holyroute.caching.key import NO_STORE, directives
from holyroute.core import codec, reply, verdicts
from holyroute.core.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.core.call import Call
    from holyroute.core.completion import Usage
    from holyroute.core.target import Target

HIT, STALE, COALESCED = "hit", "stale", "coalesced"

OVERHEAD = 600  # bytes that an entry takes besides its body and headers, measured with tracemalloc

# Headers of one connection, of one caller, or of a body that is kept decoded.
_DROPPED = frozenset(
    {
        "age",
        "connection",
        "content-encoding",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "set-cookie",
        "set-cookie2",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# Why a model stopped, where it had said all it wanted to. Providers have many words for the other reasons.
_WHOLE = ("stop", "end_turn", "eos", None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A validated answer. Times in monotonic seconds."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes  # without content encoding
    target: Target  # who gave it
    usage: Usage | None
    stored: float
    expires: float  # from then on it is stale …
    gone: float  # … and from then on of no use at all
    size: int  # bytes

    def holds(self, text: str) -> bool:
        """Whether a text stands in the body or in a header."""
        return text.encode() in self.body or any(text in value for _, value in self.headers)

    def outcome(self, call: Call, how: str, now: float) -> Outcome:
        """The answer for one more caller, who may change it as he likes."""
        response = None
        if call.origin is not None:
            headers = dict(self.headers)
            headers |= {"Content-Length": str(len(self.body)), "Age": str(max(0, int(now - self.stored)))}
            headers["X-Holyroute-Cache"] = how
            response = reply.build(call.origin.request, self.status, self.reason, headers, self.body)
        return Outcome(
            verdict=verdicts.ANSWERED,
            status=self.status,
            response=response,
            answer=codec.loads(self.body),
            usage=self.usage,
            cached=how,
            target=self.target,
        )


def entry_of(outcome: Outcome, target: Target, now: float, *, ttl: float, stale: float) -> Entry | None:
    """What is kept of an outcome: a whole, validated answer that its provider lets us keep; None for all else."""
    response, answer = outcome.response, outcome.answer
    if outcome.verdict is not verdicts.ANSWERED or response is None or answer is None or not _is_whole(answer):
        return None
    if NO_STORE in directives(response.headers.get("Cache-Control", "")):
        return None
    body = response.content
    headers = tuple((name, value) for name, value in response.headers.items() if name.lower() not in _DROPPED)
    return Entry(
        status=response.status_code,
        reason=response.reason or "",
        headers=headers,
        body=body,
        target=target,
        usage=outcome.usage,
        stored=now,
        expires=now + ttl,
        gone=now + ttl + stale,
        size=OVERHEAD + sys.getsizeof(body) + _size_of(headers),
    )


def _is_whole(answer: Mapping[str, Any]) -> bool:
    return all(choice.get("finish_reason") in _WHOLE for choice in answer["choices"])


def _size_of(headers: tuple[tuple[str, str], ...]) -> int:
    pairs = sum(sys.getsizeof(pair) + sys.getsizeof(pair[0]) + sys.getsizeof(pair[1]) for pair in headers)
    return sys.getsizeof(headers) + pairs
