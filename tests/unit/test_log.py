"""What calls leave in the log: levels, fields, and what never stands there."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.config.schema import BreakerSettings
from holyroute.core import verdicts
from holyroute.core.call import Call, Origin, Selection
from holyroute.core.events import CircuitChanged
from holyroute.core.outcome import Outcome
from holyroute.core.target import Provider, Target
from holyroute.dialects import openai
from holyroute.engine.router import Router
from holyroute.monitoring.log import log_events
from holyroute.resilience.guard import Guards
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from holyroute.engine.attempt import Attempt

KEY_A, PROMPT = "test-key-aaaaaaaa", "the secret of the harbour"


def world(**settings: Any) -> tuple[Router, dict[str, int]]:
    """A router over two providers, and the statuses with which they answer."""
    config = holyroute.load(
        env={},
        cwd_file=False,
        providers={
            "a": {"base_url": "https://a.example/v1", "api_key_env": "KEY_A"},
            "b": {"base_url": "https://b.example/v1"},
        },
        models={"ma": {"provider": "a", "price": {"input": 1, "output": 2}}, "mb": {"provider": "b"}},
        retry={"blip": False},
        **settings,
    )
    return Router(config, clock=FakeClock(), env={"KEY_A": KEY_A}), {"ma": 200, "mb": 200}


def send(router: Router, status: dict[str, int], content: str = PROMPT, **options: Any) -> None:
    """One call to A, then B."""

    def transport(attempt: Attempt) -> requests.Response:
        made = requests.Response()
        made.status_code = status[attempt.target.name]
        choice = {"message": {"content": "hello"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        echo = KEY_A if attempt.target.name == "ma" else "nothing"
        error = {"error": {"message": f"bad {echo}\nsecond line"}}
        made._content = json.dumps({"choices": [choice], "usage": usage} if made.status_code == 200 else error).encode()
        return made

    limits = {
        "model": None,
        "deadline": 60.0,
        "connect": 3.0,
        "read": 30.0,
        "selection": Selection(models=("ma", "mb")),
    }
    router.send(Call(**{**limits, **options}, body={"messages": [{"role": "user", "content": content}]}), transport)


def facts(record: logging.LogRecord, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in names)


def test_a_call_that_goes_well_is_two_lines_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    """The attempt and the call, with their facts as attributes."""
    caplog.set_level(logging.DEBUG, "holyroute")
    router, status = world()
    send(router, status)
    attempt, call = caplog.records

    assert {attempt.levelno, call.levelno} == {logging.DEBUG}
    assert facts(attempt, "event", "target", "provider", "host", "status", "verdict") == (
        *("attempt", "ma", "a", "a.example"),
        *(200, "answered"),
    )
    assert facts(attempt, "prompt_tokens", "completion_tokens", "cost_usd") == (10, 5, "0.00002")
    assert facts(call, "event", "asked", "answered_by", "attempts", "failovers", "cached") == (
        *("call", "ma", "ma"),
        *(1, 0, None),
    )
    assert attempt.call_id == call.call_id  # type: ignore[attr-defined]
    assert call.getMessage().endswith("for ma: answered by ma after 0.000 s: answered")


@pytest.mark.parametrize(("level", "expected"), [(logging.INFO, ["call"]), (logging.WARNING, [])])
def test_a_failover_is_an_info(level: int, expected: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A failed attempt is a detail, that somebody else answered is not; neither is a warning in every call."""
    caplog.set_level(level, "holyroute")
    router, status = world()
    status["ma"] = 500
    send(router, status)

    assert [record.event for record in caplog.records] == expected  # type: ignore[attr-defined]


def test_every_attempt_stands_there_once(caplog: pytest.LogCaptureFixture) -> None:
    """Failed ones when they happen, the answered one with its call."""
    caplog.set_level(logging.DEBUG, "holyroute")
    router, status = world()
    status["ma"] = 500
    send(router, status)

    assert [(record.event, getattr(record, "target", None)) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("attempt", "ma"),
        ("attempt", "mb"),
        ("call", None),
    ]


