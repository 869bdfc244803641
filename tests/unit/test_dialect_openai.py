"""Chat completions over the wire: what is read as one, and what is sent in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from requests import PreparedRequest, Request
from requests.cookies import cookiejar_from_dict
from requests.exceptions import InvalidJSONError

from holyroute.config.credentials import Credential
from holyroute.core.target import Provider, Target
from holyroute.dialects import openai, wire

URL = "https://api.example.com/v1/chat/completions"
BODY = {"model": "m", "messages": []}
TARGET = Target(name="t", model="wire-name", provider=Provider(name="p", base_url="https://there.example/v1"))


def prepared(url: str = URL, method: str = "POST", **options: Any) -> PreparedRequest:
    return Request(method, url, **({"json": BODY} | options)).prepare()


@pytest.mark.parametrize(
    ("request_", "model"),
    [
        (prepared(), "m"),
        (prepared(json=None, data=json.dumps(BODY)), "m"),
        (prepared(json=None, data=json.dumps(BODY).encode("utf-16")), "m"),
        (prepared(f"{URL}?api-version=2024-10-21"), "m"),
        (prepared("http://localhost:11434/chat/completions"), "m"),
        (prepared("https://x.example/openai/deployments/gpt%204/chat/completions", json={"messages": []}), "gpt 4"),
        (prepared("https://x.example/openai/deployments/gpt/chat/completions"), "m"),
        (prepared("https://x.example/deployments/gpt/chat/completions", json={"messages": []}), None),
        (prepared(method="GET"), None),
        (prepared("https://api.example.com/v1/chat/completions/"), None),
        (prepared("https://api.example.com/v1/embeddings?next=/chat/completions"), None),
        (prepared(json={"model": "m", "messages": {}}), None),
        (prepared(json=None, data=b'{"model": "m", "messages": [], "n": Infinity}'), None),
    ],
)
def test_what_is_a_chat_completion(request_: PreparedRequest, model: str | None) -> None:
    """A POST to the path with JSON that holds messages and a model, which may stand in the URL."""
    found = openai.read(request_)

    assert (found[0] if found else None) == model


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, "https://api.example.com/v1"),
        (f"{URL}?key=secret#part", "https://api.example.com/v1"),
        ("https://user:secret@api.example.com:8443/v1/chat/completions", "https://api.example.com:8443/v1"),
        ("http://[::1]:8000/chat/completions", "http://[::1]:8000"),
    ],
)
def test_a_base_url_holds_no_secret(url: str, expected: str) -> None:
    """It names a target in traces and logs: without query, user and password."""
    assert openai.base_url(prepared(url)) == expected


def test_a_new_request_carries_what_names_nobody() -> None:
    """Three headers of the caller, the target's own key, the target's own model."""
    headers = {
        "accept": "x/y",
        "User-Agent": "script",
        "Cookie": "a=1",
        "X-Api-Key": "secret",
        "Content-Type": "text/x",
    }
    request = openai.prepare(
        TARGET, {**BODY, "user": "ü"}, Credential("K", "test-key-b"), prepared(headers=headers).headers
    )

    assert dict(request.headers) == {
        "Accept": "x/y",
        "User-Agent": "script",
        "Content-Type": "application/json",
        "Content-Length": str(len(request.body or b"")),
        "Authorization": "Bearer test-key-b",
    }
    assert request.url == "https://there.example/v1/chat/completions"
    assert json.loads(request.body or b"") == {"model": "wire-name", "messages": [], "user": "ü"}


def test_a_target_without_a_key_gets_none() -> None:
    """Local servers are asked without Authorization."""
    assert "Authorization" not in openai.prepare(TARGET, BODY, None).headers


def test_a_renamed_request_changes_nothing_else() -> None:
    """At the same host the caller's own request goes again, with another model and the length that follows."""
    original = prepared(
        headers={"Authorization": "Bearer own", "X-Title": "x"}, cookies=cookiejar_from_dict({"a": "1"})
    )
    request = openai.renamed(original.copy(), TARGET, BODY)

    assert (request.url, request.method) == (original.url, original.method)
    assert {**request.headers, "Content-Length": None} == {**original.headers, "Content-Length": None}
    assert request.headers["Content-Length"] == str(len(request.body or b""))
    assert json.loads(request.body or b"")["model"] == "wire-name"
    assert json.loads(original.body or b"")["model"] == "m"


def test_a_shown_request_is_masked() -> None:
    """Everything that could hold a credential is hidden; what is sent is left as it is."""
    original = prepared(headers={"Authorization": "Bearer secret", "X-Anything": "secret", "Accept": "x/y"})
    shown = wire.without_credentials(original)

    assert "secret" not in str(shown.headers)
    assert (shown.headers["accept"], shown.headers["AUTHORIZATION"]) == ("x/y", "***")
    assert (shown.url, shown.body) == (original.url, original.body)
    assert original.headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("text", ["Grüße 👋", "half a pair: \ud83d", "\x00\u2028"])
def test_any_text_survives(text: str) -> None:
    """Also half a surrogate pair, which only an escape can carry: the wire is valid UTF-8."""
    request = openai.prepare(TARGET, {"messages": [{"content": text}]}, None)
    assert isinstance(request.body, bytes)

    assert json.loads(request.body.decode())["messages"] == [{"content": text}]


def test_what_json_does_not_know_is_not_sent() -> None:
    """As in requests: NaN is an error before it is a request."""
    with pytest.raises(InvalidJSONError):
        openai.prepare(TARGET, {"temperature": float("nan")}, None)
