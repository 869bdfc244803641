"""OpenAI's chat completions, spoken by nearly every provider: the form by way of which all others are translated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from holyroute.dialects import wire
from holyroute.dialects.errors import openai_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

    from holyroute.config.credentials import Credential
    from holyroute.core.sse import Event
    from holyroute.core.target import Target
    from holyroute.dialects.base import Json, StreamTranslator

name = "openai"
PATH = "/chat/completions"
DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/chat/completions$")

# OpenAI's newer models refuse `max_tokens`; many other providers know no other name.
_HOST = "api.openai.com"
_NEW, _OLD = "max_completion_tokens", "max_tokens"


def read(request: PreparedRequest) -> tuple[str, Json] | None:
    """Model and decoded body, if a request is a chat completion; None for everything else."""
    path = wire.path_of(request)
    body = wire.body_of(request) if path.endswith(PATH) else None
    if body is None:
        return None
    model = wire.named_in(body)
    if model is not None:
        return model, body
    deployment = DEPLOYMENT.search(path)
    return (unquote(deployment.group(1)), body) if deployment else None


def base_url(request: PreparedRequest) -> str:
    """The URL up to, and without, the dialect's path; without user and password, for it is shown."""
    return wire.base_url(request, wire.path_of(request).removesuffix(PATH))


def prepare(
    target: Target,
    body: Mapping[str, Any],
    credential: Credential | None,
    headers: Mapping[str, Any] | None = None,
) -> PreparedRequest:
    """A new request to a target; of the caller's headers only those travel that name no one."""
    key = ("Authorization", credential.header) if credential is not None else None
    return wire.post(target.provider.base_url + PATH, wire.encode(body, target), key, headers)


def renamed(request: PreparedRequest, target: Target, body: Mapping[str, Any]) -> PreparedRequest:
    """The caller's own request, asking the same host for another model."""
    request.prepare_body(wire.encode(body, target), None)
    return request


def request_to_openai(body: Mapping[str, Any]) -> Json:
    """The body itself."""
    return dict(body)


def request_from_openai(body: Mapping[str, Any], target: Target) -> Json:
    """The body itself; elsewhere than at OpenAI, the answer's length limit goes by its old name."""
    if target.provider.host == _HOST or _NEW not in body or _OLD in body:
        return dict(body)
    return {_OLD if key == _NEW else key: value for key, value in body.items()}


def judged(answer: Any) -> Any:
    """The answer itself."""
    return answer


def answer_to_openai(answer: Any) -> Any:
    """The answer itself."""
    return answer


def answer_from_openai(answer: Any) -> Any:
    """The answer itself."""
    return answer


def error_to_openai(status: int, decoded: Any) -> tuple[int, Json]:
    """The error itself; in OpenAI's form where some provider or proxy has its own."""
    return status, openai_error(status, decoded)


def error_from_openai(status: int, decoded: Any) -> tuple[int, Json]:
    """The same."""
    return status, openai_error(status, decoded)


def stream_to_openai(*, usage: bool) -> StreamTranslator:  # noqa: ARG001 - the caller's own request said it to the provider
    """Events pass as they are."""
    return _Unchanged()


def stream_from_openai() -> StreamTranslator:
    """Events pass as they are."""
    return _Unchanged()


class _Unchanged:
    def feed(self, event: Event) -> list[Event]:
        return [event]

    def finish(self) -> list[Event]:
        return []
