"""Azure OpenAI: OpenAI's bodies, another address and another key header, and fields about content filters.

A model is a *deployment*, named by the address: `{base_url}/openai/deployments/{model}/chat/completions?api-version=…`,
with the key in `api-key`. The base URL is the resource's, `https://NAME.openai.azure.com`. The newer
`https://NAME.openai.azure.com/openai/v1` speaks OpenAI's own dialect.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit, urlunsplit

from holyroute.dialects import openai, wire
from holyroute.dialects.base import Untranslatable, refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

    from holyroute.config.credentials import Credential
    from holyroute.core.sse import Event
    from holyroute.core.target import Target
    from holyroute.dialects.base import Json, StreamTranslator

name = "azure"

# The latest version of the API that is no preview, for providers that name none.
# https://learn.microsoft.com/azure/ai-services/openai/api-version-deprecation
API_VERSION = "2024-10-21"

# Everything else is OpenAI's.
REQUEST = {
    "data_sources": refused("a search in the owner's documents, which only Azure can do", []),
    "dataSources": refused("the same, as previews spelt it", []),
    "enhancements": refused("image analysis that only Azure does", {}),
}


def read(request: PreparedRequest) -> tuple[str, Json] | None:
    """Deployment and decoded body, if a request is for a deployment's chat completion."""
    deployment = openai.DEPLOYMENT.search(wire.path_of(request))
    body = wire.body_of(request) if deployment else None
    return (unquote(deployment.group(1)), body) if deployment and body is not None else None


def base_url(request: PreparedRequest) -> str:
    """The URL of the resource; without user and password, for it is shown."""
    return wire.base_url(request, openai.DEPLOYMENT.sub("", wire.path_of(request)))


def prepare(
    target: Target,
    body: Mapping[str, Any],
    credential: Credential | None,
    headers: Mapping[str, Any] | None = None,
) -> PreparedRequest:
    """A new request to a deployment; of the caller's headers only those travel that name no one."""
    version = urlencode({"api-version": target.provider.api_version or API_VERSION})
    url = f"{target.provider.base_url}{_path(target)}?{version}"
    key = ("api-key", credential.secret) if credential is not None else None
    return wire.post(url, wire.encode(body, target), key, headers)


def renamed(request: PreparedRequest, target: Target, body: Mapping[str, Any]) -> PreparedRequest:
    """The caller's own request to the same resource, for another deployment."""
    parts = urlsplit(request.url or "")
    path = openai.DEPLOYMENT.sub("", parts.path) + _path(target)
    request.url = urlunsplit(parts._replace(path=path))
    request.prepare_body(wire.encode(body, target), None)
    return request


def request_to_openai(body: Mapping[str, Any]) -> Json:
    """The body itself, if it holds nothing that only Azure understands."""
    for key, field in REQUEST.items():
        if body.get(key) is not None and body[key] not in field.neutral:
            raise Untranslatable(key, field.reason)
    return {key: value for key, value in body.items() if key not in REQUEST}


def request_from_openai(body: Mapping[str, Any], target: Target) -> Json:  # noqa: ARG001 - the same for all deployments
    """The body itself."""
    return dict(body)


# The same as at OpenAI. What an answer says of content filters hurts nobody who reads OpenAI's fields.
judged = openai.judged
answer_to_openai, answer_from_openai = openai.answer_to_openai, openai.answer_from_openai
error_to_openai, error_from_openai = openai.error_to_openai, openai.error_from_openai
stream_from_openai = openai.stream_from_openai


def stream_to_openai(*, usage: bool) -> StreamTranslator:  # noqa: ARG001 - the caller's own request said it to the provider
    """Leaves out the events that only tell of content filters."""
    return _WithoutFilterEvents()


class _WithoutFilterEvents:
    """Azure sends chunks without choices, or without a delta, that scripts written for OpenAI would stumble over."""

    def feed(self, event: Event) -> list[Event]:
        return [] if _is_about_filters(event.data) else [event]

    def finish(self) -> list[Event]:
        return []


def _is_about_filters(data: str) -> bool:
    try:
        chunk = json.loads(data) if "filter" in data else None
    except (ValueError, RecursionError):
        return False
    if not isinstance(chunk, dict) or "error" in chunk or chunk.get("usage"):
        return False
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return False
    return not any(isinstance(choice, dict) and isinstance(choice.get("delta"), dict) for choice in choices)


def _path(target: Target) -> str:
    return f"/openai/deployments/{quote(target.model, safe='')}/chat/completions"
