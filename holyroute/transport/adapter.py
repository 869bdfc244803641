"""The adapter of routed attempts: the stock one, over connections that can be cut."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from requests.adapters import HTTPAdapter

from holyroute.core import forks
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.transport.connection import HTTPConnectionPool, HTTPSConnectionPool, ResendOnce, owned_by
from holyroute.transport.watchdog import WATCHDOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from requests.adapters import BaseAdapter

    from holyroute.core.cancel import CancelToken

POOLS = 32  # hosts; beyond requests' 10 the least recently used host loses its connections at every turn
POOL_SIZE = 64  # connections kept per host: as many as threads that call at once, or they are opened anew

PER_OPERATION = "time is counted per socket operation only"  # what a trace says of somebody else's adapter

_OWN_OPTIONS = {"maxsize", "block"}  # what `init_poolmanager` takes by name
_POOL_CLASSES = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


class Adapter(HTTPAdapter):
    """An `HTTPAdapter` whose blocked calls the watchdog can cut; it re-sends only over a dead keep-alive connection.

    `send` is inherited, so that whatever patches `HTTPAdapter.send` sees every attempt.
    """

    def __init__(
        self, pool_connections: int = POOLS, pool_maxsize: int = POOL_SIZE, *, pool_block: bool = False
    ) -> None:
        super().__init__(pool_connections=pool_connections, pool_maxsize=pool_maxsize, pool_block=pool_block)
        self.max_retries = ResendOnce()
        forks.register(self)

    def after_fork(self) -> None:
        """In a child: two processes that read from one connection get each other's answers."""
        options = {key: value for key, value in self.poolmanager.connection_pool_kw.items() if key not in _OWN_OPTIONS}
        self.init_poolmanager(self._pool_connections, self._pool_maxsize, self._pool_block, **options)
        self.proxy_manager = {}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools, of our kind."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOL_CLASSES

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """The pools behind a proxy, of our kind; SOCKS has connections of its own and keeps them."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOL_CLASSES
        return manager


@contextmanager
def cutting(token: CancelToken, seconds: float, on_resend: Callable[[], None] | None = None) -> Iterator[None]:
    """What the block sends and reads ends when the token is cancelled, or after some seconds."""
    with owned_by(token, on_resend), WATCHDOG.watching(token, SYSTEM_CLOCK.now() + seconds):
        yield


_twins: WeakKeyDictionary[HTTPAdapter, tuple[Any, Adapter]] = WeakKeyDictionary()


def twin_of(adapter: BaseAdapter) -> BaseAdapter:
    """Our counterpart of a stock adapter, with the same pool and TLS settings; anything else is used as it is.

    A subclass may mean something by its `send`, its TLS or its retries, so it keeps them: with time per socket
    operation only.
    """
    if type(adapter) is not HTTPAdapter:
        return adapter
    manager, twin = _twins.get(adapter, (None, None))
    if twin is None or manager is not adapter.poolmanager:  # new pools, perhaps with other settings
        stock: Any = adapter
        names = ("pool_connections", "pool_maxsize", "pool_block")  # what requests itself pickles
        twin = Adapter(**{name: getattr(stock, f"_{name}") for name in names})
        twin.poolmanager.connection_pool_kw.update(stock.poolmanager.connection_pool_kw)
        _twins[adapter] = adapter.poolmanager, twin
    return twin


def close_twin(adapter: BaseAdapter) -> None:
    """Close the idle connections of our counterpart, if there is one."""
    if isinstance(adapter, HTTPAdapter) and adapter in _twins:
        _twins[adapter][1].close()
