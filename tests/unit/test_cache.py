"""Answers in memory: how many, how large, how long."""

from __future__ import annotations

import gc
import json
import pickle
import tracemalloc
from typing import Any

import pytest
import requests

from holyroute.caching.cache import SHARE, ResponseCache
from holyroute.caching.entry import Entry, entry_of
from holyroute.config.schema import CacheSettings
from holyroute.core import classify, verdicts
from holyroute.core.call import Call, Origin
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.core.stream import StreamReader
from holyroute.core.target import Provider, Target
from holyroute.testing import FakeClock

TARGET = Target(name="m", model="m", provider=Provider(name="p", base_url="https://p.example/v1"))
REQUEST = requests.Request("POST", "https://p.example/v1/chat/completions", json={}).prepare()
ORIGIN = Origin(request=REQUEST, base_url="https://p.example/v1")


def response(text: str = "hello", *, reason: Any = "stop", **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code, made.reason = 200, "OK"
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    choice = {"message": {"content": text}, "finish_reason": reason}
    made._content = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 3}}).encode()
    return made


def entry(text: str = "hello", now: float = 0.0, ttl: float = 60.0, stale: float = 0.0, **headers: str) -> Entry:
    made = entry_of(classify.of_response(response(text, **headers)), TARGET, now, ttl=ttl, stale=stale)
    assert made is not None
    return made


def cache(clock: FakeClock | None = None, **settings: Any) -> ResponseCache:
    return ResponseCache(CacheSettings(**settings), clock or FakeClock(0.0))


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_an_answer_stays_for_its_time() -> None:
    """Fresh for its TTL, stale for a while after, then gone, memory and all."""
    clock = FakeClock(0.0)
    answers = cache(clock)
    kept = entry(ttl=10, stale=5)
    answers.put(key(1), kept)
    seen = []
    for _ in range(4):
        seen.append(answers.get(key(1)) is kept)
        clock.advance(5 - 1e-6)

    assert seen == [True, True, True, True]
    assert kept.expires == 10
    clock.advance(1e-5)
    assert answers.get(key(1)) is None
    assert (len(answers), answers.info().bytes) == (0, 0)


def test_entries_are_bounded() -> None:
    """Beyond `max_entries` the one that was not used for longest goes."""
    answers = cache(max_entries=3)
    for number in range(3):
        answers.put(key(number), entry())
    answers.get(key(0))
    answers.put(key(3), entry())

    assert [answers.get(key(number)) is not None for number in range(4)] == [True, False, True, True]
    assert len(answers) == 3


def test_bytes_are_bounded() -> None:
    """Beyond `max_bytes` the oldest make room, as many as it takes."""
    size = entry("x" * 100).size
    answers = cache(max_bytes=40 * size)
    for number in range(50):
        answers.put(key(number), entry("x" * 100))
    full = answers.info()
    answers.put(key(99), entry("x" * 1_000))
    after = answers.info()

    assert (full.entries, full.bytes) == (40, 40 * size)
    assert after.bytes <= 40 * size
    assert after.entries < 40
    assert answers.get(key(99)) is not None
    assert answers.get(key(49)) is not None


def test_one_answer_does_not_push_out_all_others() -> None:
    """What is larger than its share is not kept, and what it would have replaced is not either."""
    answers = cache(max_bytes=100_000)
    answers.put(key(1), entry())
    answers.put(key(1), entry("x" * int(SHARE * 100_000)))

    assert answers.get(key(1)) is None
    assert len(answers) == 0


def test_clearing() -> None:
    """Nothing is left, and the counts go on."""
    answers = cache()
    answers.put(key(1), entry())
    answers.count("hit")
    answers.clear()

    assert (len(answers), answers.info().bytes, answers.info().hits) == (0, 0, 1)


@pytest.mark.parametrize("headers", [0, 4, 20])
def test_bytes_are_those_of_the_machine(headers: int) -> None:
    """What the cache thinks it holds is what it holds, within a fifth."""
    answers = ResponseCache(CacheSettings(), SYSTEM_CLOCK)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2_000):
        own = {f"X_Header_{number}_{one}": f"value {number} {one}" for one in range(headers)}
        answers.put(key(number), entry(f"hello {number} " * 20, SYSTEM_CLOCK.now(), **own))
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert answers.info().bytes == pytest.approx(used, rel=0.2)


