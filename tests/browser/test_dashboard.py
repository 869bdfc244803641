"""The page in a real browser."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from holyroute.monitoring.dashboard.server import DashboardServer
from holyroute.monitoring.health import Figures, StateChange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holyroute.monitoring.health import Health

    from .conftest import Browser

pytestmark = pytest.mark.timeout(60)  # a browser takes its time on a busy machine

NOW = "document.dispatchEvent(new Event('visibilitychange'))"  # the page asks at once, as when it is looked at again
DRAWN = "document.querySelectorAll('#targets tr').length === {}"
HIDE = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
STATES = "[...document.querySelectorAll('#targets .pill')].map((one) => one.textContent)"

# Elements that are wider than their place: a table that scrolls, a word that is cut.
CUT = """
return [...document.querySelectorAll("body, body *")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline")
  .filter((one) => !one.closest("#models thead, svg, select"))
  .map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 40)}`)
"""


class Source:
    """What the page is given; a test changes it."""

    def __init__(self, health: Health) -> None:
        self.health = health
        self.turns: list[Health] = []  # given in turn, as by several workers
        self.asked = threading.Event()
        self.free = threading.Event()  # until then nobody is answered
        self.free.set()

    def __call__(self) -> Health:
        """The figures of now."""
        self.asked.set()
        self.free.wait(30)
        if self.turns:
            self.turns.append(self.turns.pop(0))
            return self.turns[0]
        return self.health


@pytest.fixture
def source(busy_health: Health) -> Source:
    return Source(busy_health)


@pytest.fixture
def page(browser: Browser, source: Source) -> Iterator[DashboardServer]:
    """The page is open, and has drawn its figures."""
    with DashboardServer(source) as server:
        browser.open(server.url)
        browser.wait_for(DRAWN.format(len(source.health.targets)))
        yield server


@pytest.mark.usefixtures("page")
def test_it_shows_everything_and_runs_nothing(browser: Browser, source: Source) -> None:
    """States, figures, notes and the process are there; a hostile name is text wherever it stands."""
    shown = browser.text("body")
    hostile = source.health.targets[2].target
    states = browser.run(f"return {STATES}")
    names = browser.run("return [...document.querySelectorAll('#targets th')].map((one) => one.firstChild.data)")

    assert states == ["✕ open", "✓ closed", "◐ half-open", "✕ left alone"]
    assert names == [one.target for one in source.health.targets]
    assert "process 4711, counting since " in shown
    for said in (
        "2 models not asked, 1 model on trial, 1 alert",
        "1,486",
        "1.21 s",
        "0.1550",
        "1.6021",
        "against gpt-4.1",
    ):
        assert said in shown
    for said in ("asked again in 5 s", "key rejected", "server unavailable ×29", "7.8%", "0.0738", "1 under way"):
        assert said in shown
    assert shown.count("simple_qa/fast → gpt-4.1-mini ×2 circuit open") == 1
    assert shown.count(hostile) == 7
    assert browser.run("return [document.scripts.length, document.images.length]") == [1, 0]
    assert browser.run("return document.title") == "(!) 2 models not asked, 1 model on trial, 1 alert · holyroute"
    assert browser.complaints() == []


@pytest.mark.usefixtures("page")
def test_it_shows_a_circuit_that_opens(browser: Browser, source: Source) -> None:
    """What changes is drawn by itself; what does not change stays where it is."""
    browser.run("document.querySelector('#routes tbody tr').marked = true")
    first, second, *others = source.health.targets
    opened = StateChange(at=source.health.at, before="closed", after="open", reason="5 in a row")
    second = replace(second, state="open", retry_in=5.0, history=(opened,))
    source.health = replace(source.health, targets=(first, second, *others))
    browser.wait_for(f"{STATES}[1] === '✕ open'")

    assert "3 models not asked" in browser.text("#verdict")
    assert "gpt-4.1-mini: closed → open 5 in a row" in browser.text("#changes")
    assert browser.run("return document.querySelector('#routes tbody tr').marked")


@pytest.mark.usefixtures("page")
def test_it_says_when_all_is_well(browser: Browser, source: Source) -> None:
    """A healthy process shows no alarm, and one that was asked nothing shows that."""
    idle = replace(source.health, targets=(), routes=(), alerts=(), recent_failovers=())
    source.health = replace(idle, calls=Figures(), queue=None)
    browser.run(NOW)
    browser.wait_for("document.querySelector('#verdict').textContent === '✓ healthy'")

    assert browser.text("#targets") == "Nobody was asked yet."
    assert browser.text("#alerts") == browser.text("#failovers") == browser.text("#changes") == "None."
    assert "Queue" not in browser.text("#totals")
    assert browser.run("return document.title") == "holyroute"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1_400])
def test_it_fits(browser: Browser, page: DashboardServer, width: int, *, dark: bool) -> None:
    """Nothing is wider than the window or cut, on a phone and on a desk, with words longer than a line."""
    browser.look(width=width, dark=dark)
    browser.open(page.url)
    browser.wait_for(DRAWN.format(4))
    ground = browser.run("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")

    assert browser.run("return document.documentElement.scrollWidth") == width
    assert browser.run(CUT) == []
    assert (max(ground) < 64) is dark


@pytest.mark.usefixtures("page")
def test_it_fits_long_names(browser: Browser, source: Source) -> None:
    """A name without a gap is broken, not cut."""
    long = "a" * 200
    source.health = replace(source.health, targets=(replace(source.health.targets[0], target=long, provider=long),))
    browser.run(NOW)
    browser.wait_for(DRAWN.format(1))
    found = []
    for width in (400, 1_400):
        browser.look(width=width)
        found.append((browser.run("return document.documentElement.scrollWidth"), browser.run(CUT)))

    assert found == [(400, []), (1_400, [])]


def test_it_tells_when_the_connection_is_lost(browser: Browser, source: Source) -> None:
    """Old figures are not shown as new ones; when the app is back, all is as before."""
    with DashboardServer(source) as server:
        browser.open(server.url)
        browser.wait_for(DRAWN.format(4))
    browser.run(NOW)
    browser.wait_for("!document.querySelector('#trouble').hidden")
    told, stale = browser.text("#trouble"), browser.run("return document.body.className")
    with DashboardServer(source, server.port):
        browser.wait_for("document.querySelector('#trouble').hidden")

    assert told.startswith("The connection is lost; trying again every 2 s. The figures below are those of ")
    assert stale == "stale"
    assert browser.run("return document.body.className") == ""


@pytest.mark.usefixtures("page")
def test_it_rests_while_nobody_looks(browser: Browser, source: Source) -> None:
    """A hidden page does not ask; when it is seen again it asks at once."""
    browser.run(HIDE % "true" + NOW)
    source.health = replace(source.health, targets=source.health.targets[:1])
    browser.wait_for("/updated [3-9] s ago/.test(document.querySelector('#age').textContent)")  # a poll is left out
    resting = browser.run("return " + DRAWN.format(1))
    browser.run(HIDE % "false" + NOW)
    browser.wait_for(DRAWN.format(1))

    assert not resting


@pytest.mark.usefixtures("page")
def test_a_question_under_way_is_the_last_of_a_hidden_page(browser: Browser, source: Source) -> None:
    """An answer that comes when nobody looks any more is shown, and does not lead to the next question."""
    source.asked.clear()
    source.free.clear()
    browser.run(NOW)
    under_way = source.asked.wait(30)
    browser.run(HIDE % "true" + NOW)
    source.health = replace(source.health, targets=source.health.targets[:1])
    source.free.set()
    browser.wait_for(DRAWN.format(1))
    source.asked.clear()
    browser.wait_for("/updated [3-9] s ago/.test(document.querySelector('#age').textContent)")  # a poll is left out

    assert under_way
    assert not source.asked.is_set()


@pytest.mark.usefixtures("page")
def test_it_keeps_processes_apart(browser: Browser, source: Source) -> None:
    """Several workers answer under one address: the page stays with one, and the reader may choose another."""
    other = replace(source.health, pid=4_712, targets=source.health.targets[:1])
    source.turns = [source.health, other]
    browser.run(NOW)
    browser.wait_for("!document.querySelector('#choice').hidden")
    processes = browser.run("return [...document.querySelectorAll('option')].map((one) => one.text)")
    first = browser.run("return document.querySelector('select').selectedOptions[0].text")
    rows = browser.run("return document.querySelectorAll('#targets tr').length")
    browser.run(
        "const select = document.querySelector('select'); select.selectedIndex = 1;"
        "select.dispatchEvent(new Event('change'))"
    )
    browser.wait_for(DRAWN.format(1))

    assert processes == ["4711", "4712"]
    assert (first, rows) == ("4711", 4)


@pytest.mark.usefixtures("page")
def test_it_follows_a_restart(browser: Browser, source: Source) -> None:
    """A process that is never heard of again is given up for the one that answers."""
    source.health = replace(source.health, pid=4_712, targets=source.health.targets[:1])
    browser.wait_for("!document.querySelector('#choice').hidden")  # both are there, until one is missed for long
    for _ in range(5):
        browser.run(NOW)
    browser.wait_for("document.querySelector('#origin').textContent.startsWith('process 4712, ')")

    assert browser.run("return " + DRAWN.format(1))
