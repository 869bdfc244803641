"""Batches: many rows in, every row answered once or accounted for, whatever the providers do."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

import holyroute
from holyroute.batch.row import Cause
from holyroute.core.clock import Clock
from holyroute.core.events import CircuitChanged
from holyroute.engine.router import Router
from holyroute.simulator import Limit, Profile, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import ShiftedClock

    from holyroute.batch.job import Job
    from holyroute.batch.row import RowResult
    from holyroute.config.schema import Config
    from holyroute.core.events import Event

PATIENCE = 15.0  # seconds that a busy machine may need for what takes none


def prompts(count: int, **parameters: Any) -> list[dict[str, Any]]:
    """Rows that differ."""
    return [
        {"custom_id": f"r{number}", "messages": [{"role": "user", "content": f"{number}"}], **parameters}
        for number in range(count)
    ]


def causes(results: list[RowResult]) -> Counter[str]:
    return Counter(str(result.error.cause) if result.error else "ok" for result in results)


# --- answers ----------------------------------------------------------------------------------------------------------


def test_every_row_is_answered_once(client: holyroute.Client, a: Simulator) -> None:
    """Results come as they are ready, each with its row's index, name, model and cost."""
    with client.batch(prompts(200), max_workers=16) as job:
        results = list(job)

    assert sorted(result.index for result in results) == list(range(200))
    assert {result.id for result in results} == {f"r{number}" for number in range(200)}
    assert all(result.ok and result.model == "ma" and result.cost_usd for result in results)
    assert a.attempts() == 200
    assert job.stopped is None
    assert (job.progress.taken, job.progress.done, job.progress.answered) == (200, 200, 200)
    assert job.progress.spent == sum(result.cost_usd or 0 for result in results) == client.balance().spent


def test_a_row_never_raises(client: holyroute.Client) -> None:
    """What cannot be read is a result with its cause; the others are answered."""
    unknown = {"messages": [{"role": "user", "content": "x"}], "model": "no-such-model"}
    no_json = {"messages": [{"role": "user", "content": {1, 2}}]}
    results = list(client.batch(["fine", 7, {"messages": []}, unknown, no_json, "fine too"], ordered=True))

    assert [result.index for result in results] == [0, 1, 2, 3, 4, 5]
    assert [result.error.cause if result.error else None for result in results] == [
        *(None, Cause.ROW, Cause.ROW, Cause.ROW, Cause.ROW, None)
    ]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("400", Cause.REFUSED),
        ("401", Cause.CREDENTIAL),
        ("insufficient-quota", Cause.CREDENTIAL),
        ("503", Cause.UNAVAILABLE),
    ],
)
def test_the_cause_of_a_failure(client: holyroute.Client, a: Simulator, b: Simulator, fault: str, cause: Cause) -> None:
    """By who can do something about it."""
    a.always("*", fault)
    b.always("*", fault)
    (result,) = client.batch(["hi"], passes=0)

    assert result.error is not None
    assert result.error.cause is cause
    assert "test-key" not in result.error.message


def test_routing_of_rows(client: holyroute.Client) -> None:
    """What a row says of its model counts before what holds for all; what neither says is the block's."""
    say = {"messages": [{"role": "user", "content": "hi"}]}
    rows = [say, {**say, "model": "mc"}, {**say, "models": ["mb"]}, {**say, "task": "simple_qa", "priority": "fast"}]
    by_default = [result.model for result in client.batch(rows, ordered=True, models=["mc"])]
    with holyroute.direct():
        (alone,) = client.batch([say])

    assert by_default == ["mc", "mc", "mb", "ma"]
    assert alone.model == "ma"


def test_parameters_and_instructions_for_all(client: holyroute.Client, a: Simulator) -> None:
    """A row's own words come first."""
    say = {"messages": [{"role": "user", "content": "hi"}]}
    own = {"messages": [{"role": "system", "content": "sing"}, *say["messages"]], "max_tokens": 3}
    assert causes(list(client.batch([say, own], system="be brief", max_tokens=9, ordered=True, max_workers=1))) == {
        "ok": 2
    }
    bodies = [seen.json for seen in a.seen]

    assert [body["messages"][0]["content"] for body in bodies] == ["be brief", "sing"]
    assert [body["max_tokens"] for body in bodies] == [9, 3]


