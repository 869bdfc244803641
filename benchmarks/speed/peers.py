"""The peers: one function for each, written as its documentation shows it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from exchange import BASE, HEADERS, KEY, MESSAGES, MODEL, OPTIONS, PATH, PAYLOAD, TIMEOUT, Client, text_of

if TYPE_CHECKING:
    import requests
    from exchange import Call

BASELINE, FLOOR, RIVAL = "requests.Session.post", "http.client", "litellm.Router"


def http_client(url: str, _: int) -> Call:
    """The floor: the standard library, one connection for each thread."""
    import http.client
    import threading

    host = url.removeprefix("http://")
    mine = threading.local()

    def call() -> str:
        connection = getattr(mine, "connection", None)
        if connection is None:
            connection = mine.connection = http.client.HTTPConnection(host, timeout=60)
        connection.request("POST", PATH, json.dumps(PAYLOAD).encode(), HEADERS)
        return text_of(json.loads(connection.getresponse().read()))

    return call


def urllib3(url: str, connections: int) -> Call:
    """What requests itself uses."""
    import urllib3

    pools = urllib3.PoolManager(maxsize=connections, timeout=urllib3.Timeout(*TIMEOUT))
    return lambda: text_of(pools.request("POST", url + PATH, json=PAYLOAD, headers=HEADERS).json())


def _post(session: requests.Session, url: str) -> Call:
    session.headers.update(HEADERS)
    return lambda: text_of(session.post(url + PATH, json=PAYLOAD, timeout=TIMEOUT).json())


def requests_session(url: str, connections: int) -> Call:
    """The baseline."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=max(10, connections)))
    return _post(session, url)


def requests_post(url: str, _: int) -> Call:
    """What most scripts write."""
    import requests

    return lambda: text_of(requests.post(url + PATH, json=PAYLOAD, headers=HEADERS, timeout=TIMEOUT).json())


def requests_cache(url: str, _: int) -> Call:
    """Its cache in memory, which has the answer."""
    import requests_cache

    return _post(requests_cache.CachedSession(backend="memory", allowable_methods=["POST"], expire_after=3600), url)


def httpx(url: str, connections: int) -> Call:
    """A client with room for all connections."""
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=max(20, connections))
    client = httpx.Client(headers=HEADERS, timeout=60, limits=limits)
    return lambda: text_of(client.post(url + PATH, json=PAYLOAD).json())


def openai(url: str, _: int) -> Call:
    """The SDK with its defaults."""
    import openai

    sdk = openai.OpenAI(base_url=url + BASE, api_key=KEY, timeout=60)
    return lambda: sdk.chat.completions.create(**PAYLOAD).choices[0].message.content or ""


def litellm_completion(url: str, _: int) -> Call:
    """The function, without a router."""
    import litellm

    place = {"model": f"openai/{MODEL}", "api_base": url + BASE, "api_key": KEY}
    return lambda: litellm.completion(messages=MESSAGES, **place, **OPTIONS).choices[0].message.content


def litellm_router(url: str, _: int) -> Call:
    """Three deployments and a fallback, as our own configuration has."""
    import litellm

    def deployment(name: str, base: str) -> dict[str, object]:
        place = {"model": f"openai/{MODEL}", "api_base": f"{url}/{base}/v1", "api_key": KEY}
        return {"model_name": name, "litellm_params": place}

    router = litellm.Router(
        model_list=[deployment("main", "first"), deployment("main", "second"), deployment("spare", "third")],
        fallbacks=[{"main": ["spare"]}],
        num_retries=2,
    )
    return lambda: router.completion(model="main", messages=MESSAGES, **OPTIONS).choices[0].message.content


PEERS = (
    Client(FLOOR, http_client, in_batches=True),
    Client("urllib3", urllib3, "urllib3"),
    Client(BASELINE, requests_session, "requests", in_batches=True),
    Client("requests.post", requests_post, "requests"),
    Client("requests-cache, hit", requests_cache, "requests_cache", reaches_server=False),
    Client("httpx.Client.post", httpx, "httpx", in_batches=True),
    Client("openai", openai, "openai", in_batches=True),
    Client("litellm.completion", litellm_completion, "litellm"),
    Client(RIVAL, litellm_router, "litellm", in_batches=True),
)
