"""The thread that looks while there is something to look at."""

from __future__ import annotations

import threading

import pytest

from holyroute.monitoring import ticker as module
from holyroute.monitoring.ticker import Ticker

LIMIT = 15.0  # seconds that nothing here should take


class Looker:
    """Looks as often as told, and keeps count."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.done = threading.Event()
        self.ticker = Ticker(self.look)

    def look(self) -> bool:
        """Whether to go on."""
        self.left -= 1
        if self.left <= 0:
            self.done.set()
        return self.left > 0


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK", 0.001)


@pytest.mark.usefixtures("_hurried")
def test_it_looks_until_nothing_is_left() -> None:
    """Then its thread ends; the next call for it starts another."""
    looker = Looker(5)
    for _ in range(2):
        looker.left = 5
        looker.done.clear()
        looker.ticker.wake()
        assert looker.done.wait(LIMIT)
        thread = looker.ticker._thread
        if thread is not None:
            thread.join(LIMIT)

        assert (looker.left, looker.ticker._thread) == (0, None)


def test_one_thread_is_enough() -> None:
    """Who is called again while it looks does not start another."""
    looker = Looker(100)
    looker.ticker.wake()
    first = looker.ticker._thread
    looker.ticker.wake()
    second = looker.ticker._thread
    went_on = looker.ticker.tick()
    looker.ticker.wake()

    assert first is not None
    assert second is first
    assert went_on
    assert looker.ticker._thread is threading.current_thread()


def test_what_comes_up_during_a_look_is_not_missed() -> None:
    """A look that has found nothing ends, although somebody calls for it meanwhile: he gets a thread of his own."""
    looker = Looker(1)

    def look() -> bool:
        looker.ticker.wake()
        return False

    looker.look = look  # type: ignore[method-assign]
    looker.ticker._look = lambda: look  # type: ignore[assignment]

    assert not looker.ticker.tick()
    assert looker.ticker._thread is not None


def test_a_monitor_that_fails_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """It is a bug of ours, and ends no thread silently."""
    looker = Looker(1)

    def look() -> bool:
        raise RuntimeError("a bug")

    looker.ticker._look = lambda: look  # type: ignore[assignment]

    assert not looker.ticker.tick()
    assert "the monitor failed" in caplog.text


def test_it_keeps_nobody_alive() -> None:
    """A router that is gone is not looked at."""
    looker = Looker(10)
    ticker = looker.ticker
    del looker

    assert not ticker.tick()


def test_a_signal_while_a_thread_is_started_holds_nothing_up() -> None:
    """Its handler may make a call that fails, in the thread that is interrupted."""
    looker = Looker(1)

    def interrupted() -> None:
        with looker.ticker._lock:
            looker.ticker.wake()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(LIMIT)

    assert not thread.is_alive()
