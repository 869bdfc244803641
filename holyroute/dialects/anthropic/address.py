"""Where and how Anthropic's Messages are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holyroute.dialects import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

    from holyroute.config.credentials import Credential
    from holyroute.core.target import Target
    from holyroute.dialects.base import Json

name = "anthropic"
PATH = "/messages"

# A body may need what the caller's version or beta features allow; neither names anybody. There is one version so far:
# https://platform.claude.com/docs/en/api/versioning
_PORTABLE = wire.PORTABLE_HEADERS | {"anthropic-version": "2023-06-01", "anthropic-beta": ""}


def read(request: PreparedRequest) -> tuple[str, Json] | None:
    """Model and decoded body, if a request is for a message; None for everything else."""
    body = wire.body_of(request) if wire.path_of(request).endswith(f"/v1{PATH}") else None
    model = wire.named_in(body) if body is not None else None
    return (model, body) if model is not None and body is not None else None


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
    key = ("x-api-key", credential.secret) if credential is not None else None
    return wire.post(target.provider.base_url + PATH, wire.encode(body, target), key, headers, _PORTABLE)


def renamed(request: PreparedRequest, target: Target, body: Mapping[str, Any]) -> PreparedRequest:
    """The caller's own request, asking the same host for another model."""
    request.prepare_body(wire.encode(body, target), None)
    return request
