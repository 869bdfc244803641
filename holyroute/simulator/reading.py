"""What a request asks for, and what is wrong with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from holyroute.simulator.faults.statuses import Error, status

if TYPE_CHECKING:
    from collections.abc import Collection

    from holyroute.simulator.exchange import Fault
    from holyroute.simulator.wire import Headers, Request

_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/chat/completions")


def path_of(request: Request) -> str:
    """The path without its query."""
    return request.path.partition("?")[0]


def is_chat(request: Request, base: str) -> bool:
    """Whether this is the path of chat completions: below the base path, or an Azure deployment's."""
    path = path_of(request)
    return path == f"{base}/chat/completions" or _DEPLOYMENT.fullmatch(path) is not None


def model_of(request: Request) -> str | None:
    """The model asked for: the Azure deployment in the path, else `model` of the body."""
    if deployment := _DEPLOYMENT.fullmatch(path_of(request)):
        return unquote(deployment[1])
    model = request.json.get("model") if isinstance(request.json, dict) else None
    return model if isinstance(model, str) else None


def has_key(headers: Headers, keys: Collection[str]) -> bool:
    """Whether one of the keys came as bearer token, or in Azure's `api-key` header."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return (scheme.lower() == "bearer" and token.strip() in keys) or headers.get("api-key") in keys


def mistake(request: Request, model: str | None) -> Fault | None:
    """The error which a request earns by its own form; None when it can be answered."""
    if request.method != "POST":
        return status(405, headers=[("Allow", "POST")])
    if not isinstance(request.json, dict):
        return status(400, Error(message="We could not parse the JSON body of your request."))
    if model is None:
        return status(400, Error(message="you must provide a model parameter", param="model"))
    if not isinstance(request.json.get("messages"), list):
        return status(400, Error(message="'messages' must be a list of messages", param="messages"))
    return None
