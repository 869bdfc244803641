"""The typed door against two providers: what it sends, whom it asks, what it returns and raises."""

from __future__ import annotations

import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute import AllTargetsFailed, ConfigurationError, ContentFiltered, DeadlineExceeded, InvalidRequest
from holyroute.engine.router import Router
from holyroute.simulator import Names, Profile, Simulator, faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.config.schema import Config
    from holyroute.core.clock import Clock

PROMPT = "What is the time?"
MESSAGES = [{"role": "user", "content": PROMPT}]
TOOL = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object"}}}


def fail(*providers: Simulator) -> None:
    for provider in providers:
        provider.always("*", 503)


# --- what is sent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"temperature": 0},
        {"temperature": 0.123456789012345, "max_completion_tokens": 5},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {"response_format": {"type": "json_object"}, "seed": 7, "stop": ["\n", "Ünd"], "logit_bias": {"50256": -100}},
        {"user": None, "metadata": {"a": [1, {"b": None}]}},
    ],
)
def test_chat_sends_what_it_was_given(a: Simulator, client: holyroute.Client, parameters: dict[str, Any]) -> None:
    """Messages and parameters arrive as they are, and nothing is added but the model."""
    messages = [{"role": "system", "content": "Be brief."}, *MESSAGES, {"role": "assistant", "content": "half \ud83d"}]
    client.chat(messages, **parameters)
    (seen,) = a.seen

    assert seen.json == {"model": "ma", "messages": messages, **parameters}
    assert dict(seen.headers) == {
        "host": f"127.0.0.1:{a.port}",
        "accept-encoding": "identity",
        "accept": "application/json",
        "user-agent": "holyroute",
        "content-type": "application/json",
        "content-length": str(len(seen.body)),
        "authorization": "Bearer test-key-a",
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"temperature": 0.7, "max_tokens": 2000}),
        ({"temperature": 0, "max_tokens": 5, "seed": 1}, {"temperature": 0, "max_tokens": 5, "seed": 1}),
    ],
)
def test_ask_has_a_temperature_and_a_limit(
    a: Simulator, client: holyroute.Client, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    """One question becomes one message, after the instructions if there are any."""
    client.ask(PROMPT, **options)
    client.ask(PROMPT, system="Be brief.", **options)

    assert [seen.json for seen in a.seen] == [
        {"model": "ma", "messages": MESSAGES, **expected},
        {"model": "ma", "messages": [{"role": "system", "content": "Be brief."}, *MESSAGES], **expected},
    ]


def test_neither_cookies_nor_redirects_lead_a_client_anywhere(
    a: Simulator, b: Simulator, client: holyroute.Client
) -> None:
    """A client has no cookie jar, and whom it asks stands in its configuration."""
    a.script("*", faults.cookies("of=a; Path=/"), "ok", f"307:{b.base_url}/chat/completions")
    for _ in range(3):
        client.ask(PROMPT, models=["ma", "mb"])

    assert [seen.headers.get("Cookie") for seen in a.seen] == [None] * 3
    assert [seen.headers["Authorization"] for seen in b.seen] == ["Bearer test-key-b"]


def test_a_providers_own_proxy_comes_before_the_environments(
    a: Simulator, b: Simulator, configured: Callable[..., Config], env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configuration says how a host is reached; where it says nothing, the proxy variables do."""
    with Simulator() as configured_proxy, Simulator() as variables_proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{variables_proxy.port}")
        hosts = {"base_url": "http://gateway.example-a.test/v1", "allow_http": True}
        own = {**hosts, "proxies": {"http": f"http://127.0.0.1:{configured_proxy.port}"}}
        router = Router(configured(providers={"a": own, "b": hosts}), env=env)
        client = holyroute.Client(router=router)
        client.ask(PROMPT, models=["ma"])
        client.ask(PROMPT, models=["mb"])

        assert [seen.headers["Host"] for seen in configured_proxy.seen] == ["gateway.example-a.test"]
        assert [seen.model for seen in variables_proxy.seen] == ["mb"]
    assert (a.attempts(), b.attempts()) == (0, 0)


def test_a_missing_certificate_file_of_one_provider_means_next(
    b: Simulator, configured: Callable[..., Config], env: dict[str, str], clock: Clock
) -> None:
    """A path that is wrong in the configuration of one provider does not stop the others."""
    hosts = {"base_url": "https://gateway.example-a.test/v1", "verify": "/no/such/bundle.pem"}
    client = holyroute.Client(router=Router(configured(providers={"a": hosts}), clock=clock, env=env))

    assert client.ask(PROMPT, models=["ma", "mb"]).model == "mb"
    with pytest.raises(AllTargetsFailed) as caught:
        client.ask(PROMPT, models=["ma"])
    assert "/no/such/bundle.pem" in str(caught.value.__cause__)
    assert b.attempts() == 1


# --- who is asked -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected", "asked"),
    [
        ({}, ["ma", "mb"], "route:simple_qa"),
        ({"task": "general", "priority": "high"}, ["mb", "ma"], "route:general/high"),
        ({"priority": "high"}, ["mb"], "route:simple_qa/high"),
        ({"model": "ma"}, ["ma", "mb"], "ma"),
        ({"model": "mb"}, ["mb"], "mb"),
        ({"models": ["mb", "ma"]}, ["mb", "ma"], "mb"),
        ({"models": ("mb",), "task": "general"}, ["mb"], "mb"),
        ({"model": "route:general/high"}, ["mb", "ma"], "route:general/high"),
        ({"model": "route:general", "priority": "high"}, ["mb", "ma"], "route:general"),
    ],
)
def test_a_call_says_whom_to_ask(
    a: Simulator,
    b: Simulator,
    configured: Callable[..., Config],
    env: dict[str, str],
    clock: Clock,
    *,
    options: dict[str, Any],
    expected: list[str],
    asked: str,
) -> None:
    """Models, a model with its failover list, a route by name or by task and priority, or the default route."""
    fail(a, b)
    routes = {"simple_qa": {"high": ["mb"]}, "general": {"high": ["mb", "ma"]}}
    client = holyroute.Client(router=Router(configured(routes=routes), clock=clock, env=env), task="simple_qa")
    completion = client.ask(PROMPT, on_failure="return", **options)
    assert completion.trace is not None
    models = list(dict.fromkeys(record.target.name for record in completion.trace.attempts))

    assert models == expected
    assert completion.model_asked == asked


def test_an_unknown_task_or_priority_is_said_once(client: holyroute.Client, caplog: pytest.LogCaptureFixture) -> None:
    """The defaults stand in, with one warning for each unknown word and the nearest known one."""
    with caplog.at_level(logging.WARNING, "holyroute"):
        for _ in range(3):
            client.ask(PROMPT, task="simple_qq", priority="fast")
            client.ask(PROMPT, task="simple_qa", priority="urgent")
    said = [record.getMessage() for record in caplog.records]

    assert said == [
        "unknown task 'simple_qq': using 'simple_qa'; did you mean 'simple_qa'?",
        "unknown priority 'urgent' for task 'simple_qa': using 'fast'",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "gpt-41"}, r"models: expected a configured model, got 'gpt-41'; did you mean 'gpt-4\.1'\?"),
        ({"models": ["ma", "deepseek-chatt"]}, r"got 'deepseek-chatt'; did you mean 'deepseek-chat'\?"),
        ({"models": []}, r"models: expected a list of names, got \[\]"),
        ({"models": "ma"}, r"models: expected a list of names, got 'ma'"),
        ({"order": "random"}, r"order: expected one of listed, cheapest, fastest, weighted, got 'random'"),
        ({"max_latency": "slw"}, r"max_latency: expected one of fast, normal, slow, got 'slw'"),
        ({"models": ["ma"], "max_latency": "slw"}, r"max_latency: expected one of"),
    ],
)
def test_a_wrong_choice_is_an_error_that_helps(
    a: Simulator, client: holyroute.Client, options: dict[str, Any], says: str
) -> None:
    """It names what was expected and what was found, and nothing is sent."""
    with pytest.raises(ConfigurationError, match=says):
        client.ask(PROMPT, **options)

    assert a.attempts() == 0


def test_without_any_key_the_variable_is_named(a: Simulator, b: Simulator, configured: Callable[..., Config]) -> None:
    """Nothing can be sent: the error says which variable to set, and for which endpoint."""
    client = holyroute.Client(router=Router(configured(), env={"KEY_A": " "}))
    with pytest.raises(ConfigurationError) as caught:
        client.ask(PROMPT)

    assert [line.split(" which is")[0] for line in str(caught.value).splitlines()] == [
        "providers.a.api_key_env: expected a key in the environment variable KEY_A,",
        "providers.b.api_key_env: expected a key in the environment variable KEY_B,",
    ]
    assert a.base_url in str(caught.value)
    assert caught.value.trace is not None
    assert isinstance(caught.value, ValueError)
    assert (a.attempts(), b.attempts()) == (0, 0)


def test_blocks_choose_for_what_stands_in_them(
    a: Simulator, b: Simulator, configured: Callable[..., Config], env: dict[str, str]
) -> None:
    """`routing` sets defaults, an inner block adds to the outer, a call's own words come first, threads see none."""
    config = configured(routes={"general": {"high": ["mb", "ma"]}, "simple_qa": {"high": ["ma"]}})
    client = holyroute.Client(router=Router(config, env=env))

    def asked(**options: Any) -> str | None:
        return client.ask(PROMPT, **options).model_asked

    with holyroute.routing("general"), holyroute.routing(priority="high"):
        inside = [asked(), asked(task="simple_qa"), asked(model="ma")]
        with ThreadPoolExecutor(1) as pool:
            elsewhere = pool.submit(asked).result()
    outside = asked()

    assert inside == ["route:general/high", "route:simple_qa/high", "ma"]
    assert (elsewhere, outside) == (None, None)
    assert {seen.model for seen in (*a.seen, *b.seen)} == {"ma", "mb"}


@pytest.mark.parametrize("how", ["direct", "disabled"])
def test_direct_means_the_first_candidate_only(
    a: Simulator, b: Simulator, client: holyroute.Client, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """In a `direct()` block, and where holyroute is switched off, nobody stands in for the first."""
    a.always("*", "429:60")
    if how == "disabled":
        monkeypatch.setenv("HOLYROUTE_DISABLED", "1")
        with pytest.raises(AllTargetsFailed):
            client.ask(PROMPT)
    else:
        with holyroute.direct(), pytest.raises(AllTargetsFailed):
            client.ask(PROMPT)

    assert b.attempts() == 0


# --- what comes back --------------------------------------------------------------------------------------------------


def test_a_completion_says_what_it_took(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """Text, models, usage, exact cost, time and the whole story, also when a substitute answered."""
    fail(a)
    completion = client.ask(PROMPT)
    assert completion.trace is not None

    assert completion.content == f"Answer to: {PROMPT}"
    assert (completion.model, completion.model_asked) == ("mb", None)
    assert completion.usage == holyroute.Usage(4, 6)
    assert completion.usage.total_tokens == 10
    assert completion.cost_usd == Decimal(4 * 3 + 6 * 6) / 1_000_000
    assert completion.finish_reason == "stop"
    assert (completion.success, completion.error, completion.cached) == (True, None, False)
    assert 0 < completion.latency_ms == completion.trace.seconds * 1_000
    assert completion.raw["model"] == b.seen[0].model
    assert [(record.target.name, record.status) for record in completion.trace.attempts][-1] == ("mb", 200)
    assert pickle.loads(pickle.dumps(completion)).cost_usd == completion.cost_usd  # noqa: S301 - our own


def test_a_tool_call_is_an_answer(a: Simulator, client: holyroute.Client) -> None:
    """No text, but what the model wants called."""
    a.always("*", faults.tool_call("lookup", {"q": "x"}))
    completion = client.chat(MESSAGES, tools=[TOOL])

    assert completion.content == ""
    assert [call["function"] for call in completion.tool_calls] == [{"name": "lookup", "arguments": '{"q": "x"}'}]
    assert completion.finish_reason == "tool_calls"
    assert completion.message["role"] == "assistant"


@pytest.mark.parametrize("fault", ["no-usage", "absurd-usage"])
def test_an_unreported_usage_is_unknown_not_zero(a: Simulator, client: holyroute.Client, fault: str) -> None:
    """What a provider does not say, or says wrongly, is None."""
    a.always("*", fault)
    completion = client.ask(PROMPT)

    assert (completion.usage, completion.cost_usd) == (None, None)
    assert client.balance().unknown == 1


def test_the_ledger_agrees_with_the_providers_bill(env: dict[str, str]) -> None:
    """What was spent is the bill to the last digit, over failures and substitutes."""
    prices = {"dear": ("8.10", "32.03"), "cheap": ("0.42", "1.68")}
    profiles = {
        name: Profile(price_input=Decimal(price), price_output=Decimal(out)) for name, (price, out) in prices.items()
    }
    with Simulator(profiles) as provider:
        models = {
            name: {"provider": "p", "price": dict(zip(("input", "output"), price, strict=True))}
            for name, price in prices.items()
        }
        config = holyroute.load(
            env={},
            cwd_file=False,
            providers={"p": {"base_url": provider.base_url, "api_key_env": "KEY_A"}},
            models=models,
            retry={"blip": False},
        )
        client = holyroute.Client(router=Router(config, env=env))
        provider.script("dear", *["503", "ok", "400", "500", "ok"] * 4)
        completions = [
            client.ask("word " * number, models=["dear", "cheap"], on_failure="return") for number in range(20)
        ]
        bill = sum((model.bill for model in provider.statistics().values()), Decimal(0))
        tokens = sum(model.prompt_tokens for model in provider.statistics().values())
    balance = client.balance("dear")

    assert balance.spent == bill > 0
    assert sum((completion.cost_usd or Decimal(0) for completion in completions), Decimal(0)) == bill
    assert sum(completion.usage.prompt_tokens for completion in completions if completion.usage) == tokens
    assert (balance.reference, balance.unknown) == ("dear", 0)
    assert balance.saved is not None
    assert balance.saved > 0
    assert client.balance("cheap").saved == client.balance("cheap").at_reference - bill  # type: ignore[operator]


def test_a_client_has_defaults_of_its_own(configured: Callable[..., Config], env: dict[str, str]) -> None:
    """Task and priority of the client hold where a call says nothing; the reference is the configured one."""
    config = configured(routing={"reference": "mb"}, routes={"general": {"high": ["mb"]}})
    client = holyroute.Client(router=Router(config, env=env), task="general", priority="high")

    assert client.ask(PROMPT).model_asked == "route:general/high"
    assert client.ask(PROMPT, task="simple_qa", priority="fast").model == "ma"
    assert client.balance().reference == "mb"
    assert client.balance("ma").reference == "ma"


def test_a_balance_needs_a_model_to_compare_with(client: holyroute.Client) -> None:
    """By default the dearest that is configured; an unknown one is an error."""
    client.ask(PROMPT)

    assert client.balance().reference == "gpt-4.1"
    assert client.balance().spent == Decimal(4 * 1 + 6 * 2) / 1_000_000
    with pytest.raises(ConfigurationError, match=r"did you mean 'gpt-4\.1'"):
        client.balance("gpt-4.2")


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("400", InvalidRequest, "bad request: invalid_request_error: The request is not valid."),
        ("413", InvalidRequest, "request too large: request_too_large: The request is too large."),
        ("422", InvalidRequest, "unprocessable request: unprocessable_entity: The request cannot be processed."),
        ("content-policy", ContentFiltered, "ma: content_policy_violation: Your request was rejected"),
        ("content-filter", ContentFiltered, "ma: finish_reason content_filter"),
        ("refusal", ContentFiltered, "ma: I'm sorry, but I cannot help with that."),
    ],
)
def test_a_refusal_is_final_and_says_why(
    a: Simulator, b: Simulator, client: holyroute.Client, fault: str, kind: type[Exception], says: str
) -> None:
    """The first choice's refusal of the request or its content is raised with the provider's reason."""
    a.always("*", fault)
    with pytest.raises(kind) as caught:
        client.ask(PROMPT)
    error: Any = caught.value

    assert str(error).startswith(says)
    assert error.trace.attempts[-1].target.name == "ma"
    assert error.response.status_code == a.seen[0].status
    assert b.attempts() == 0


def test_all_failed_tells_the_whole_story(a: Simulator, b: Simulator, client: holyroute.Client, router: Router) -> None:
    """Trace, last response, when to come back; caught as what requests would raise; pickles."""
    a.unplug()
    b.always("*", "503:7")
    with pytest.raises(requests.ConnectionError) as caught:
        client.ask(PROMPT)
    error = caught.value
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert type(error) is AllTargetsFailed
    assert error.trace is not None
    assert [record.target.name for record in error.trace.attempts] == ["ma", "mb"]
    assert error.response is not None
    assert error.response.status_code == 503
    assert error.retry_after == pytest.approx(7)
    assert error.retry_at == pytest.approx(router.clock.now() + 7, abs=5)
    assert error.ticket is None
    assert str(error).startswith("nobody could answer: service unavailable")
    assert "mb at b: service unavailable 503" in str(error)
    assert type(again) is AllTargetsFailed
    assert (str(again), again.retry_at, again.retry_after) == (str(error), error.retry_at, error.retry_after)
    assert str(again.trace) == str(error.trace)
    assert again.response.status_code == 503


def test_a_transport_failure_is_the_cause(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """Where nobody answered at all, the first exception of requests is kept as the cause."""
    a.unplug()
    b.unplug()
    with pytest.raises(AllTargetsFailed) as caught:
        client.ask(PROMPT)

    assert type(caught.value.__cause__) is requests.ConnectionError
    assert caught.value.response is None


def test_a_deadline_ends_the_call(a: Simulator, b: Simulator, client: holyroute.Client) -> None:
    """The time is up: a timeout and a failure of all targets at once, after as many seconds as were allowed."""
    for provider in (a, b):
        provider.always("*", "silent")
    with pytest.raises(requests.Timeout) as caught:
        client.ask(PROMPT, deadline=0.4)
    error = caught.value

    assert type(error) is DeadlineExceeded
    assert isinstance(error, (AllTargetsFailed, requests.ReadTimeout))
    assert error.trace is not None
    assert 0.3 < error.trace.seconds < 3
    assert {record.target.name for record in error.trace.attempts} == {"ma", "mb"}
    assert type(pickle.loads(pickle.dumps(error))) is DeadlineExceeded  # noqa: S301 - our own


@pytest.mark.parametrize("deadline", [0, -1])
def test_no_time_at_all_sends_nothing(a: Simulator, client: holyroute.Client, deadline: float) -> None:
    """Zero seconds are over before anybody is asked."""
    with pytest.raises(DeadlineExceeded):
        client.ask(PROMPT, deadline=deadline)

    assert a.attempts() == 0


@pytest.mark.parametrize(
    ("fault", "kind"), [("503", AllTargetsFailed), ("400", InvalidRequest), ("refusal", ContentFiltered)]
)
def test_failures_can_be_values(a: Simulator, b: Simulator, client: holyroute.Client, fault: str, kind: type) -> None:
    """`on_failure="return"` gives a completion that holds the exception; programming errors are raised all the same."""
    for provider in (a, b):
        provider.always("*", fault)
    completion = client.ask(PROMPT, on_failure="return")

    assert (completion.success, completion.content, completion.model) == (False, "", None)
    assert type(completion.error) is kind
    assert completion.trace is completion.error.trace
    assert type(pickle.loads(pickle.dumps(completion)).error) is kind  # noqa: S301 - our own
    with pytest.raises(ConfigurationError):
        client.ask(PROMPT, model="unknown", on_failure="return")


def test_what_cannot_be_sent_is_refused(a: Simulator, client: holyroute.Client) -> None:
    """No NaN, no objects that JSON does not know."""
    with pytest.raises(InvalidRequest, match="request could not be built"):
        client.chat(MESSAGES, temperature=float("nan"))
    with pytest.raises(TypeError, match="not JSON serializable"):
        client.chat(MESSAGES, metadata=object())

    assert a.attempts() == 0
    assert client.ask(PROMPT).success


# --- a client as a value ----------------------------------------------------------------------------------------------


def test_one_client_serves_many_threads(a: Simulator, client: holyroute.Client) -> None:
    """Each thread gets its own answer; connections are shared."""
    barrier = threading.Barrier(20)

    def ask(number: int) -> str:
        barrier.wait()
        return client.ask(f"question {number}").content

    with ThreadPoolExecutor(20) as pool:
        answers = [list(pool.map(ask, range(20))) for _ in range(3)]

    assert answers == [[f"Answer to: question {number}" for number in range(20)]] * 3
    assert len({seen.connection for seen in a.seen}) <= 20


def test_a_closed_client_opens_again(a: Simulator, router: Router) -> None:
    """Closing drops connections, not the client."""
    with holyroute.Client(router=router) as client:
        client.ask(PROMPT)
    client.ask(PROMPT)

    assert [seen.connection for seen in a.seen] == [1, 2]


def test_settings_are_keywords(a: Simulator, b: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client can be configured where it is made, in the shape of the file."""
    monkeypatch.setenv("ANY_KEY", "test-key-a")
    monkeypatch.setenv("OTHER_KEY", "test-key-b")
    client = holyroute.Client(
        providers={
            "x": {"base_url": a.base_url, "api_key_env": "ANY_KEY"},
            "y": {"base_url": b.base_url, "api_key_env": "OTHER_KEY"},
        },
        models={"mx": {"provider": "x"}, "my": {"provider": "y"}},
        failover={"mx": ["my"]},
    )
    fail(a)

    assert client.ask(PROMPT, model="mx").model == "my"


@pytest.mark.parametrize("settings", [{"time": {"deadline": 3}}, {"config": "configured"}])
def test_two_sources_of_settings_exclude_each_other(
    router: Router, configured: Callable[..., Config], settings: dict[str, Any]
) -> None:
    """One of them would be without effect."""
    if "config" in settings:
        settings = {"config": configured()}
    with pytest.raises(ConfigurationError, match="got both"):
        holyroute.Client(router=router, **settings)


def test_a_private_prompt_stays_private(
    a: Simulator, b: Simulator, configured: Callable[..., Config], env: dict[str, str], clock: Clock
) -> None:
    """A model on this machine fails over to a public host only where its host or provider is named."""
    fail(a)
    there = {"base_url": f"http://gateway.example-b.test:{b.port}/v1", "allow_http": True}
    attempts = []
    for source in ("ma", f"127.0.0.1:{a.port}"):
        config = configured(providers={"b": there}, failover={source: ["mb"]})
        with Names("gateway.example-b.test"), holyroute.Client(router=Router(config, clock=clock, env=env)) as client:
            client.ask(PROMPT, model="ma", on_failure="return")
        attempts.append(b.attempts())

    assert attempts == [0, 1]
