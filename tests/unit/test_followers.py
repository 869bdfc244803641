"""Those who go along with calls: told of each step in the thread of the call, and of no harm to it."""

from __future__ import annotations

import json
import logging
import pickle
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.core.call import Call, Selection
from holyroute.core.events import CallFinished
from holyroute.engine.router import Router
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.core.trace import Trace
    from holyroute.engine.attempt import Attempt


class Diary:
    """Writes down what it is told. What it is told to fail at, it fails at."""

    def __init__(self, name: str = "", told: list[str] | None = None, *, failing: tuple[str, ...] = ()) -> None:
        self.name = name
        self.told: list[str] = [] if told is None else told
        self.failing = failing

    def __call__(self, call: Call, trace: Trace) -> Diary:
        """A call begins."""
        self._note(f"begins, asking {call.asked} as {trace.asked}")
        return self

    def sending(self, attempt: Attempt) -> None:
        """An attempt goes out."""
        self._note(f"sending {attempt.target.name}")

    def sent(self, attempt: Attempt, seconds: float) -> None:
        """It is back."""
        self._note(f"sent {attempt.target.name} {seconds:.0f}")

    def attempted(self, outcome: Any, record: Any) -> None:
        """It is judged."""
        self._note(f"attempted {record.target.name} {outcome.verdict}")

    def finished(self, trace: Trace) -> None:
        """The call is over."""
        self._note(f"finished {trace.verdict}")

    def broken(self, error: BaseException, seconds: float) -> None:
        """The call was ended."""
        self._note(f"broken {error!r} {seconds:.0f}")

    def _note(self, text: str) -> None:
        self.told.append(f"{self.name} {text}".strip())
        if text.split(maxsplit=1)[0].strip(",") in self.failing:
            raise RuntimeError(text)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def router(clock: FakeClock) -> Router:
    return Router(
        holyroute.load(
            env={},
            cwd_file=False,
            providers={"a": {"base_url": "https://a.example/v1"}, "b": {"base_url": "https://b.example/v1"}},
            models={"ma": {"provider": "a"}, "mb": {"provider": "b"}},
        ),
        clock=clock,
        env={},
    )


@pytest.fixture
def send(router: Router, clock: FakeClock) -> Callable[..., Any]:
    """A call to A, which takes 2 s to fail, then to B, which takes 2 s to answer."""

    def transport(attempt: Attempt) -> requests.Response:
        clock.advance(2)
        made = requests.Response()
        made.status_code = 200 if attempt.target.name == "mb" else 503
        choice = {"message": {"content": "hello"}, "finish_reason": "stop"}
        made._content = json.dumps({"choices": [choice]}).encode()
        return made

    def send(transport: Callable[[Attempt], requests.Response] = transport, **body: Any) -> Any:
        asked = Selection(models=("ma", "mb"))
        call = Call(model=None, body={"messages": [], **body}, deadline=30.0, connect=3.0, read=3.0, selection=asked)
        return router.send(call, transport)

    return send


WHOLE = [
    "begins, asking ma as ma",
    "sending ma",
    "sent ma 2",
    "attempted ma service unavailable",
    "sending mb",
    "sent mb 2",
    "attempted mb answered",
    "finished answered",
]


def test_a_follower_is_told_of_each_step(router: Router, send: Callable[..., Any]) -> None:
    """From the start to the end, in order; an answer from the cache has no attempts."""
    diary = Diary()
    router.events.follow(diary)
    for _ in range(2):
        send(temperature=0)

    assert diary.told == [*WHOLE, "begins, asking ma as ma", "finished answered"]


def test_the_events_come_first(router: Router, send: Callable[..., Any]) -> None:
    """Whoever is told of the end knows that everybody else has heard of it."""
    diary = Diary()
    router.events.follow(diary)
    router.events.subscribe(lambda event: diary.told.append(type(event).__name__))
    send()

    assert [step.split()[0] for step in diary.told] == [
        "begins,",
        *("sending", "sent", "AttemptFinished", "attempted"),
        *("sending", "sent", "AttemptFinished", "attempted"),
        *("CallFinished", "finished"),
    ]


