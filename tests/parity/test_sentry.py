"""Sentry hooks into `http.client`, below everything: each attempt is a span and a breadcrumb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import requests
    from sentry_sdk.envelope import Envelope

    from holyroute.simulator import Simulator


class Keeping(Transport):
    """Keeps what would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        """Keep it."""
        self.events += [item.payload.json for item in envelope.items]


@pytest.fixture
def sentry() -> Iterator[Keeping]:
    transport = Keeping()
    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            dsn="https://public@sentry.example.test/1",
            transport=transport,
            traces_sample_rate=1.0,
            default_integrations=True,
            auto_enabling_integrations=False,
        )
        yield transport
        sentry_sdk.get_client().close()
        sentry_sdk.init()


def test_each_attempt_has_a_span(
    a: Simulator, b: Simulator, session: requests.Session, ask: Callable[..., requests.Response], sentry: Keeping
) -> None:
    """With its own URL and status."""
    with sentry_sdk.start_transaction(name="a call", op="test"):
        response = ask(session.post)
    (transaction,) = sentry.events
    told = [(span["description"], span["data"]["http.response.status_code"]) for span in transaction["spans"]]

    assert response.json()["model"] == "mb"
    assert told == [(f"POST {a.base_url}/chat/completions", 503), (f"POST {b.base_url}/chat/completions", 200)]
