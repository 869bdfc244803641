"""The limiters of all targets: which class a call belongs to."""

from __future__ import annotations

import itertools
import threading
from typing import Any

from holyroute.config.schema import LimitSettings
from holyroute.core.call import Call
from holyroute.core.clock import Clock
from holyroute.core.target import Provider, Target
from holyroute.resilience.limits import Limiters, release

TARGET = Target(
    name="m", model="m", provider=Provider(name="p", base_url="https://provider.example/v1", max_concurrency=1)
)


class NoticingClock(Clock):
    """Tells when somebody begins to wait."""

    def __init__(self) -> None:
        self.waits = threading.Semaphore(0)

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        """With the limiter's lock held, so that whoever is told finds the caller in its place."""
        self.waits.release()
        return super().wait(condition, seconds)


def call(**options: Any) -> Call:
    return Call(model="m", body={}, deadline=60, connect=60, read=60, **options)


def test_live_calls_go_first_then_batches_then_the_queue() -> None:
    """Whoever waits for the same place, and in whichever order they came."""
    clock = NoticingClock()
    limiters = Limiters(LimitSettings(), clock)
    found = limiters.of(TARGET, None)
    order: list[str] = []

    def ask(name: str, one: Call) -> None:
        passed = limiters.acquire(found, 1, one, max_wait=60.0)
        order.append(name)
        assert isinstance(passed, tuple)
        release(passed)

    held = limiters.acquire(found, 1, call(), max_wait=0.0)
    assert isinstance(held, tuple)
    threads = []
    for name, options in (
        ("replayed", {"background": True, "replayed": True}),
        ("batch", {"background": True}),
        ("live", {}),
    ):
        threads.append(threading.Thread(target=ask, args=[name, call(**options)]))
        threads[-1].start()
        assert clock.waits.acquire(timeout=15)
    release(held)
    for thread in threads:
        thread.join(timeout=15)

    assert order == ["live", "batch", "replayed"]


def test_one_endpoint_that_is_configured_twice_has_the_limits_of_each() -> None:
    """Whoever was asked first: the limits that one of them has do not become those of the other."""
    open_, narrow = (
        Provider(name=name, base_url="https://provider.example/v1", max_concurrency=most)
        for name, most in (("open", None), ("narrow", 1))
    )
    targets = [
        Target(name="a", model="m", provider=open_, rpm=5),
        Target(name="b", model="m", provider=narrow, rpm=5),
        Target(name="c", model="m", provider=narrow),
    ]
    for order in itertools.permutations(targets):
        limiters = Limiters(LimitSettings(), Clock())
        found = {target.name: len(limiters.of(target, None)) for target in (*order, *order)}

        assert found == {"a": 1, "b": 2, "c": 1}
        assert (
            limiters.of(targets[0], None)[0] is limiters.of(targets[1], None)[0] is not limiters.of(targets[2], None)[0]
        )
