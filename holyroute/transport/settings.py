"""Stock adapters for what is not routed, with pools large enough for a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from requests.adapters import HTTPAdapter

from holyroute.core import forks
from holyroute.transport.adapter import POOL_SIZE, POOLS

if TYPE_CHECKING:
    from urllib3.util.retry import Retry


class _Pools:
    """The stock adapters made here; two processes that read from one connection get each other's answers."""

    def __init__(self) -> None:
        self.adapters: WeakSet[HTTPAdapter] = WeakSet()
        forks.register(self)

    def after_fork(self) -> None:
        """In a child: new connections."""
        for adapter in self.adapters:
            adapter.init_poolmanager(POOLS, POOL_SIZE)
            adapter.proxy_manager = {}


_pools = _Pools()


def pooled_adapter(retries: Retry | int = 0) -> HTTPAdapter:
    """A stock adapter with pools large enough for a batch."""
    adapter = HTTPAdapter(pool_connections=POOLS, pool_maxsize=POOL_SIZE, max_retries=retries)
    _pools.adapters.add(adapter)
    return adapter
