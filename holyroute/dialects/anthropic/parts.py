"""Parts of messages, one at a time: texts, images, documents, calls of tools."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from holyroute.dialects.anthropic import tables
from holyroute.dialects.base import Untranslatable, sorted_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from holyroute.dialects.base import Json

_DATA_URL = re.compile(r"data:([^;,]+);base64,(.*)", re.DOTALL)
_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_ALIASES = {"image/jpg": "image/jpeg"}


# --- checks -----------------------------------------------------------------------------------------------------------


def table(value: Any, path: str) -> Json:
    """A JSON object."""
    if not isinstance(value, dict):
        raise Untranslatable(path, "expected an object")
    return value


def items(value: Any, path: str) -> list[Any]:
    """A JSON array; empty where there is none."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Untranslatable(path, "expected a list")
    return value


def text(value: Any, path: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise Untranslatable(path, "expected a string")
    return value


def name(value: Any, path: str) -> str:
    """A string with something in it."""
    if not text(value, path):
        raise Untranslatable(path, "is empty")
    return str(value)


def tool_id(value: Any, path: str) -> str:
    """The id of a call as Anthropic takes it: other providers' ids hold dots, colons and more."""
    return _NOT_IN_AN_ID.sub("_", name(value, path))


def arguments(value: Any, path: str) -> Json:
    """The arguments of a call, decoded; a call without any often comes with an empty string."""
    written = text("" if value is None else value, path)
    try:
        decoded = json.loads(written) if written.strip() else {}
    except (ValueError, RecursionError):
        raise Untranslatable(path, "is no JSON") from None
    return table(decoded, path)


def written(value: Any, path: str) -> str:
    """JSON in a string, as OpenAI gives arguments."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        raise Untranslatable(path, "cannot be written as JSON") from None


# --- from OpenAI ------------------------------------------------------------------------------------------------------


def block_of_part(part: Any, path: str) -> Json | None:
    """A content part as a block; None for blank text, which Anthropic refuses."""
    given = table(part, path)
    kind = given.get("type")
    make = _OF_PART.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise Untranslatable(f"{path}.type", "no such part of a message there")
    return make(given, path)


def text_block(value: Any, path: str) -> Json | None:
    """A text block; None for blank text."""
    return {"type": "text", "text": value} if text(value, path).strip() else None


def _image_block(part: Json, path: str) -> Json:
    image = part.get("image_url")
    url = text(image.get("url") if isinstance(image, dict) else image, f"{path}.image_url.url")
    if url.startswith("https://"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    kind, data = _data_of(url, f"{path}.image_url.url")
    if kind not in tables.IMAGE_TYPES:
        raise Untranslatable(f"{path}.image_url.url", "images are JPEG, PNG, GIF or WebP, inline or at an https URL")
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}


def _document_block(part: Json, path: str) -> Json:
    file = table(part.get("file"), f"{path}.file")
    kind, data = _data_of(text(file.get("file_data"), f"{path}.file.file_data"), f"{path}.file.file_data")
    if kind != tables.PDF:
        raise Untranslatable(f"{path}.file.file_data", "documents are PDF")
    source = {"type": "base64", "media_type": kind, "data": data}
    title = {"title": file["filename"]} if isinstance(file.get("filename"), str) else {}
    return {"type": "document", "source": source, **title}


def _data_of(url: str, path: str) -> tuple[str, str]:
    """Media type and base64 data of a data URL."""
    match = _DATA_URL.fullmatch(url)
    if match is None:
        raise Untranslatable(path, "neither an https URL nor inline data")
    kind = match[1].lower()
    return _ALIASES.get(kind, kind), match[2]


_OF_PART: dict[str, Callable[[Json, str], Json | None]] = {
    "text": lambda part, path: text_block(part.get("text"), f"{path}.text"),
    "refusal": lambda part, path: text_block(part.get("refusal"), f"{path}.refusal"),
    "image_url": _image_block,
    "file": _document_block,
}


def use_of_call(call: Any, path: str) -> Json:
    """A call of a tool as a `tool_use` block."""
    given = table(call, path)
    if given.get("type", "function") != "function":
        raise Untranslatable(f"{path}.type", "tools take JSON")
    function = table(given.get("function"), f"{path}.function")
    return {
        "type": "tool_use",
        "id": tool_id(given.get("id"), f"{path}.id"),
        "name": name(function.get("name"), f"{path}.function.name"),
        "input": arguments(function.get("arguments"), f"{path}.function.arguments"),
    }


# --- to OpenAI --------------------------------------------------------------------------------------------------------


def part_of_block(block: Json, path: str) -> Json:
    """A block of a user's message as a content part."""
    kind = block.get("type")
    make = _OF_BLOCK.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise Untranslatable(f"{path}.type", "no such part of a message there")
    return make(block, f"{path}.")


def text_part(block: Json, path: str) -> Json:
    """A text block as a content part."""
    kept = sorted_out(tables.TEXT, block, path)
    return {"type": "text", "text": text(kept.get("text"), f"{path}text")}


def _image_part(block: Json, path: str) -> Json:
    source = table(sorted_out(tables.IMAGE, block, path).get("source"), f"{path}source")
    if source.get("type") == "url":
        return {"type": "image_url", "image_url": {"url": text(source.get("url"), f"{path}source.url")}}
    return {"type": "image_url", "image_url": {"url": _data_url(source, f"{path}source")}}


def _file_part(block: Json, path: str) -> Json:
    kept = sorted_out(tables.DOCUMENT, block, path)
    source = table(kept.get("source"), f"{path}source")
    if source.get("media_type") != tables.PDF:
        raise Untranslatable(f"{path}source", "documents are PDF, and inline")
    title = kept.get("title", "document.pdf")
    data = _data_url(source, f"{path}source")
    return {"type": "file", "file": {"filename": text(title, f"{path}title"), "file_data": data}}


def _data_url(source: Json, path: str) -> str:
    if source.get("type") != "base64":
        raise Untranslatable(f"{path}.type", "stored at the provider, or in a form unknown there")
    kind, data = (text(source.get(field), f"{path}.{field}") for field in ("media_type", "data"))
    return f"data:{kind};base64,{data}"


_OF_BLOCK: dict[str, Callable[[Json, str], Json]] = {
    "text": text_part,
    "image": _image_part,
    "document": _file_part,
}


def call_of_use(block: Json, path: str) -> Json:
    """A `tool_use` block as a call."""
    kept = sorted_out(tables.TOOL_USE, block, f"{path}.")
    function = {
        "name": name(kept.get("name"), f"{path}.name"),
        "arguments": written(table(kept.get("input", {}), f"{path}.input"), f"{path}.input"),
    }
    return {"id": name(kept.get("id"), f"{path}.id"), "type": "function", "function": function}


def content_of_parts(parts: list[Json]) -> str | list[Json]:
    """Content as OpenAI takes it: one text as a string, because many providers take nothing else."""
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts
