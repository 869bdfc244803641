"""Streams: answered by somebody until the first word, whole or broken after it, never a silent success."""

from __future__ import annotations

import gc
import io
import json
import math
import threading
from decimal import Decimal
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest
import requests
import urllib3

import holyroute
from holyroute.core import verdicts
from holyroute.core.events import CallFinished
from holyroute.core.stream import StreamReader
from holyroute.engine.health import health_of
from holyroute.simulator import Exchange, Fault, Simulator, answers, faults
from holyroute.transport.stream import StreamBody

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.config.schema import Config
    from holyroute.engine.router import Router

    Post = Callable[..., requests.Response]

PROMPT = "What is the time?"
GOOD = f"Answer to: {PROMPT}"
BODY = {"model": "ma", "messages": [{"role": "user", "content": PROMPT}], "stream": True}
KEY = {"Authorization": "Bearer test-key-a"}


@pytest.fixture
def session(router: Router) -> holyroute.Session:
    return holyroute.Session(router=router)


@pytest.fixture
def post(a: Simulator, session: holyroute.Session) -> Post:
    """Asks A as a script does, for a stream."""

    def post(stream: bool = True, **fields: Any) -> requests.Response:
        url = f"{a.base_url}/chat/completions"
        return session.post(url, json={**BODY, **fields}, headers=KEY, stream=stream, timeout=(3, 3))

    return post


def text_of(events: bytes) -> str:
    """What a stream of OpenAI's form says."""
    chunks = [json.loads(line[6:]) for line in events.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


READINGS: dict[str, Callable[[requests.Response], bytes]] = {
    "iter_lines": lambda response: b"\n".join(response.iter_lines()),
    "iter_content 1": lambda response: b"".join(response.iter_content(1)),
    "iter_content None": lambda response: b"".join(response.iter_content(None)),
    "content": lambda response: response.content,
    "raw.read": lambda response: response.raw.read(),
    "raw.read 7": lambda response: b"".join(iter(lambda: response.raw.read(7), b"")),
    "raw.stream": lambda response: b"".join(response.raw.stream(5)),
    "raw.data": lambda response: response.raw.data,
    "raw as a file": lambda response: b"".join(response.raw),
}


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("gzipped", [False, True])
def test_a_stream_is_read_as_in_requests(a: Simulator, post: Post, reading: str, *, gzipped: bool) -> None:
    """Every way of reading gives the bytes that the server sent, and the connection serves the next call."""
    if gzipped:
        a.script("*", faults.gzipped(), faults.gzipped())
    for _ in range(2):
        response = post()

        assert text_of(READINGS[reading](response)) == GOOD
        assert response.raw.closed
        assert response.raw.read() == b""
    assert {seen.connection for seen in a.seen} == {1}


def test_what_is_left_of_a_raw_answer_is_not_lost(post: Post) -> None:
    """Whichever of urllib3's ways somebody changes to in the middle; and its socket and its progress are told."""
    response, other = post(), post()
    socket = response.raw.fileno()
    first = response.raw.read(7)
    came = response.raw.tell()
    rest = response.raw.data
    chunks = [other.raw.read(7), *other.raw.read_chunked(5)]

    assert socket >= 0
    assert text_of(first + rest) == GOOD
    assert response.raw.data is rest
    assert came == 0  # urllib3 does not count chunks
    assert text_of(b"".join(chunks)) == GOOD


def closed_first(response: requests.Response) -> bytes:
    response.close()
    return b"".join(response.iter_lines())


@pytest.mark.parametrize("reading", [*READINGS.values(), closed_first], ids=[*READINGS, "closed"])
def test_a_stream_is_read_twice_as_in_requests(
    a: Simulator, post: Post, reading: Callable[[requests.Response], bytes]
) -> None:
    """The second time gives what requests gives: the same, nothing, or its exception; nothing at all once closed."""

    def lengths(response: requests.Response) -> list[int | type[Exception]]:
        found: list[int | type[Exception]] = []
        for _ in range(2):
            try:
                found.append(len(reading(response)))
            except requests.exceptions.StreamConsumedError as error:
                found.append(type(error))
        return found

    plain = requests.post(f"{a.base_url}/chat/completions", json=BODY, headers=KEY, stream=True, timeout=3)

    assert lengths(post()) == lengths(plain)


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(503),
        faults.reset(),
        faults.cut_stream(after=0),
        faults.error_event(after=0),
        faults.malformed_event(after=0),
        faults.status(500),
    ],
    ids=str,
)
@pytest.mark.parametrize("stream", [True, False])
def test_until_the_first_word_somebody_else_answers(
    a: Simulator, b: Simulator, post: Post, fault: Any, *, stream: bool
) -> None:
    """Whatever happens to A before it has said anything, B's stream is the answer."""
    a.always("*", fault)
    response = post(stream)

    assert text_of(response.content) == GOOD
    assert holyroute.trace_of(response).answered_by.name == "mb"  # type: ignore[union-attr]
    assert len(b.seen) == 1