def test_a_model_that_dies_in_the_middle_costs_no_row(client: holyroute.Client, a: Simulator) -> None:
    """From then on the substitute answers."""
    answered: list[str | None] = []
    with client.batch(prompts(300), max_workers=16) as job:
        for result in job:
            answered.append(result.model if result.ok else None)
            if len(answered) == 100:
                a.always("*", 503)

    assert len(answered) == 300
    assert set(answered) == {"ma", "mb"}


def test_equal_rows_in_flight_are_sent_once(client: holyroute.Client, a: Simulator) -> None:
    """Deterministic ones always, others where it is wanted; each row has the answer, and it is paid for once."""
    for parameters, options in (({"temperature": 0}, {}), ({}, {"dedupe": True})):
        before = a.attempts()
        gate = threading.Event()
        a.script("ma", faults.held(gate))
        same = {"messages": [{"role": "user", "content": f"{options}"}], **parameters}
        job = client.batch(_opened([same] * 5, gate), **options)
        results = list(job)

        assert causes(results) == {"ok": 5}
        assert a.attempts() - before == 1
        assert sorted(filter(None, (result.cached for result in results))) == ["duplicate"] * 4
        assert sum(result.cost_usd or 0 for result in results) == job.progress.spent > 0


def _opened(rows: list[Any], gate: threading.Event) -> Iterator[Any]:
    """Rows, and when the last of them was taken the gate opens."""
    yield from rows
    gate.set()


# --- limits -----------------------------------------------------------------------------------------------------------


def test_nobody_sleeps_for_a_retry_after(client: holyroute.Client, a: Simulator, clock: ShiftedClock) -> None:
    """One worker: while `ma` asks for a minute, the rows of `mb` are answered; then those of `ma` are."""
    a.always("ma", "429:60")
    rows = [{**row, "models": [("ma", "mb")[number % 2]]} for number, row in enumerate(prompts(20))]
    models = []
    with client.batch(rows, max_workers=1, max_in_flight=20) as job:
        for result in job:
            assert result.ok
            models.append(result.model)
            if len(models) == 10:
                assert job.progress.waiting == 10
                a.heal()
                clock.advance(61)

    assert models == ["mb"] * 10 + ["ma"] * 10
    assert clock.slept == []


def test_a_limit_of_the_provider_is_kept() -> None:
    """600 requests a minute, enforced by the provider, fifty workers, all times scaled down: no storm of 429."""
    scale = 0.02
    with Simulator({"m": Profile(mean=0.5)}, limits={"m": Limit(rpm=600)}, time_scale=scale) as provider:
        client = holyroute.Client(
            providers={"p": {"base_url": provider.base_url}},
            models={"m": {"provider": "p", "rpm": 600}},
            routes={"general": {"normal": ["m"]}},
            limits={"window_scale": scale},
        )
        results = list(client.batch(prompts(1_000)))
        refused = sum(seen.status == 429 for seen in provider.seen)

    assert causes(results) == {"ok": 1_000}
    assert refused <= 10
    assert provider.attempts() == 1_000 + refused


def test_a_limit_that_is_not_configured_is_found_out() -> None:
    """The provider's own 429 and its Retry-After are enough for every row to be answered; few are sent in vain."""
    with Simulator(limits={"m": Limit(rpm=100)}, time_scale=0.005) as provider:
        client = holyroute.Client(
            providers={"p": {"base_url": provider.base_url}},
            models={"m": {"provider": "p"}},
            routes={"general": {"normal": ["m"]}},
        )
        results = list(client.batch(prompts(250), max_workers=20))

    assert causes(results) == {"ok": 250}


# --- money ------------------------------------------------------------------------------------------------------------


def priced(*providers: Simulator, **settings: Any) -> holyroute.Client:
    """A model at each provider, at the provider's own price."""
    names = [f"m{number}" for number in range(len(providers))]
    return holyroute.Client(
        providers={f"p{number}": {"base_url": one.base_url} for number, one in enumerate(providers)},
        models={
            name: {"provider": f"p{number}", "price": {"input": "2.50", "output": "10"}}
            for number, name in enumerate(names)
        },
        routes={"general": {"normal": names}},
        **settings,
    )


