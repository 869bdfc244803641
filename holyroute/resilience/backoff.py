"""How long to wait before the same target is asked again.

The waits are tenacity's, drawn when somebody really has to wait: loading the library is part of the first back-off.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from holyroute.core.verdicts import RATE_LIMITED, RATE_LIMITED_SILENT

if TYPE_CHECKING:
    from holyroute.config.schema import RetrySettings
    from holyroute.core.outcome import Outcome

BLIP = (0.05, 0.25)  # seconds: long enough for a lone fault to pass, short enough not to be noticed
ONCE = 0.5  # seconds, after a 409


def blip() -> float:
    """The pause before a lone fault is retried."""
    return random.uniform(*BLIP)  # noqa: S311 - jitter, not cryptography


def sole(settings: RetrySettings, outcome: Outcome, attempt: int) -> float:
    """The pause on a target without a substitute; what the server asks for comes first.

    Full jitter, U(0, min(max, base · 2ⁿ)) (Brooker, "Exponential Backoff and Jitter", AWS 2015); after a 429 without a
    hint 2 to 10 s, doubling.

    Args:
        settings: bases and caps in seconds.
        outcome: how the attempt before ended.
        attempt: its number on this target, from 1.
    """
    if outcome.retry_after is not None:
        return outcome.retry_after

    import tenacity

    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = attempt
    if outcome.verdict in {RATE_LIMITED, RATE_LIMITED_SILENT}:
        wait: tenacity.wait.wait_base = tenacity.wait_exponential(
            multiplier=settings.throttle_min, min=settings.throttle_min, max=settings.throttle_max
        )
    else:
        wait = tenacity.wait_random_exponential(multiplier=settings.backoff_base, max=settings.backoff_max)
    return wait(state)
