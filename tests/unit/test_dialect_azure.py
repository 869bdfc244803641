"""Azure's deployments: OpenAI's bodies at another address, with another key header, and talk of content filters."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from requests import PreparedRequest, Request

from holyroute.config.credentials import Credential
from holyroute.core.sse import Event
from holyroute.core.target import Provider, Target
from holyroute.dialects import azure
from holyroute.dialects.base import Untranslatable

URL = "https://name.openai.azure.com/openai/deployments/gpt%204/chat/completions?api-version=2024-06-01"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
PROVIDER = Provider(name="p", base_url="https://there.openai.azure.com", dialect="azure")
TARGET = Target(name="t", model="my/model", provider=PROVIDER)


def prepared(url: str = URL, **options: Any) -> PreparedRequest:
    return Request("POST", url, **({"json": BODY} | options)).prepare()


@pytest.mark.parametrize(
    ("request_", "model"),
    [
        (prepared(), "gpt 4"),
        (prepared(json={**BODY, "model": "other"}), "gpt 4"),
        (prepared("https://proxy.example/prefix/openai/deployments/d/chat/completions"), "d"),
        (prepared("https://name.openai.azure.com/openai/v1/chat/completions"), None),
        (prepared("https://name.openai.azure.com/openai/deployments/d/embeddings"), None),
        (prepared(json={"prompt": "hi"}), None),
    ],
)
def test_the_deployment_is_the_model(request_: PreparedRequest, model: str | None) -> None:
    """It stands in the address; what the body calls a model is not looked at, as at Azure."""
    found = azure.read(request_)

    assert (found[0] if found else None) == model


def test_the_base_url_is_the_resource() -> None:
    """Without the deployment, query, user and password."""
    request = prepared(URL.replace("name.", "user:secret@name."))

    assert azure.base_url(request) == "https://name.openai.azure.com"


def test_a_new_request_names_the_deployment_in_its_address() -> None:
    """Quoted, with the API's version, the key in its own header, and nothing of the caller's that names anybody."""
    headers = {"api-key": "test-key-a", "Cookie": "a=1", "Accept": "x/y"}
    request = azure.prepare(TARGET, BODY, Credential("K", "test-key-b"), headers)

    assert request.url == (
        "https://there.openai.azure.com/openai/deployments/my%2Fmodel/chat/completions?api-version=2024-10-21"
    )
    assert dict(request.headers) == {
        "Accept": "x/y",
        "User-Agent": "holyroute",
        "Content-Type": "application/json",
        "Content-Length": str(len(request.body or b"")),
        "api-key": "test-key-b",
    }
    assert azure.read(request) == ("my/model", {**BODY, "model": "my/model"})


def test_a_provider_may_name_its_version() -> None:
    """A preview, for instance; a target without a key gets none."""
    target = replace(TARGET, provider=replace(PROVIDER, api_version="2025-01-01-preview"))
    request = azure.prepare(target, BODY, None)

    assert (request.url or "").endswith("?api-version=2025-01-01-preview")
    assert "api-key" not in request.headers


def test_a_renamed_request_goes_to_another_deployment() -> None:
    """The caller's own request, version and key, at the address of the other deployment."""
    original = prepared(headers={"api-key": "test-key-a"})
    request = azure.renamed(original.copy(), TARGET, BODY)

    assert request.url == URL.replace("gpt%204", "my%2Fmodel")
    assert request.headers["api-key"] == "test-key-a"
    assert request.headers["Content-Length"] == str(len(request.body or b""))
    assert original.url == URL


@pytest.mark.parametrize("field", ["data_sources", "dataSources", "enhancements"])
def test_what_only_azure_understands_stays_there(field: str) -> None:
    """A search in the owner's documents cannot be done elsewhere, and an answer without it would be another one."""
    with pytest.raises(Untranslatable) as caught:
        azure.request_to_openai({**BODY, field: [{"type": "azure_search"}]})

    assert caught.value.path == field
    assert azure.request_to_openai({**BODY, field: None}) == BODY


@pytest.mark.parametrize(
    ("decoded", "error"),
    [
        (
            {"statusCode": 401, "message": "Access denied."},
            {"message": "Access denied.", "type": "invalid_request_error", "param": None, "code": None},
        ),
        (
            {"message": "Slow down.", "code": 429},
            {"message": "Slow down.", "type": "invalid_request_error", "param": None, "code": "429"},
        ),
        (None, {"message": "Unauthorized", "type": "invalid_request_error", "param": None, "code": None}),
    ],
)
def test_errors_of_the_gateway_take_openais_form(decoded: Any, error: dict[str, Any]) -> None:
    """What the service itself says passes as it is; what stands before it speaks otherwise."""
    own = {"error": {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}

    assert azure.error_to_openai(401, decoded) == (401, {"error": error})
    assert azure.error_to_openai(400, own) == (400, own)
    assert azure.error_from_openai(400, own) == (400, own)


FILTERS = {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}


@pytest.mark.parametrize(
    ("chunk", "passes"),
    [
        ({"choices": [], **FILTERS}, False),
        ({"choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}]}, False),
        ({"choices": [{"index": 0, "delta": {"content": "a"}, "content_filter_results": {}}]}, True),
        ({"choices": [], "usage": {"prompt_tokens": 1}, **FILTERS}, True),
        ({"error": {"code": "content_filter"}, "choices": []}, True),
        ({"filter": 1}, True),
        ({"choices": []}, True),
        ([{"filter": 1}], True),
    ],
)
def test_streams_lose_what_openais_scripts_stumble_over(chunk: Any, passes: bool) -> None:
    """Chunks without choices or delta that tell of filters only: `choices[0]["delta"]` always works, as at OpenAI."""
    event = Event(json.dumps(chunk))

    assert azure.stream_to_openai(usage=False).feed(event) == ([event] if passes else [])


@pytest.mark.parametrize("data", ["[DONE]", '{"filter', ""])
def test_other_events_pass(data: str) -> None:
    """The end, and what is malformed: whoever reads it shall see it."""
    assert azure.stream_to_openai(usage=False).feed(Event(data)) == [Event(data)]
