"""A parked call as JSON: what is kept of a call, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from holyroute.core.call import Call, Selection
from holyroute.exceptions import InvalidItem, SecretInPayload

if TYPE_CHECKING:
    from collections.abc import Iterable

SHORTEST_SECRET = 8  # characters; "EMPTY" and "ollama" are what servers without keys are given, and words of prompts
LONGEST_NAME = 255  # characters of a key or a handler's name
LONGEST_CAUSE = 500  # characters

_MASK = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedCall:
    """A call for later: what was asked and by which route, without credentials, headers or hosts.

    Everything is JSON. Whoever replays it finds targets and keys in its own configuration.
    """

    body: Mapping[str, Any] = field(repr=False)  # of the request
    model: str | None = None  # as the caller named it; None: the default route
    selection: Selection = field(default_factory=Selection)
    handler: str | None = None  # the name under which the replaying process registered what takes the answer
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the caller's own, for the handler
    key: str | None = field(default=None, repr=False)  # idempotency key; not part of the payload


def encode(call: ParkedCall, largest: int, secrets: Iterable[str]) -> bytes:
    """The payload of a call.

    Args:
        call: to be parked.
        largest: size of the payload in bytes.
        secrets: values that must not stand in it.

    Raises:
        InvalidItem: It is no JSON, no UTF-8 or too large, or a name is none.
        SecretInPayload: One of the secrets stands in it.
    """
    for name, mapping in (("body", call.body), ("metadata", call.metadata)):
        if not isinstance(mapping, Mapping):
            raise InvalidItem(f"{name}: expected a JSON object, got {type(mapping).__name__}")
    for name, text in (("handler", call.handler), ("key", call.key)):
        check_name(name, text)
    content = {
        "body": dict(call.body),
        "model": call.model,
        "selection": asdict(call.selection),
        "handler": call.handler,
        "metadata": dict(call.metadata),
    }
    try:
        payload = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(payload.encode())
    except UnicodeEncodeError:
        raise InvalidItem("the call holds half a character (a lone surrogate), which is no UTF-8") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidItem(f"the call is no JSON: {error}") from None
    if size > largest:
        raise InvalidItem(f"the call takes {size} bytes, queue.max_item_bytes allows {largest}")
    if any(_written(secret) in payload or secret in (call.key or "") for secret in _checked(secrets)):
        raise SecretInPayload("a key stands in the call; keys are not written to disk")
    return payload.encode()


def decode(payload: bytes, key: str | None = None) -> ParkedCall:
    """The call in a payload.

    Raises:
        ValueError: It was written by somebody else.
    """
    try:
        content = json.loads(payload)
        selection = dict(content.pop("selection"))
        if selection["models"] is not None:
            selection["models"] = tuple(selection["models"])
        return ParkedCall(selection=Selection(**selection), key=key, **content)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a parked call: {error!r}") from None


def group_of(call: ParkedCall) -> int:
    """Fingerprint of whom a call may be asked of, the same for all that were parked with the same route and needs.

    Made of nothing but the call, so that it does not depend on who parks it; a number, so that no flipped byte makes it
    something that cannot be asked for.
    """
    named = Call(model=call.model, body=call.body, selection=call.selection, deadline=0.0, connect=0.0, read=0.0)
    try:
        needs = sorted(named.needs)
    except TypeError:  # no list of messages; whoever replays it will say so
        needs = []
    route = json.dumps([call.model, asdict(call.selection), needs])
    return int.from_bytes(hashlib.blake2b(route.encode(), digest_size=8).digest(), signed=True)


def encode_result(result: Any, secrets: Iterable[str]) -> bytes:
    """An answer as JSON, with every secret masked; it was paid for, so nothing else is refused.

    Raises:
        InvalidItem: It is no JSON.
    """
    try:
        text = json.dumps(result, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidItem(f"the answer is no JSON: {error}") from None
    for secret in _checked(secrets):
        text = text.replace(json.dumps(secret)[1:-1], _MASK)
    return text.encode()


def cause_of(text: str, secrets: Iterable[str]) -> str:
    """A cause fit to be written down: no secrets, one line, not too long."""
    for secret in _checked(secrets):
        text = text.replace(secret, _MASK)
    return " ".join(text.encode(errors="replace").decode().split())[:LONGEST_CAUSE]


def _checked(secrets: Iterable[str]) -> list[str]:
    return [secret for secret in secrets if len(secret) >= SHORTEST_SECRET]


def _written(secret: str) -> str:
    """A secret as it would stand in the payload, where quotes and backslashes are escaped."""
    return json.dumps(secret, ensure_ascii=False)[1:-1]


def check_name(name: str, text: object, *, optional: bool = True) -> None:
    """Whether something can be the key or the handler of a call.

    Raises:
        InvalidItem: It cannot.
    """
    if text is None and optional:
        return
    if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= LONGEST_NAME:
        raise InvalidItem(f"{name}: expected 1 to {LONGEST_NAME} printable characters")
