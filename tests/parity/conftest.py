"""Two providers that exist nowhere: whatever answers for them is a mocking library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import holyroute
from holyroute.engine.router import Router

if TYPE_CHECKING:
    from collections.abc import Callable
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