@pytest.mark.parametrize("reason", ["stop", "end_turn", "eos", None])
def test_whole_answers_are_kept(reason: Any) -> None:
    """Those that a model ended by itself."""
    assert entry_of(classify.of_response(response(reason=reason)), TARGET, 0, ttl=1, stale=0) is not None


@pytest.mark.parametrize(
    "made",
    [
        response(reason="length"),
        response(reason="error"),
        response(reason="tool_calls"),
        response(reason="content_filter"),
        response(""),
        response(Cache_Control="private, No-Store"),
    ],
    ids=["truncated", "error", "tools", "filtered", "empty", "no-store"],
)
def test_other_answers_are_not_kept(made: requests.Response) -> None:
    """Cut off, filtered, empty, or not to be stored by the provider's own word."""
    assert entry_of(classify.of_response(made), TARGET, 0, ttl=1, stale=0) is None


def test_errors_and_what_was_not_validated_are_not_kept() -> None:
    """A failure, a stream that is still to be read, an answer that nobody decoded."""
    failed, streamed = response(), response()
    failed.status_code = 500
    streamed.headers["Content-Type"] = "text/event-stream"
    streamed._content = b"data: {}\n\n"
    outcomes = [
        classify.of_response(failed),
        classify.of_response(streamed),
        classify.of_open_stream(response(), StreamReader()),
        classify.of_status(response()),
        classify.of_exception(requests.ReadTimeout()),
    ]

    assert [entry_of(outcome, TARGET, 0, ttl=1, stale=0) for outcome in outcomes] == [None] * 5


def call(origin: Origin | None = ORIGIN) -> Call:
    return Call(model="m", body={}, deadline=1, connect=1, read=1, origin=origin)


def test_every_hit_has_its_own_answer() -> None:
    """What one caller does to it, the next one does not see."""
    kept = entry()
    first, second = kept.outcome(call(), "hit", 0), kept.outcome(call(), "hit", 0)
    assert first.answer is not None
    assert first.response is not None
    first.answer["choices"].clear()
    first.response.headers.clear()
    first.response._content = b""

    assert second.answer == response().json()
    assert second.response is not None
    assert second.response.json() == response().json()
    assert second.response.headers["X-Holyroute-Cache"] == "hit"
    assert (second.verdict, second.usage, second.target) == (verdicts.ANSWERED, second.usage, TARGET)
    assert second.usage is not None


def test_a_response_is_real() -> None:
    """Status, reason, headers, body, request and URL; its age; and it pickles."""
    kept = entry(Content_Type="application/json; charset=utf-8", X_Request_Id="r1", age="7")
    made = kept.outcome(call(), "stale", 61.9).response
    assert made is not None
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own

    assert (made.status_code, made.reason, made.ok, made.encoding) == (200, "OK", True, "utf-8")
    assert (made.url, made.request) == (REQUEST.url, REQUEST)
    assert dict(made.headers) == {
        "Content-Type": "application/json; charset=utf-8",
        "X-Request-Id": "r1",
        "Content-Length": str(len(made.content)),
        "Age": "61",
        "X-Holyroute-Cache": "stale",
    }
    assert (made.raw.status, made.raw.headers["x-request-id"], made.raw.read()) == (200, "r1", b"")
    assert (again.json(), again.headers) == (made.json(), made.headers)


def test_headers_of_one_connection_or_caller_are_not_kept() -> None:
    """Cookies least of all; and a body that is kept decoded does not say that it is encoded."""
    headers = {
        "Set_Cookie": "a=b",
        "Connection": "close",
        "Keep_Alive": "timeout=5",
        "Transfer_Encoding": "chunked",
        "Content_Encoding": "gzip",
        "Content_Length": "9",
    }
    kept = entry(**headers)

    assert kept.headers == ()
    assert kept.outcome(call(), "hit", 0).response is not None


def test_a_client_needs_no_response() -> None:
    """Only doors of requests get one."""
    assert entry().outcome(call(None), "hit", 0).response is None
