"""What a server says about trying again: `Retry-After` in all its forms, `x-should-retry`."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import Response

_DAY = 86_400.0
_DURATION = re.compile(rb'"retryDelay"\s*:\s*"([0-9.]+)s"')  # Gemini puts it into the error's details


def retry_after(response: Response) -> float | None:
    """Seconds to wait; None where nothing usable is said (rubbish, zero or less, more than a day).

    Zero is no hint: a busy server that says "at once" would be asked twice by every call.
    """
    headers: Mapping[str, str] = response.headers
    candidates = (
        _number(headers.get("retry-after-ms"), 1_000),
        _number(headers.get("Retry-After"), 1),
        _date(headers.get("Retry-After"), headers.get("Date")),
        _in_body(response),
    )
    return next((seconds for seconds in candidates if seconds is not None), None)


def may_retry(response: Response) -> bool | None:
    """The server's own word (`x-should-retry`) on asking it again; None where it says nothing."""
    return {"true": True, "false": False}.get(response.headers.get("x-should-retry", "").strip().lower())


def _plausible(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and 0 < seconds <= _DAY else None


def _number(text: str | None, per_second: float) -> float | None:
    try:
        return _plausible(float(text or "") / per_second)
    except ValueError:
        return None


def _date(text: str | None, now: str | None) -> float | None:
    """An HTTP date, against the response's own `Date`: our clock may be wrong, the difference is not."""
    from email.utils import parsedate_to_datetime

    if not text or not now:
        return None
    try:
        return _plausible((parsedate_to_datetime(text) - parsedate_to_datetime(now)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _in_body(response: Response) -> float | None:
    if response.status_code != 429 or b"retryDelay" not in response.content:
        return None
    found = _DURATION.search(response.content)
    return _number(found.group(1).decode(), 1) if found else None
