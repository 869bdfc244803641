"""Anthropic's Messages: `{base_url}/messages`, with the key in `x-api-key`; the base URL ends in `/v1`.

`tables` says what becomes of every field; the other rooms carry it out.
"""

from __future__ import annotations

from holyroute.dialects.anthropic.address import base_url, name, prepare, read, renamed
from holyroute.dialects.anthropic.answers import answer_from_openai, answer_to_openai, judged
from holyroute.dialects.anthropic.failures import error_from_openai, error_to_openai
from holyroute.dialects.anthropic.from_openai import request_from_openai
from holyroute.dialects.anthropic.streams import stream_from_openai, stream_to_openai
from holyroute.dialects.anthropic.to_openai import request_to_openai

__all__ = [
    "answer_from_openai",
    "answer_to_openai",
    "base_url",
    "error_from_openai",
    "error_to_openai",
    "judged",
    "name",
    "prepare",
    "read",
    "renamed",
    "request_from_openai",
    "request_to_openai",
    "stream_from_openai",
    "stream_to_openai",
]
