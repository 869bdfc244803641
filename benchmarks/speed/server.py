"""The provider that all clients talk to: one canned answer, some 50 µs of work, and a count of what it served.

    python server.py CORE plain|provider

Prints its port. `POST` anywhere: the answer. `GET /served`: how many POSTs came since the last time that was asked, and
the seconds they were held. `GET /hold/zero` (or `constant`, `lognormal`): how long to hold them from now on.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys

from exchange import ANSWER_BYTES
from pinning import pin

HOLD = {
    "zero": lambda: 0.0,
    "constant": lambda: 0.05,
    "lognormal": lambda: random.lognormvariate(-2.490, 0.225),  # mean 85 ms, 95th percentile 120 ms
}
PLAIN = {"Server": "benchmark", "Date": "Mon, 24 Nov 2025 12:00:00 GMT"}
PROVIDER = PLAIN | {  # the kind and number of headers that a hosted model sends
    "Connection": "keep-alive",
    "Access-Control-Expose-Headers": "X-Request-ID",
    "Alt-Svc": 'h3=":443"; ma=86400',
    "Cf-Cache-Status": "DYNAMIC",
    "Cf-Ray": "0123456789abcdef-FRA",
    "Openai-Organization": "harbour",
    "Openai-Processing-Ms": "712",
    "Openai-Version": "2020-10-01",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload",
    "X-Content-Type-Options": "nosniff",
    "X-Envoy-Upstream-Service-Time": "731",
    "X-Ratelimit-Limit-Requests": "10000",
    "X-Ratelimit-Limit-Tokens": "200000",
    "X-Ratelimit-Remaining-Requests": "9999",
    "X-Ratelimit-Remaining-Tokens": "199412",
    "X-Request-Id": "req_0123456789abcdef0123456789abcdef",
}
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class State:
    """What the connections share."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.answer = message(ANSWER_BYTES, headers)
        self.hold = HOLD["zero"]
        self.served, self.held = 0, 0.0

    def manage(self, path: str) -> bytes:
        """Answer the driver."""
        _, what, *more = path.split("/")
        if what == "hold":
            self.hold = HOLD[more[0]]
        told = {"served": self.served, "held": self.held}
        self.served, self.held = 0, 0.0
        return message(json.dumps(told).encode(), PLAIN)


class Connection(asyncio.Protocol):
    """One request at a time, kept alive."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.loop = asyncio.get_running_loop()
        self.received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Note where answers go."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect a request; many clients send its head and body apart."""
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = LENGTH.search(self.received, 0, end)
        if len(self.received) < end + 4 + (int(length[1]) if length else 0):
            return
        line, self.received = self.received[: self.received.find(b"\r")], b""
        self.answer(line)

    def answer(self, line: bytes) -> None:
        """Now, or after a while."""
        if not line.startswith(b"POST"):
            self.transport.write(self.state.manage(line.split()[1].decode()))
            return
        self.state.served += 1
        seconds = self.state.hold()
        if seconds:
            self.loop.call_later(seconds, self.let_go, self.loop.time())
        else:
            self.transport.write(self.state.answer)

    def let_go(self, arrived: float) -> None:
        """Send a held answer."""
        self.state.held += self.loop.time() - arrived
        self.transport.write(self.state.answer)


def message(body: bytes, headers: dict[str, str]) -> bytes:
    """A whole answer."""
    every = {"Content-Type": "application/json", "Content-Length": len(body), **headers}
    lines = ["HTTP/1.1 200 OK", *(f"{name}: {value}" for name, value in every.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def main(headers: str) -> None:
    """Serve until the driver ends."""
    state = State(PROVIDER if headers == "provider" else PLAIN)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # ends with the driver
    server.close()


if __name__ == "__main__":
    pin(int(sys.argv[1]))
    asyncio.run(main(sys.argv[2]))
