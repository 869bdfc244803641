"""holyroute's own rows. All but one are fully routed: three targets at three providers, prices, limits, breakers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from exchange import BASE, HEADERS, KEY, MESSAGES, MODEL, OPTIONS, PATH, PAYLOAD, TIMEOUT, Client, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange import Call

BATCH = "holyroute.Client.batch"
CHAT, DROP_IN, UNROUTED = "holyroute.Client.chat", "holyroute.Session.post", "holyroute.Session, not routed"
HIT = "holyroute.Client, cache hit"
KEY_VARIABLE = "SPEED_API_KEY"  # names the key in the environment of every client
ENVIRONMENT = {KEY_VARIABLE: KEY}


def configuration(url: str) -> str:
    """A file as an owner writes it; limits so wide that nobody waits for them."""
    places = {"first": MODEL, "second": "stand-in", "third": "last-resort"}
    lines = []
    for place, model in places.items():
        lines += [f"[providers.{place}]", f'base_url = "{url}{BASE.replace("first", place)}"']
        lines += [f'api_key_env = "{KEY_VARIABLE}"']
        lines += [f'[models."{model}"]', f'provider = "{place}"', "price = { input = 0.15, output = 0.60 }"]
        lines += ["rpm = 10_000_000", "tpm = 10_000_000_000"]
    lines += ["[failover]", f'"{urlsplit(url).netloc}" = ["stand-in", "last-resort"]']
    return "\n".join(lines)


def chat(_: str, __: int) -> Call:
    """The typed door."""
    import holyroute

    client = holyroute.Client()
    return lambda: client.chat(MESSAGES, model=MODEL, **OPTIONS).content


class Batch:
    """One job for many rows; a single call is a job of one."""

    def __init__(self, _: str, __: int) -> None:
        import holyroute

        self._client = holyroute.Client()

    def __call__(self) -> str:
        """One row."""
        return self.many(1, 1)

    def many(self, calls: int, threads: int) -> str:
        """Rows that are all the same; the text of the last one."""
        rows = ({"messages": MESSAGES, **OPTIONS} for _ in range(calls))
        texts = [result.content for result in self._client.batch(rows, model=MODEL, max_workers=threads)]
        assert len(texts) == calls
        return texts[-1]


def cache_hit(_: str, __: int) -> Call:
    """The same deterministic question again."""
    import holyroute

    client = holyroute.Client()
    return lambda: client.chat(MESSAGES, model=MODEL, temperature=0, max_tokens=500).content


def _session(path: str) -> Callable[[str, int], Call]:
    def build(url: str, _: int) -> Call:
        import holyroute

        session = holyroute.Session()
        session.headers.update(HEADERS)
        return lambda: text_of(session.post(url + path, json=PAYLOAD, timeout=TIMEOUT).json())

    return build


def post(url: str, _: int) -> Call:
    """A changed import line, and nothing else."""
    import holyroute as requests

    return lambda: text_of(requests.post(url + PATH, json=PAYLOAD, headers=HEADERS, timeout=TIMEOUT).json())


OURS = (
    Client(CHAT, chat, in_batches=True),
    Client(BATCH, Batch, in_batches=True),
    Client(DROP_IN, _session(PATH), in_batches=True),
    Client("holyroute.post", post),
    Client(UNROUTED, _session("/first/v1/responses")),
    Client(HIT, cache_hit, reaches_server=False),
)