@pytest.mark.parametrize(
    "fault",
    [
        faults.cut_stream(after=40),
        faults.cut_stream(after=40, reset=True),
        faults.error_event(after=3),
        faults.malformed_event(after=3),
        faults.no_finish_reason(),
    ],
    ids=str,
)
@pytest.mark.parametrize("reading", ["iter_lines", "iter_content None", "content"])
def test_after_the_first_word_a_broken_stream_is_no_success(
    a: Simulator, b: Simulator, post: Post, router: Router, fault: Any, reading: str
) -> None:
    """What requests raises for a broken body; the next call is answered, and the breaker has heard of it."""
    a.script("*", fault)
    response = post()
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        READINGS[reading](response)

    assert holyroute.trace_of(response).verdict in {verdicts.BROKEN_BODY, verdicts.SERVER_ERROR}  # type: ignore[union-attr]
    assert [guard.breaker.snapshot().consecutive_failures for guard in router.guards] == [1]
    assert b.seen == []
    assert text_of(post().content) == GOOD


def test_what_was_said_before_the_break_is_delivered(a: Simulator, post: Post) -> None:
    """Forty of sixty words, and then the exception."""
    a.script("*", faults.cut_stream(after=40))
    pieces = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        pieces.extend(post().iter_content(None))

    assert len(text_of(b"".join(pieces)).split()) == 40


@pytest.mark.parametrize("stream", [True, False])
def test_done_is_optional(a: Simulator, post: Post, *, stream: bool) -> None:
    """A finish reason completes a stream."""
    a.script("*", faults.no_done())
    response = post(stream)

    assert text_of(response.content) == GOOD
    assert holyroute.trace_of(response).verdict is verdicts.ANSWERED  # type: ignore[union-attr]


class _Reading(requests.Session):
    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        response = super().send(request, **kwargs)
        _ = response.content
        return response


class ReadingSession(holyroute.sessions.RoutingMixin, _Reading):
    """Below us, every answer is read as a whole, for a log perhaps."""


@pytest.mark.parametrize("reading", READINGS)
def test_a_stream_that_a_session_below_has_read_is_no_broken_one(a: Simulator, router: Router, reading: str) -> None:
    """Asked for once, and still there to be read in any way."""
    session = ReadingSession()
    session._router = router
    response = session.post(f"{a.base_url}/chat/completions", json=BODY, headers=KEY, stream=True)

    assert text_of(READINGS[reading](response)) == GOOD
    assert len(a.seen) == 1
    assert holyroute.trace_of(response).verdict is verdicts.ANSWERED  # type: ignore[union-attr]


def blank_events() -> Fault:
    """A good stream between events that hold nothing."""

    def play(exchange: Exchange) -> None:
        events = [b"event: ping\ndata:\n\n", *exchange.events(exchange.answer).all(), b"data: \n\n"]
        exchange.finish(exchange.stream_head() + b"".join(map(answers.chunk, events)) + answers.END)

    return Fault("blank-events", play)


def test_blank_events_only_keep_the_connection_alive(a: Simulator, router: Router, post: Post) -> None:
    """They are handed on like comments, and are no broken answer: for scripts and for clients."""
    a.always("*", blank_events())
    response = post()
    with holyroute.Client(router=router) as client:
        completion = client.chat(BODY["messages"], model="ma", stream=True).read()

    assert response.content.startswith(b"event: ping\ndata:\n\n")
    assert holyroute.trace_of(response).answered_by.name == "ma"  # type: ignore[union-attr]
    assert completion.content == GOOD
    assert completion.model == "ma"


@pytest.mark.parametrize("stream", [True, False])
def test_fewer_choices_than_asked_for_are_an_answer(post: Post, *, stream: bool) -> None:
    """Many providers give one choice whatever `n` says, in a stream as in a plain answer."""
    response = post(stream, n=2)

    assert text_of(response.content) == GOOD
    assert holyroute.trace_of(response).verdict is verdicts.ANSWERED  # type: ignore[union-attr]


def test_a_stream_read_as_one_body_fails_over_wherever_it_breaks(a: Simulator, b: Simulator, post: Post) -> None:
    """Nothing was handed out yet, so that somebody else can give the whole answer."""
    a.script("*", faults.cut_stream(after=40))

    assert text_of(post(False).content) == GOOD
    assert len(a.seen) + len(b.seen) == 2


def test_comments_count_as_a_sign_of_life(a: Simulator, configured: Callable[..., Config], env: dict[str, str]) -> None:
    """They meet the limit of the first byte, whatever the first word takes."""
    a.script("*", faults.comments(count=6, interval=0.1))
    with holyroute.Client(router=holyroute.Router(configured(time={"first_byte": 0.3}), env=env)) as client:
        answer = client.chat([{"role": "user", "content": PROMPT}], model="ma", stream=True)

        assert answer.read().content == GOOD
        assert answer.trace.failovers == 0


