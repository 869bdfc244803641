"""The public API as a type checker sees it; run by mypy, never executed."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, assert_type

import requests

import holyroute
from holyroute.core.completion import Completion, Usage
from holyroute.core.trace import Trace
from holyroute.monitoring.health import AlertNote, Health
from holyroute.testing import FakeClock, Simulator

client = holyroute.Client("holyroute.toml", task="simple_qa", time={"deadline": 30})
answer = client.ask("Hello", priority="fast", temperature=0)
assert_type(answer, Completion)
assert_type(answer.content, str)
assert_type(answer.usage, Usage | None)
assert_type(answer.cost_usd, Decimal | None)
assert_type(answer.trace, Trace | None)
assert_type(client.chat([{"role": "user", "content": "Hello"}], models=["a", "b"]), Completion)

assert_type(client.health(), Health)
assert_type(client.health_report(), str)


@client.on_alert
def page(alert: AlertNote) -> None:
    """Told of every alert."""


ticket = client.submit("Hello", handler="save", attach={"row": 17})
assert_type(ticket, holyroute.Ticket)


@holyroute.handler("save")
@client.queue.handler("save")
def save(answer: holyroute.Delivered) -> None:
    assert_type(answer.result, Mapping[str, Any])


session = holyroute.Session(task="simple_qa", retries=holyroute.standard_retry())
assert_type(session.post("https://api.example.com/v1/chat/completions", json={}), requests.Response)
assert_type(holyroute.post("https://api.example.com", json={}), requests.Response)
assert_type(holyroute.trace_of(holyroute.get("https://api.example.com")), Trace | None)
plain: requests.Session = session

with holyroute.routing("code_generation", "high"), holyroute.direct():
    pass

holyroute.install("own.toml", task="simple_qa", priority="fast")
holyroute.uninstall()
with holyroute.installed(router=session.router):
    pass

error: requests.ConnectionError = holyroute.AllTargetsFailed("nobody")
timeout: requests.Timeout = holyroute.DeadlineExceeded("too late")
value: ValueError = holyroute.ConfigurationError("wrong")

assert_type(FakeClock().now(), float)
with Simulator() as provider:
    assert_type(provider.base_url, str)