def test_a_circuit_that_moves(caplog: pytest.LogCaptureFixture) -> None:
    """Whose, from where, to where, why."""
    caplog.set_level(logging.INFO, "holyroute")
    router, status = world(alerts={"enabled": False})
    status["ma"] = 500
    for _ in range(5):
        send(router, status)
    record = next(record for record in caplog.records if record.event == "circuit")  # type: ignore[attr-defined]

    assert facts(record, "target", "before", "after", "reason") == ("ma", "closed", "open", "5 failures in a row")


def test_a_name_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Of a circuit, or of what is left alone: a script may call a model as it likes."""
    caplog.set_level(logging.INFO, "holyroute")
    target = Target(name="m\nCRITICAL x", model="m", provider=Provider(name="p", base_url="https://p.example/v1"))
    log_events(CircuitChanged(target, "closed", "open", 0.0, None, "so it was"))
    outcome = Outcome(verdict=verdicts.NOT_FOUND, status=404)
    Guards(BreakerSettings(), lambda _: None).bench(target, None, outcome, sent=0.0, now=0.0)

    assert [record.getMessage().splitlines()[0][:13] for record in caplog.records] == ["the circuit o", "m?CRITICAL x "]
    assert [len(record.getMessage().splitlines()) for record in caplog.records] == [1, 1]


def test_logging_is_left_as_it_is() -> None:
    """No handler, no level: that is the application's."""
    world()
    logger = logging.getLogger("holyroute")

    assert (logger.handlers, logger.level, logger.propagate) == ([], logging.NOTSET, True)


def test_no_key_and_no_prompt(caplog: pytest.LogCaptureFixture) -> None:
    """Not at DEBUG either, not in a message, not in a field; and a provider's words stay on their line."""
    caplog.set_level(logging.DEBUG, "holyroute")
    router, status = world()
    status |= {"ma": 401, "mb": 500}
    send(router, status)
    everything = "".join(str(record.__dict__) for record in caplog.records)

    assert "key rejected" in everything
    assert KEY_A not in everything
    assert PROMPT not in everything
    assert not any("\n" in record.getMessage() for record in caplog.records)


def test_prompts_where_they_are_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """`[monitoring] log_prompts = true` logs the messages at DEBUG; keys in them are masked, the script's own too."""
    caplog.set_level(logging.DEBUG, "holyroute")
    router, status = world(monitoring={"log_prompts": True})
    headers = {"Authorization": "Bearer test-key-of-the-script"}
    url = "https://a.example/v1/chat/completions"
    request = requests.Request("POST", url, json={"model": "ma"}, headers=headers).prepare()
    origin = Origin(request=request, base_url=openai.base_url(request))
    send(router, status, f"{PROMPT} {KEY_A} test-key-of-the-script", model="ma", selection=Selection(), origin=origin)
    prompt = caplog.records[0]

    assert prompt.event == "prompt"  # type: ignore[attr-defined]
    assert json.loads(prompt.messages) == [{"role": "user", "content": f"{PROMPT} *** ***"}]  # type: ignore[attr-defined]
    assert "test-key" not in "".join(str(record.__dict__) for record in caplog.records)


def test_prompts_are_no_info(caplog: pytest.LogCaptureFixture) -> None:
    """Only DEBUG has them."""
    caplog.set_level(logging.INFO, "holyroute")
    router, status = world(monitoring={"log_prompts": True})
    send(router, status)

    assert PROMPT not in caplog.text


def test_a_level_that_is_off_is_asked_for_once_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody reads costs next to nothing."""
    logger, asked = logging.getLogger("holyroute"), []
    is_enabled = logger.isEnabledFor
    monkeypatch.setattr(logger, "isEnabledFor", lambda level: asked.append(level) or is_enabled(level))
    router, status = world()
    for _ in range(3):
        send(router, status)

    assert asked == [logging.INFO] * 3
