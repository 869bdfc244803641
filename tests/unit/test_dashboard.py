"""What the dashboard hands out."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holyroute.monitoring.dashboard.page import API, HEADERS, HEALTH, PAGE, PATHS, reply

if TYPE_CHECKING:
    from holyroute.monitoring.health import Health

FILES = [path for path in PATHS if path.startswith(PAGE)]


def never() -> Health:
    raise AssertionError("the page itself needs no figures")


@pytest.mark.parametrize("path", FILES)
def test_the_page_stands_alone(path: str) -> None:
    """No address but its own, no script or style within it, no handler: what the policy forbids is not even there."""
    found = reply(path, never)
    assert found is not None
    text = found.body.decode()

    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"<script(?! src=)|<style| style=| on\w+=", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text)


def test_the_policy_is_strict() -> None:
    """Nothing is loaded but own files, nothing may frame the page, no sink of markup can be used."""
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"


def test_the_api_tells_everything(busy_health: Health) -> None:
    """The page is given what `Health.as_dict()` says, hostile names as they are."""
    found = reply(API, lambda: busy_health)
    assert found is not None

    assert found.content_type == "application/json"
    assert json.loads(found.body) == busy_health.as_dict()


def test_health_is_the_short_form(busy_health: Health) -> None:
    """Who asks often learns what is wrong, and where, and in which process."""
    found = reply(HEALTH, lambda: busy_health)
    assert found is not None
    told = json.loads(found.body)

    assert told["is_healthy"] is False
    assert told["pid"] == 4711
    assert told["targets"]["deepseek-chat"] == "open"
    assert told["targets"]["claude-3-5-sonnet-latest"] == "key rejected"
    assert told["alerts"] == ["deepseek-chat: its circuit is open"]


def test_one_model_hides_no_other(busy_health: Health) -> None:
    """Two providers have a model of the same name: the short form tells both states."""
    down = replace(busy_health.targets[0], target="gpt-4.1", provider="a", state="open")
    well = replace(down, provider="b", state="closed")
    found = reply(HEALTH, lambda: replace(busy_health, targets=(down, well)))
    assert found is not None

    assert json.loads(found.body)["targets"] == {"gpt-4.1 at a": "open", "gpt-4.1 at b": "closed"}


def test_figures_that_json_does_not_know(busy_health: Health) -> None:
    """A circuit that is held open is never asked again: browsers read that as null, not as a syntax error."""
    held = replace(busy_health.targets[0], retry_in=math.inf)
    found = reply(API, lambda: replace(busy_health, targets=(held,), at=math.nan))
    assert found is not None
    told = json.loads(found.body, parse_constant=pytest.fail)

    assert told["targets"][0]["retry_in"] is None
    assert told["at"] is None
    assert told["targets"][0]["recent"]["count"] == 412


@pytest.mark.parametrize("path", ["", "dashboard/", "dashboard/../page.py", "dashboard/page.py", "nothing"])
def test_nothing_else_is_handed_out(path: str) -> None:
    """Only what is listed, whatever a path looks like."""
    assert reply(path, never) is None
