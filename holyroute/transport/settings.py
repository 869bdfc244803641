"""Pools, proxies and certificates for the hosts that configuration names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

if TYPE_CHECKING:
    from requests.adapters import BaseAdapter

    from holyroute.core.target import Provider

POOLS = 32  # hosts; beyond requests' 10 the least recently used host loses its connections at every turn
POOL_SIZE = 64  # connections kept per host: as many as threads that call at once, or they are opened anew

_pooled: WeakSet[HTTPAdapter] = WeakSet()
_twins: WeakKeyDictionary[HTTPAdapter, HTTPAdapter] = WeakKeyDictionary()


def pooled_adapter(retries: Retry | int = 0) -> HTTPAdapter:
    """A stock adapter with pools large enough for a batch."""
    adapter = HTTPAdapter(pool_connections=POOLS, pool_maxsize=POOL_SIZE, max_retries=retries)
    _pooled.add(adapter)
    return adapter


def _start_afresh() -> None:
    """In a forked child: two processes that read from one connection get each other's answers."""
    for adapter in _pooled:
        adapter.init_poolmanager(POOLS, POOL_SIZE)
        adapter.proxy_manager = {}


os.register_at_fork(after_in_child=_start_afresh)


def without_retries(adapter: BaseAdapter) -> BaseAdapter:
    """The same pools without retries of their own: every layer that retries multiplies the load of all others.

    Only for the stock adapter; a subclass may mean something by its retries and is used as it is.
    """
    if type(adapter) is not HTTPAdapter or _is_plain(adapter.max_retries):
        return adapter
    twin = _twins.get(adapter)
    if twin is None or twin.poolmanager is not adapter.poolmanager:
        twin = HTTPAdapter.__new__(HTTPAdapter)
        twin.__dict__.update(adapter.__dict__)
        twin.max_retries = Retry(0, read=False)
        _twins[adapter] = twin
    return twin


def _is_plain(retries: Retry) -> bool:
    return retries.total == 0


def environment(provider: Provider, url: str, *, trust_env: bool = True) -> dict[str, Any]:
    """Proxies, verify and cert for a provider's host: its configuration first, then the environment."""
    plain = requests.Session()
    plain.trust_env = trust_env
    settings = dict(plain.merge_environment_settings(url, {}, None, provider.verify, provider.cert))
    if provider.proxies:
        settings["proxies"] = dict(provider.proxies)
    return settings