def test_silence_behind_the_headers_is_left(
    a: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> None:
    """The limit of the first byte ends the attempt; the next target is asked."""
    a.script("*", faults.first_token_late(20))
    with holyroute.Client(router=holyroute.Router(configured(time={"first_byte": 0.3}), env=env)) as client:
        answer = client.chat([{"role": "user", "content": PROMPT}], model="ma", stream=True)

        assert answer.read().content == GOOD
        assert answer.trace.answered_by.name == "mb"
        assert answer.trace.attempts[0].verdict in {verdicts.READ_TIMEOUT, verdicts.CUT_SHORT}


def test_a_stall_in_the_middle_is_what_requests_makes_of_it(a: Simulator, session: holyroute.Session) -> None:
    """The read timeout of the script holds between two pieces of a body."""
    a.script("*", faults.stall(after=5))
    response = session.post(f"{a.base_url}/chat/completions", json=BODY, headers=KEY, stream=True, timeout=(3, 0.3))
    with pytest.raises(requests.ConnectionError, match="timed out"):
        _ = response.content

    assert holyroute.trace_of(response).verdict is verdicts.READ_TIMEOUT  # type: ignore[union-attr]


def test_the_deadline_ends_a_stream_that_never_ends(
    a: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> None:
    """However lively it is; no fault of the target."""
    a.script("*", faults.slow_stream(0.05))
    prompt = " ".join(["word"] * 200)
    with holyroute.Client(router=holyroute.Router(configured(), env=env)) as client:
        stream = client.chat([{"role": "user", "content": prompt}], model="ma", stream=True, deadline=0.6)
        with pytest.raises(holyroute.StreamInterrupted) as caught:
            stream.read()

    assert caught.value.partial.startswith("Answer to: word")
    assert stream.trace.verdict is verdicts.CUT_SHORT


def test_closing_early_is_the_callers_right(b: Simulator, post: Post, router: Router) -> None:
    """The target did well; the connection is closed, and what was written so far is booked as an estimate."""
    response = post()
    next(response.iter_lines())
    response.close()
    trace = holyroute.trace_of(response)
    entry = router.ledger.entries()[0]

    assert trace is not None
    assert trace.verdict is verdicts.LEFT
    assert entry.estimated == 1
    assert [guard.breaker.snapshot().consecutive_failures for guard in router.guards] == [0]
    assert text_of(post().content) == GOOD
    assert b.seen == []


def test_a_lost_stream_is_booked_with_the_next_call(
    a: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> None:
    """Whoever forgets a stream holds no place for ever: here the only one that the provider has.

    It is over as soon as nobody knows it any more, as in requests, not when the garbage collector comes by.
    """
    provider = {"a": {"base_url": a.base_url, "api_key_env": "KEY_A", "max_concurrency": 1}}
    router = holyroute.Router(configured(providers=provider), env=env)
    session = holyroute.Session(router=router)
    url = f"{a.base_url}/chat/completions"
    gc.disable()
    try:
        response: Any = session.post(url, json=BODY, headers=KEY, stream=True)
        next(response.iter_lines())
        del response
        answer = session.post(url, json=BODY, headers=KEY)
    finally:
        gc.enable()

    assert text_of(answer.content) == GOOD
    assert holyroute.trace_of(answer).answered_by.name == "ma"  # type: ignore[union-attr]


def test_a_lost_stream_is_booked_when_somebody_looks(post: Post, router: Router) -> None:
    """Whether or not another call comes."""
    response = post()
    next(response.iter_lines())
    del response
    gc.collect()
    health = health_of(router)

    assert [(one.target, one.total.count) for one in health.targets] == [("ma", 1)]
    assert health.calls.count == 1


def test_two_threads_that_book_a_lost_stream_do_not_wait_for_another(router: Router) -> None:
    """Both see that there is one; the slower one goes on with its own call."""

    class Raced(SimpleQueue[Any]):
        """Somebody else takes the last one between the look and the grip."""

        def empty(self) -> bool:
            return False

    router.streams._forgotten = Raced()
    thread = threading.Thread(target=router.streams.book_forgotten, daemon=True)
    thread.start()
    thread.join(15)

    assert not thread.is_alive()


def test_a_lost_stream_of_a_client_ends_at_once(
    a: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> None:
    """Also where somebody has read a part of it: the only place there is becomes free."""
    provider = {"a": {"base_url": a.base_url, "api_key_env": "KEY_A", "max_concurrency": 1}}
    gc.disable()
    try:
        with holyroute.Client(router=holyroute.Router(configured(providers=provider), env=env)) as client:
            next(client.chat(BODY["messages"], model="ma", stream=True))
            answer = client.chat(BODY["messages"], model="ma")
    finally:
        gc.enable()

    assert answer.model == "ma"


@pytest.mark.parametrize("way", ["read", "closed", "lost before", "lost after"])
def test_a_stream_is_booked_by_the_process_that_opened_it(post: Post, router: Router, way: str) -> None:
    """A forked child finds its parent's streams in its memory: whatever becomes of them there is not its bill."""
    response: Any = post()
    if way == "lost before":
        response = None
    router.after_fork()  # what happens in the child
    if way == "read":
        _ = response.content
    elif way == "closed":
        response.close()
    response = None
    _ = post().content

    assert [entry.attempts for entry in router.ledger.entries()] == [1]
    assert [guard.breaker.snapshot().consecutive_failures for guard in router.guards] == [0]


@pytest.mark.parametrize("reported", [True, False])
def test_usage_and_cost_of_a_stream_are_booked(a: Simulator, post: Post, router: Router, *, reported: bool) -> None:
    """As reported, else as estimated and marked; the trace has them when the stream is over."""
    response = post(stream_options={"include_usage": True}) if reported else post()
    open_trace = holyroute.trace_of(response)
    assert open_trace is not None
    before = open_trace.cost
    _ = response.content
    entry = router.ledger.entries()[0]
    billed = a.statistics()["ma"]

    assert before is None
    assert entry.estimated == (0 if reported else 1)
    assert entry.answers == 1
    assert open_trace.cost == entry.cost
    if reported:
        assert entry.usage.prompt_tokens == billed.prompt_tokens
        assert entry.usage.completion_tokens == billed.completion_tokens
    else:
        assert entry.cost is not None
        assert Decimal(0) < entry.cost < Decimal("0.001")


def test_a_call_is_finished_when_its_stream_is(post: Post, router: Router) -> None:
    """Observers hear of it once, with all that it took."""
    heard: list[Any] = []
    router.events.subscribe(heard.append)
    response = post()
    before = [type(event) for event in heard]
    _ = response.content
    finished = [event for event in heard if isinstance(event, CallFinished)]

    assert CallFinished not in before
    assert len(finished) == 1
    assert finished[0].trace.attempts[-1].usage is not None


def test_a_caller_may_leave_from_another_thread(a: Simulator, router: Router) -> None:
    """The token of the call holds until the end of its stream."""
    a.script("*", faults.stall(after=5))
    token = holyroute.CancelToken()
    with holyroute.Client(router=router) as client:
        stream = client.chat([{"role": "user", "content": PROMPT}], model="ma", stream=True, cancel=token)
        next(stream)
        token.cancel()
        with pytest.raises(holyroute.StreamInterrupted):
            stream.read()

    assert stream.trace.verdict is verdicts.CANCELLED


def test_what_was_left_or_broke_off_has_no_end_to_read(a: Simulator, router: Router) -> None:
    """However often it is asked for: the same exception with what was said."""
    a.script("*", "ok", faults.cut_stream(after=5))
    with holyroute.Client(router=router) as client:
        left = client.chat(BODY["messages"], model="ma", stream=True)
        words = [next(left).text, next(left).text]
        left.close()
        broken = client.chat(BODY["messages"], model="ma", stream=True)
        with pytest.raises(holyroute.StreamInterrupted):
            broken.read()
    with pytest.raises(holyroute.StreamInterrupted, match="was left after") as early:
        left.read()
    with pytest.raises(holyroute.StreamInterrupted) as again:
        broken.read()

    assert early.value.partial == "".join(words)
    assert again.value.partial == broken.text


def test_a_stream_that_another_thread_closes_is_not_whole() -> None:
    """Who is reading at that moment gets the exception of a broken body, not a short one without a word."""

    class Closing(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                body.close()  # as another thread might, while this one waits for bytes
            return super().read1(size)

    content = Closing(b'data: {"choices": [{"index": 0, "delta": {"content": "Good"}}]}\n\n')
    raw = urllib3.HTTPResponse(body=content, preload_content=False)
    body = StreamBody(raw, StreamReader(), holyroute.CancelToken(), math.inf)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        body.read()


@pytest.mark.parametrize("reading", READINGS)
def test_a_plain_answer_to_a_call_for_a_stream_is_judged_whole(
    a: Simulator, b: Simulator, session: holyroute.Session, reading: str
) -> None:
    """Asked with `stream=True` and answered in JSON: validated, and still there to be read in any way."""
    a.always("*", faults.html())
    plain = {name: value for name, value in BODY.items() if name != "stream"}
    response = session.post(f"{a.base_url}/chat/completions", json=plain, headers=KEY, stream=True)

    assert json.loads(READINGS[reading](response))["choices"][0]["message"]["content"] == GOOD
    assert len(b.seen) == 1


def test_a_failed_call_for_a_stream_can_be_read_as_ever(a: Simulator, b: Simulator, post: Post) -> None:
    """The body of the 503 that is shown in the end was read by us; the script finds it where it looks."""
    a.always("*", "503")
    b.always("*", "503")

    assert b"error" in post().raw.read()
    assert post().json()["error"]
    assert b"error" in b"".join(post().iter_content(8))
