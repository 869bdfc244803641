"""Whom a call may ask: consent, abilities, order."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from requests import Request

import holyroute
from holyroute.core.call import Call, Origin, Selection
from holyroute.core.trace import Trace
from holyroute.dialects import openai
from holyroute.engine.selector import Selector
from holyroute.exceptions import ConfigurationError
from holyroute.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holyroute.config.schema import Config

PUBLIC = {
    "providers": {
        "here": {"base_url": "https://here.example/v1", "api_key_env": "HERE"},
        "there": {"base_url": "https://there.example/v1", "api_key_env": "THERE"},
    },
    "models": {
        "small": {"provider": "here", "price": {"input": 1, "output": 1}, "latency": "fast", "weight": 8},
        "large": {"provider": "here", "price": {"input": 5, "output": 9}, "latency": "slow", "weight": 1},
        "other": {"provider": "there", "price": {"input": 3, "output": 3}, "latency": "normal", "weight": 1},
        "free": {"provider": "there", "latency": "normal"},
    },
}
ALL = ("large", "free", "other", "small")
PRIVATE_HOSTS = [
    "localhost:11434",
    "localhost.:8000",
    "127.0.0.1:8000",
    "[::1]:8000",
    "10.0.0.5",
    "192.168.1.7:8000",
    "100.64.0.1",
    "169.254.1.1",
    "vllm:8000",
    "box.local",
    "llm.internal.",
]


def load(**tables: Any) -> Config:
    merged = {name: {**PUBLIC.get(name, {}), **tables.get(name, {})} for name in {*PUBLIC, *tables}}
    return holyroute.load(env={}, cwd_file=False, **merged)


def of_script(url: str, model: str = "small", *, body: Mapping[str, Any] | None = None, **selection: Any) -> Call:
    request = Request("POST", f"{url}/chat/completions").prepare()
    return of_client(model, body, Origin(request=request, base_url=openai.base_url(request)), **selection)


def of_client(
    model: str | None = None, body: Mapping[str, Any] | None = None, origin: Origin | None = None, **selection: Any
) -> Call:
    selected = Selection(**selection)
    return Call(model=model, body=body or {}, deadline=1, connect=1, read=1, selection=selected, origin=origin)


def names(config: Config, call: Call, observed: Mapping[str, float] | None = None) -> list[str]:
    selector = Selector(config, lambda target: (observed or {}).get(target.name))
    return [candidate.target.name for candidate in selector.candidates(call)]


# --- consent ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt-4.1", "deepseek-chat", "unknown", "route:general", "route:simple_qa/fast"])
@pytest.mark.parametrize("task", [None, "simple_qa"])
def test_what_is_built_in_stays_at_one_base_url(model: str, task: str | None) -> None:
    """Lists and routes that nobody wrote never lead to another host."""
    config = holyroute.load(env={}, cwd_file=False)
    selector = Selector(config, lambda _: None)
    inside = selector.candidates(of_script("https://api.holysheep.ai/v1", model, task=task))
    outside = selector.candidates(of_script("https://api.openai.com/v1", model, task=task))

    assert {candidate.target.provider.base_url for candidate in inside} == {"https://api.holysheep.ai/v1"}
    assert all(candidate.at_home for candidate in inside)
    assert len(inside) > 2
    assert [candidate.own for candidate in outside] == ([] if model.startswith("route:") else [True])


def test_a_built_in_list_does_not_follow_a_model_to_another_host() -> None:
    """An owner who moves a model elsewhere did not thereby agree that other calls follow it."""
    config = load(models={"deepseek-chat": {"provider": "there"}})

    assert "deepseek-chat" not in names(config, of_script("https://api.holysheep.ai/v1", "gpt-4.1"))
    assert "deepseek-chat" not in names(config, of_client("gpt-4.1"))
    assert "gpt-4.1-mini" in names(config, of_client("gpt-4.1"))


@pytest.mark.parametrize(
    ("tables", "selection", "model", "expected"),
    [
        ({}, {}, "small", ["small"]),
        ({"failover": {"small": ["other"]}}, {}, "small", ["small", "other"]),
        ({"failover": {"small": ["other"]}}, {}, "large", ["large"]),
        ({"failover": {"here.example": ["other"]}}, {}, "new", ["new", "other"]),
        ({"failover": {"here": ["other"]}}, {}, "new", ["new", "other"]),
        ({"failover": {"small": ["large"], "here": list(ALL)}}, {}, "small", ["small", "large"]),
        ({"failover": {"here.example": [], "here": ["other"]}}, {}, "new", ["new"]),
        ({"routes": {"mine": {"normal": ["other", "large"]}}}, {}, "small", ["small"]),
        ({"routes": {"mine": {"normal": ["other", "large"]}}}, {"task": "mine"}, "small", ["small", "other", "large"]),
        ({"routes": {"mine": {"normal": ["other", "small"]}}}, {}, "route:mine", ["other", "small"]),
        (
            {"routes": {"mine": {"normal": ["free"]}}, "failover": {"here": ["large"]}},
            {},
            "route:mine",
            ["free", "large"],
        ),
    ],
)
def test_the_owners_lists_lead_on(tables: Any, selection: Any, model: str, expected: list[str]) -> None:
    """First what the script wrote; then the route, and the list of model, host or provider; each target once."""
    config = load(**tables)

    assert names(config, of_script("https://here.example/v1", model, **selection)) == expected


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
def test_a_private_host_is_left_only_by_name(host: str) -> None:
    """Where models run at home, a list for the model or a route is not enough: the entry must name the host."""
    named = host if not host.startswith("[") else "[::1]:8000"
    base = f"http://{host}/v1"
    routes = {"mine": {"normal": ["other"]}}

    assert names(load(failover={"llama": ["other"]}), of_script(base, "llama")) == ["llama"]
    assert names(load(routes=routes), of_script(base, "llama", task="mine")) == ["llama"]
    assert names(load(routes=routes), of_script(base, "route:mine")) == []
    assert names(load(failover={named: ["other"]}), of_script(base, "llama")) == ["llama", "other"]


def test_from_one_private_host_to_another_any_entry_will_do() -> None:
    """The rule protects what leaves the network."""
    lan = {"lan": {"base_url": "http://10.1.1.1/v1", "allow_http": True}}
    config = load(providers=lan, models={"near": {"provider": "lan"}}, failover={"llama": ["near"]})

    assert names(config, of_script("http://localhost:8000/v1", "llama")) == ["llama", "near"]


def test_what_may_not_be_asked_is_noted() -> None:
    """The trace says who could have answered, had the owner agreed."""
    config = load(models={"gpt-4.1-mini": {"provider": "there"}})
    call = of_script("https://here.example/v1", task="general")
    trace = Trace(call, FakeClock(), lambda _: None)
    Selector(config, lambda _: None).candidates(call, trace)

    assert [str(skip) for skip in trace.skipped][:1] == [
        "gpt-4.1-mini at there: not asked, prompts for here.example may go there only by an entry of your own"
    ]


@pytest.mark.parametrize(
    ("url", "model", "provider", "known"),
    [
        ("https://here.example/v1", "small", "here", True),
        ("https://here.example/v1", "new", "here", False),
        ("https://here.example/v1/beta", "small", "beta", False),
        ("https://here.example/v2", "small", "here.example", False),
        ("https://here.example.evil.example/v1", "small", "here.example.evil.example", False),
        ("https://here.example:8443/v1", "small", "here.example:8443", False),
        ("http://here.example/v1", "small", "here.example", False),
        ("https://user:secret@here.example/v1", "small", "here", True),
    ],
)
def test_what_a_script_wrote_is_a_target(url: str, model: str, provider: str, *, known: bool) -> None:
    """A configured one where base URL and model match, the longest base URL first; else one made for the call."""
    config = load(providers={"beta": {"base_url": "https://here.example/v1/beta", "api_key_env": "BETA"}})
    (candidate,) = Selector(config, lambda _: None).candidates(of_script(url, model))

    assert (candidate.target.model, candidate.target.provider.name) == (model, provider)
    assert (candidate.target.price is not None) is known
    assert (candidate.own, candidate.at_home) == (True, True)
    assert "secret" not in candidate.target.key


# --- abilities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "able"),
    [
        ({}, ["plain", "handy"]),
        ({"max_tokens": 100}, ["plain", "handy"]),
        ({"max_tokens": 101}, ["handy"]),
        ({"max_completion_tokens": 101}, ["handy"]),
        ({"tools": [{}]}, ["handy"]),
        ({"tools": []}, ["plain", "handy"]),
        ({"response_format": {"type": "json_schema"}}, []),
        ({"messages": [{"content": [{"type": "image_url"}]}]}, ["handy"]),
    ],
)
def test_a_target_that_cannot_serve_the_call_is_left_out(body: dict[str, Any], able: list[str]) -> None:
    """As far as its owner declared; what the script wrote itself is always asked."""
    models = {
        "plain": {"provider": "here", "supports": [], "max_output": 100},
        "handy": {"provider": "here", "supports": ["tools", "vision"]},
    }
    config = load(models=models, failover={"here": ["plain", "handy"]})

    assert names(config, of_client(models=("plain", "handy"), body=body)) == able
    assert names(config, of_script("https://here.example/v1", "plain", body=body)) == [
        "plain",
        *able[able[:1] == ["plain"] :],
    ]


def test_who_is_left_out_is_noted() -> None:
    """The trace names what a target lacks."""
    config = load(models={"plain": {"provider": "here", "supports": [], "max_output": 100}})
    traces = []
    for body in ({"tools": [{}], "stream": True}, {"max_tokens": 101}):
        call = of_client(models=("plain",), body=body)
        traces.append(Trace(call, FakeClock(), lambda _: None))
        Selector(config, lambda _: None).candidates(call, traces[-1])

    assert [str(skip) for trace in traces for skip in trace.skipped] == [
        "plain at here: not asked, does not support stream, tools",
        "plain at here: not asked, writes at most 100 tokens",
    ]


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, ["large", "free", "other", "small"]),
        ({"order": "listed"}, ["large", "free", "other", "small"]),
        ({"order": "cheapest"}, ["small", "other", "large", "free"]),
        ({"order": "fastest"}, ["free", "small", "other", "large"]),
        ({"max_latency": "normal"}, ["free", "other", "small", "large"]),
        ({"max_latency": "fast"}, ["free", "small", "large", "other"]),
        ({"max_latency": "normal", "order": "cheapest"}, ["small", "other", "free", "large"]),
        ({"direct": True}, ["large"]),
        ({"direct": True, "order": "cheapest"}, ["small"]),
    ],
)
def test_candidates_are_ordered(selection: Any, expected: list[str]) -> None:
    """By list, price (unknown last) or speed (observed, else the class); too slow ones last; direct takes the first."""
    config = load(routes={"mine": {"normal": list(ALL)}})
    observed = {"free": 0.5}

    assert names(config, of_client(models=ALL, **selection), observed) == expected
    assert names(config, of_client(task="mine", **selection), observed) == expected


def test_the_configured_order_is_for_lists_not_for_named_models() -> None:
    """`models=` means this order; routes and failover lists follow the configuration."""
    tables = {
        "routing": {"order": "cheapest"},
        "routes": {"mine": {"normal": list(ALL)}},
        "failover": {"large": list(ALL)},
    }
    config = load(**tables)

    assert names(config, of_client(models=ALL)) == list(ALL)
    assert names(config, of_client(task="mine")) == ["small", "other", "large", "free"]
    assert names(config, of_client("large")) == ["large", "small", "other", "free"]
    assert names(config, of_script("https://here.example/v1", "large")) == ["large", "small", "other", "free"]


def test_a_weighted_draw_follows_the_weights() -> None:
    """Every target comes first as often as its weight says, and nobody is lost."""
    config = load()
    draws = [names(config, of_client(models=("small", "large", "other"), order="weighted")) for _ in range(3_000)]
    first = Counter(draw[0] for draw in draws)

    assert all(sorted(draw) == ["large", "other", "small"] for draw in draws)
    assert first["small"] / 3_000 == pytest.approx(0.8, abs=0.05)
    assert first["large"] / 3_000 == pytest.approx(0.1, abs=0.04)


# --- routes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "selection", "expected"),
    [
        (None, {}, "general/normal"),
        (None, {"task": "simple_qa"}, "simple_qa/normal"),
        (None, {"priority": "high"}, "general/high"),
        ("route:simple_qa/fast", {"task": "general", "priority": "high"}, "simple_qa/fast"),
        ("route:simple_qa", {"priority": "high"}, "simple_qa/high"),
        ("route:", {"task": "simple_qa"}, "simple_qa/normal"),
        ("route:/high", {}, "general/high"),
        ("route:unknown/high", {}, "general/high"),
        ("route:simple_qa/unknown", {}, "simple_qa/normal"),
    ],
)
def test_a_route_is_found(model: str | None, selection: Any, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    """The name's own parts first, then the call's, then the defaults; unknown ones fall back, with a warning."""
    config = load()
    task, priority = expected.split("/")

    assert names(config, of_client(model, **selection)) == list(config.routes[task][priority].targets)
    assert len(caplog.records) == (model or "").count("unknown")


def test_an_unknown_word_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """One warning per word, with the nearest known task."""
    selector = Selector(load(), lambda _: None)
    with caplog.at_level(logging.WARNING, "holyroute"):
        for _ in range(3):
            selector.route("simple_q", "urgent")

    assert [record.getMessage() for record in caplog.records] == [
        "unknown task 'simple_q': using 'general'; did you mean 'simple_qa'?",
        "unknown priority 'urgent' for task 'general': using 'normal'",
    ]


def test_a_priority_is_found_where_the_default_is_missing() -> None:
    """A route that knows one priority only is used for all."""
    config = load(routes={"mine": {"special": ["small"]}})

    assert names(config, of_client(task="mine")) == ["small"]


def test_an_unknown_model_is_an_error_of_configuration() -> None:
    """With the nearest name, if one is near."""
    with pytest.raises(ConfigurationError, match=r"got 'smal'; did you mean 'small'\?$"):
        names(load(), of_client("smal"))
    with pytest.raises(ConfigurationError, match=r"got 'zzz'$"):
        names(load(), of_client(models=("zzz",)))
