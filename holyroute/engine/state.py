"""What outlives a call: breakers, benches, limits, budgets, the cache, the ledger. One per router and process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holyroute.caching.answers import Answers
from holyroute.config.credentials import Keyring
from holyroute.cost.ledger import Ledger
from holyroute.cost.tokens import TokenEstimator
from holyroute.engine.wallet import Wallet
from holyroute.resilience.budget import RetryBudget
from holyroute.resilience.guard import Guards
from holyroute.resilience.limits import Limiters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cachetools import LRUCache

    from holyroute.config.schema import Config
    from holyroute.core.clock import Clock
    from holyroute.core.events import Event
    from holyroute.engine.attempt import Candidate

GROUPS = 1_024  # fallback groups whose retry budgets are remembered


class State:
    """Safe to share between threads. After a fork the child begins with a new one, so that no bill is counted twice."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        publish: Callable[[Event], None],
        *,
        env: Mapping[str, str] | None,
        tokenizer: Callable[[str], int] | None,
    ) -> None:
        from cachetools import LRUCache

        self.guards = Guards(config.breaker, publish, alerted=config.logs_key_alerts)
        self.keyring = Keyring(env)
        self.wallet = Wallet(self.keyring, self.guards)
        self.limiters = Limiters(config.limits, clock)
        self.estimator = TokenEstimator(tokenizer)
        self.ledger = Ledger()
        self.answers = Answers(config, clock)
        self._budgets: LRUCache[tuple[str, ...], RetryBudget] = LRUCache(GROUPS)
        self._lock = threading.Lock()

    def budget(self, candidates: list[Candidate]) -> RetryBudget:
        """The retry budget that all calls with these candidates share."""
        group = tuple([candidate.target.key for candidate in candidates])
        with self._lock:
            budget = self._budgets.get(group)
            if budget is None:
                budget = self._budgets[group] = RetryBudget()
            return budget