PRICED = Profile(price_input=Decimal("2.50"), price_output=Decimal(10), completion_tokens=40)


def bill(*providers: Simulator) -> Decimal:
    return sum((one.statistics()[name].bill for one in providers for name in one.statistics()), Decimal(0))


def test_the_cap_holds_at_64_threads() -> None:
    """The provider's own bill is what the job says it spent, to the last digit, and not above the cap."""
    with Simulator({"m0": PRICED}) as provider:
        cap = Decimal("0.10")
        with priced(provider).batch(prompts(2_000, max_tokens=50), max_workers=64, max_cost=cap) as job:
            results = list(job)
        statistics = provider.statistics()["m0"]

    assert job.stopped == "cost cap"
    assert causes(results) == {"ok": len(results)}
    assert job.progress.spent == sum(result.cost_usd or 0 for result in results) == statistics.bill
    assert Decimal("0.09") < statistics.bill <= cap
    assert statistics.calls == len(results)
    assert job.progress.reserved == 0


def test_the_cap_holds_where_failures_are_billed() -> None:
    """Broken answers that the provider bills, and a substitute that answers: what nobody reported counts as spent."""
    broken = faults.billed(faults.cut_body())
    with Simulator({"m0": PRICED}) as a, Simulator({"m1": PRICED}) as b:
        a.always("*", broken)
        cap = Decimal("0.05")
        with priced(a, b).batch(prompts(500, max_tokens=50), max_workers=32, max_cost=cap, passes=0) as job:
            results = list(job)

    assert job.stopped == "cost cap"
    assert 0 < bill(a, b) <= job.progress.spent <= cap
    assert causes(results)["ok"] > 10


def test_rows_of_unknown_cost_are_refused_under_a_cap(client: holyroute.Client, a: Simulator) -> None:
    """A row without a length limit, and one for a model without a price; the others are answered."""
    rows = [*prompts(1, max_tokens=5), *prompts(1), {**prompts(1, max_tokens=5)[0], "models": ["mc"]}]
    results = list(client.batch(rows, ordered=True, max_cost=1))

    assert [result.error.cause if result.error else None for result in results] == [None, Cause.BUDGET, Cause.BUDGET]
    assert a.attempts() == 1


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_deadline_ends_the_job(client: holyroute.Client, a: Simulator) -> None:
    """Calls in flight are cut, and say so; the rest does not come out."""
    a.always("*", faults.silent())
    with client.batch(prompts(100), models=["ma"], max_workers=4, deadline=1.0) as job:
        results = list(job)

    assert set(causes(results)) == {"deadline"}
    assert len(results) < 100
    assert job.stopped == "deadline"


def test_cancelling_calls_off_what_is_in_flight(client: holyroute.Client, a: Simulator) -> None:
    """From another thread; it comes out as cancelled."""
    a.always("*", faults.silent())
    with client.batch(prompts(100), max_workers=8) as job, ThreadPoolExecutor(1) as other:
        other.submit(lambda: (a.wait_for(8, timeout=PATIENCE), job.cancel()))
        results = list(job)

    assert causes(results) == {"cancelled": 8}
    assert job.stopped == "cancelled"


def test_draining_finishes_what_is_in_flight(client: holyroute.Client) -> None:
    """And takes no more rows."""
    results = []
    job = client.batch(prompts(1_000), max_workers=8)
    for result in job:
        results.append(result)
        if len(results) == 20:
            job.drain()

    assert 20 <= len(results) < 100
    assert causes(results) == {"ok": len(results)}
    assert job.stopped == "drained"


@pytest.mark.parametrize("leave", ["close", "forget"])
def test_leaving_early_leaves_nothing_running(client: holyroute.Client, a: Simulator, leave: str) -> None:
    """Whether the job is closed or only forgotten, its threads end, and nothing more is sent."""
    job: Job | None = client.batch(prompts(10_000), max_workers=8)
    for _ in job or ():
        break
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("holyroute-batch")]
    if leave == "close" and job is not None:
        job.close()
    job = None
    for thread in threads:
        thread.join(PATIENCE)

    assert threads
    assert not any(thread.is_alive() for thread in threads)
    assert a.attempts() < 200


