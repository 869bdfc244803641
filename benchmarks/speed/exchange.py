"""What all clients say and hear: one question, one answer, and what a client of the suite is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[[], str]  # sends the question, decodes the answer, returns its text

MODEL = "gpt-4o-mini"  # one that the peers know too: LiteLLM looks prices up by name
KEY = "test-key-a"
BASE = "/first/v1"
PATH = f"{BASE}/chat/completions"
TIMEOUT = (5, 60)
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

MESSAGES = [
    {"role": "system", "content": "You help a small harbour's crew. Be exact, be brief, say what you do not know."},
    {
        "role": "user",
        "content": "The tide table for tomorrow lists high water at 04:12 and 16:37, and the pilot asks when a vessel "
        "with a draught of four metres can pass the bar, which has three metres at low water and a tide of two and a "
        "half metres. Give both windows, to the quarter hour, and the rule that you used.",
    },
]
OPTIONS = {"temperature": 0.7, "max_tokens": 500}  # nothing that a cache would keep
PAYLOAD = {"model": MODEL, "messages": MESSAGES, **OPTIONS}

TEXT = (
    "By the rule of twelfths the water rises by a quarter of its range in the first two hours, by a half in the next "
    "two and by a quarter in the last two. Four metres stand over the bar once the tide has risen by one metre, a "
    "little less than three hours after low water. The vessel can therefore pass from about 01:00 to 07:15 and from "
    "about 13:30 to 19:45. Wind and pressure are not in the table; ask the gauge."
)
ANSWER = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion",
    "created": 1760000000,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 104,
        "completion_tokens": 98,
        "total_tokens": 202,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_0123456789",
}
ANSWER_BYTES = json.dumps(ANSWER).encode()


@dataclass(frozen=True, slots=True)
class Client:
    """One row. `build` takes the server's URL and how many calls may be under way at once."""

    name: str
    build: Callable[[str, int], Call]
    package: str = ""  # what must be installed
    reaches_server: bool = True
    in_batches: bool = False


def text_of(answer: Any) -> str:
    """The text of a decoded answer."""
    return answer["choices"][0]["message"]["content"]