def test_several_leave_an_attempt_in_reverse(router: Router, send: Callable[..., Any]) -> None:
    """So that what each made current is undone in order."""
    told: list[str] = []
    for name in ("first", "second"):
        router.events.follow(Diary(name, told))
    send()
    order = [step.split()[0] for step in told if " sending " in step or " sent " in step]

    assert order == ["first", "second", "second", "first"] * 2


def test_who_follows_no_more_is_told_no_more(router: Router, send: Callable[..., Any]) -> None:
    """Of the next call; the one under way is told to its end."""
    diary = Diary()
    router.events.follow(diary)

    def leaving(attempt: Attempt) -> requests.Response:
        router.events.unfollow(diary)
        raise requests.ConnectionError(f"{attempt.target.name} is gone")

    send(leaving)
    send()

    assert diary.told[0] == "begins, asking ma as ma"
    assert diary.told[-1].startswith("finished ")
    assert len([step for step in diary.told if "begins" in step]) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt("now"), ValueError("a bug")], ids=["ctrl-c", "bug"])
def test_an_exception_ends_the_call_for_its_followers(
    router: Router, send: Callable[..., Any], error: BaseException
) -> None:
    """It passes through unchanged, and they are told that nothing more will come."""
    diary = Diary()
    router.events.follow(diary)

    def broken(attempt: Attempt) -> requests.Response:
        del attempt
        raise error

    with pytest.raises(type(error)) as raised:
        send(broken)

    assert raised.value is error
    assert diary.told[1:] == ["sending ma", "sent ma 0", f"broken {error!r} 0"]


def test_an_exception_between_attempts_is_told_too(router: Router) -> None:
    """Such as the name of an unknown model."""
    diary = Diary()
    router.events.follow(diary)
    call = Call(model="nobody", body={"messages": []}, deadline=1.0, connect=1.0, read=1.0)
    with pytest.raises(holyroute.ConfigurationError):
        router.send(call, lambda _: requests.Response())

    assert [step.split()[0] for step in diary.told] == ["begins,", "broken"]


@pytest.mark.parametrize("failing", ["begins", "sending", "sent", "attempted", "finished"])
def test_a_follower_that_fails_harms_nobody(
    router: Router, send: Callable[..., Any], caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    """The call is answered, the others are told everything, and it is reported once."""
    caplog.set_level(logging.DEBUG, "holyroute")
    sound = Diary()
    router.events.follow(Diary(failing=(failing,)))
    router.events.follow(sound)
    answers = [send(), send()]

    assert [outcome.is_answer for outcome in answers] == [True, True]
    assert sound.told[: len(WHOLE)] == WHOLE
    assert len([record for record in caplog.records if "further failures are not reported" in record.message]) == 1


def test_a_follower_without_a_method_harms_nobody(
    router: Router, send: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Half a follower is reported once too."""
    told: list[str] = []

    class Half:
        """Knows of one step alone."""

        def finished(self, trace: Trace) -> None:
            """The call is over."""
            told.append(str(trace.verdict))

    def half(call: Call, trace: Trace) -> Any:
        del call, trace
        return Half()

    router.events.follow(half)
    answers = [send(), send()]

    assert [outcome.is_answer for outcome in answers] == [True, True]
    assert told == ["answered", "answered"]
    assert caplog.text.count("further failures are not reported") == 1


def test_an_observer_without_a_hash_harms_nobody(
    router: Router, send: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a dataclass: what it raises is reported once, as that of any other."""

    @dataclass
    class Broken:
        name: str

        def __call__(self, event: object) -> None:
            raise RuntimeError(f"{self.name}: {event}")

    for name in ("one", "one"):
        router.events.subscribe(Broken(name))
    answers = [send(), send()]

    assert [outcome.is_answer for outcome in answers] == [True, True]
    assert caplog.text.count("further failures are not reported") == 2


def test_a_trace_that_is_followed_pickles(router: Router, send: Callable[..., Any]) -> None:
    """Nobody who follows goes along into another process."""
    copies: list[Any] = []

    def copy(event: object) -> None:
        if isinstance(event, CallFinished):
            copies.append(pickle.loads(pickle.dumps(event.trace)))  # noqa: S301 - our own

    unpicklable = Diary()
    vars(unpicklable)["lock"] = threading.Lock()
    router.events.follow(unpicklable)
    router.events.subscribe(copy)
    trace = send().trace

    assert [str(one) for one in copies] == [str(trace)]
