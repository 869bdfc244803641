"""Two providers that exist nowhere, for libraries that answer in their place, and two that do, for those that watch.

Every test asks A, which fails, and gets its answer from B.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests

import holyroute
from holyroute.engine.router import Router
from holyroute.simulator import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Door = Callable[[], Any]

A = "https://gateway.example-a.test/v1"
B = "https://gateway.example-b.test/v1"
TABLES: dict[str, Any] = {
    "providers": {"a": {"base_url": A, "api_key_env": "KEY_A"}, "b": {"base_url": B, "api_key_env": "KEY_B"}},
    "models": {"ma": {"provider": "a"}, "mb": {"provider": "b"}},
    "failover": {"gateway.example-a.test": ["mb"]},
}
TOML = f"""
[providers.a]
base_url = "{A}"
api_key_env = "KEY_A"
[providers.b]
base_url = "{B}"
api_key_env = "KEY_B"
[models]
ma = {{ provider = "a" }}
mb = {{ provider = "b" }}
[failover]
"gateway.example-a.test" = ["mb"]
"""


@pytest.fixture
def urls() -> tuple[str, str]:
    """Where A and B take chat completions."""
    return f"{A}/chat/completions", f"{B}/chat/completions"


@pytest.fixture
def answer() -> dict[str, Any]:
    """What B says."""
    message = {"role": "assistant", "content": "hello from B"}
    return {"model": "mb", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


@pytest.fixture
def router() -> Router:
    """A, then B."""
    config = holyroute.load(env={}, cwd_file=False, **TABLES)
    return Router(config, env={"KEY_A": "test-key-a", "KEY_B": "test-key-b"})


@pytest.fixture
def configured_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the functions."""
    path = tmp_path / "owner.toml"
    path.write_text(TOML)
    for name, value in (("HOLYROUTE_CONFIG", str(path)), ("KEY_A", "test-key-a"), ("KEY_B", "test-key-b")):
        monkeypatch.setenv(name, value)


# --- on real sockets --------------------------------------------------------------------------------------------------


@pytest.fixture
def a() -> Iterator[Simulator]:
    """The script's own provider, which fails."""
    with Simulator() as simulator:
        simulator.always("*", 503)
        yield simulator


@pytest.fixture
def b() -> Iterator[Simulator]:
    """The substitute."""
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def live(a: Simulator, b: Simulator) -> Router:
    """A, then B, on real sockets."""
    config = holyroute.load(
        env={},
        cwd_file=False,
        providers={"a": {"base_url": a.base_url}, "b": {"base_url": b.base_url}},
        models={"mb": {"provider": "b"}},
        failover={f"127.0.0.1:{a.port}": ["mb"]},
    )
    return Router(config)


@pytest.fixture
def installed(live: Router) -> Iterator[None]:
    """Plain requests, routed."""
    with holyroute.installed(router=live):
        yield


@pytest.fixture(params=["Session", "install"])
def session(request: pytest.FixtureRequest, live: Router) -> Iterator[requests.Session]:
    """A routed session: one of ours, and one of requests that knows nothing of us."""
    if request.param == "Session":
        with holyroute.Session(router=live) as ours:
            yield ours
    else:
        with holyroute.installed(router=live), requests.Session() as theirs:
            yield theirs


@pytest.fixture
def ask(a: Simulator) -> Callable[..., requests.Response]:
    """Sends a chat completion to A, by a session's `post` or another function of its kind."""

    def send(post: Any, **options: Any) -> requests.Response:
        body = {"model": "ma", "messages": [{"role": "user", "content": "hello"}]}
        response: requests.Response = post(f"{a.base_url}/chat/completions", **{"json": body, "timeout": 5, **options})
        return response

    return send
