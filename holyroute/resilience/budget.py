"""The retry budget: retries may add a little load to a target in trouble, never multiply it.

Backoff spreads retries, only a budget bounds them: when everything fails, three tries each are three times the load,
and this budget is 1.02 times after 1,000 calls. The figures are botocore's (standard retry mode), scaled to 100 tokens:
at most 20 retries in a burst, and in the long run one for every five first-try successes.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

CAPACITY = 100  # tokens
COST = 5  # of a retry …
TIMEOUT_COST = 10  # … after a timeout: it held a connection for long, and the target may still be working
REWARD = 1  # for a success at the first try


@dataclass(slots=True, eq=False)
class Loan:
    """What a retry took; comes back if the retry succeeds."""

    cost: int
    returned: bool = False


class RetryBudget:
    """Tokens for retries on the same target, shared by all calls of a fallback group. Safe to share between threads.

    Nobody waits for tokens: a thread that waits cannot earn any, and all of them waiting is a deadlock. Asking another
    target is no retry and costs nothing.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._tokens = capacity
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """What is left."""
        return self._tokens

    def take(self, *, timeout: bool = False) -> Loan | None:
        """Ask for one retry, of an attempt that timed out or failed otherwise; None: do not retry, and do not wait."""
        cost = TIMEOUT_COST if timeout else COST
        with self._lock:
            if self._tokens < cost:
                return None
            self._tokens -= cost
            return Loan(cost)

    def succeed(self, loan: Loan | None = None) -> None:
        """A call succeeded: at the first try, or with the retry that the loan was for."""
        if loan is None and self._tokens >= self._capacity:  # the usual case, without the lock
            return
        with self._lock:
            reward = REWARD if loan is None else 0 if loan.returned else loan.cost
            if loan is not None:
                loan.returned = True
            self._tokens = min(self._capacity, self._tokens + reward)
