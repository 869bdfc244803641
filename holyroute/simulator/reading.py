"""What a request asks for, and what is wrong with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from holyroute.simulator.faults.statuses import Error, status
from holyroute.simulator.forms import ANTHROPIC, AZURE, OPENAI

if TYPE_CHECKING:
    from collections.abc import Collection

    from holyroute.simulator.exchange import Fault
    from holyroute.simulator.forms import Form
    from holyroute.simulator.wire import Headers, Request

_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/chat/completions")


def path_of(request: Request) -> str:
    """The path without its query."""
    return request.path.partition("?")[0]


def form_of(request: Request, base: str) -> Form | None:
    """The form which a path asks for: chat completions or messages below the base path, or an Azure deployment's."""
    path = path_of(request)
    if _DEPLOYMENT.fullmatch(path):
        return AZURE
    return {f"{base}/chat/completions": OPENAI, f"{base}/messages": ANTHROPIC}.get(path)


def conversation(request: Request) -> list[Any]:
    """All messages; Anthropic's system prompt, which stands beside them, comes first."""
    system = request.json.get("system")
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, *request.json["messages"]]


def model_of(request: Request) -> str | None:
    """The model asked for: the Azure deployment in the path, else `model` of the body."""
    if deployment := _DEPLOYMENT.fullmatch(path_of(request)):
        return unquote(deployment[1])
    model = request.json.get("model") if isinstance(request.json, dict) else None
    return model if isinstance(model, str) else None


def has_key(headers: Headers, keys: Collection[str]) -> bool:
    """Whether one of the keys came as bearer token, in Azure's `api-key` or in Anthropic's `x-api-key` header."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip() in keys:
        return True
    return headers.get("api-key") in keys or headers.get("x-api-key") in keys


def mistake(request: Request, model: str | None, form: Form) -> Fault | None:
    """The error which a request earns by its own form; None when it can be answered."""
    if request.method != "POST":
        return status(405, headers=[("Allow", "POST")])
    if not isinstance(request.json, dict):
        return status(400, Error(message="We could not parse the JSON body of your request."))
    if model is None:
        return status(400, Error(message="you must provide a model parameter", param="model"))
    if not isinstance(request.json.get("messages"), list):
        return status(400, Error(message="'messages' must be a list of messages", param="messages"))
    return _not_anthropics(request) if form is ANTHROPIC else None


def _not_anthropics(request: Request) -> Fault | None:
    """What Anthropic requires on top."""
    if "anthropic-version" not in request.headers:
        return status(400, Error(message="anthropic-version: header is required"))
    if not isinstance(request.json.get("max_tokens"), int):
        return status(400, Error(message="max_tokens: Field required"))
    roles = [message.get("role") if isinstance(message, dict) else None for message in request.json["messages"]]
    if not roles or any(role not in ("user", "assistant") for role in roles):
        return status(400, Error(message="messages: expected roles 'user' and 'assistant'"))
    return None