SCRIPT = """
import sys, holyroute
client = holyroute.Client(providers={"p": {"base_url": sys.argv[1]}}, models={"m": {"provider": "p"}},
                          routes={"general": {"normal": ["m"]}})
for result in client.batch(f"{number}" for number in range(1_000)):
    print(result)
"""


def test_ctrl_c_ends_the_program() -> None:
    """Fifty calls wait for a provider that is silent: the signal is heard, and nobody waits for them."""
    with Simulator() as silent:
        silent.always("*", faults.silent())
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, silent.base_url], stderr=subprocess.PIPE, text=True)
        assert silent.wait_for(50, timeout=PATIENCE)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=PATIENCE)

    assert process.returncode in {-signal.SIGINT, 130}
    assert "KeyboardInterrupt" in complaints


def test_an_executor_of_threads_is_used_and_kept(client: holyroute.Client) -> None:
    """Somebody else's threads run the calls, no more of them than there are; the pool is never shut down."""
    seen: set[str] = set()
    client.router.events.subscribe(lambda _: seen.add(threading.current_thread().name))
    with ThreadPoolExecutor(3, thread_name_prefix="theirs") as pool:
        results = list(client.batch(prompts(100), executor=pool))
        assert pool.submit(int, "7").result() == 7

    assert causes(results) == {"ok": 100}
    assert seen
    assert all(name.startswith("theirs") for name in seen)


def test_an_executor_that_was_shut_down_is_replaced(client: holyroute.Client, caplog: pytest.LogCaptureFixture) -> None:
    """Its rows are asked for by threads of our own."""
    pool = ThreadPoolExecutor(3)
    pool.shutdown()

    assert causes(list(client.batch(prompts(10), executor=pool))) == {"ok": 10}
    assert caplog.records == []


def test_no_batch_leaves_no_trace(client: holyroute.Client) -> None:
    """Rows that are none are refused before anything is set up for them."""
    before = client.router.events._observers
    with pytest.raises(holyroute.ConfigurationError, match="rows: expected an iterable of rows, got str"):
        client.batch("one prompt", max_cost=1)

    assert client.router.events._observers == before


def test_options_are_checked_at_once(client: holyroute.Client) -> None:
    """Before any row is taken; an unknown model for all rows is one of them."""
    with pytest.raises(holyroute.ConfigurationError, match="max_workers"):
        client.batch([], max_workers=0)
    with pytest.raises(holyroute.ConfigurationError, match="expected a configured model, got 'nix'"):
        client.batch([], model="nix")
    with pytest.raises(holyroute.ConfigurationError, match="rows: expected an iterable"):
        client.batch("one prompt")


class FastClock(Clock):
    """Time that passes a hundred times faster."""

    def now(self) -> float:
        """Monotonic seconds."""
        return super().now() * 100

    def sleep(self, seconds: float) -> None:
        """Wait a hundredth."""
        super().sleep(seconds / 100)

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        """Wait a hundredth."""
        return super().wait(condition, None if seconds is None else seconds / 100)


def test_a_long_outage_costs_no_row(configured: Callable[..., Config], a: Simulator) -> None:
    """While the circuit of the only model is open nobody is asked; when it closes all are answered."""
    router = Router(configured(routes={"simple_qa": {"fast": ["ma"]}}), clock=FastClock(), env={"KEY_A": "test-key-a"})
    a.always("*", 503)
    opened: list[CircuitChanged] = []

    def watch(event: Event) -> None:
        if isinstance(event, CircuitChanged) and event.after == "open":
            opened.append(event)
            if len(opened) == 3:
                a.heal()

    router.events.subscribe(watch)
    with holyroute.Client(router=router) as client:
        results = list(client.batch(prompts(60), max_workers=4))

    assert causes(results) == {"ok": 60}
    assert len(opened) == 3
    assert a.attempts() < 60 + 20
