"""The adapter of routed attempts: the stock one, over connections that can be cut."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from requests import Response
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers

from holyroute.core import forks
from holyroute.core.clock import SYSTEM_CLOCK
from holyroute.transport.connection import UNDER_WAY, owned_by
from holyroute.transport.pools import HTTPConnectionPool, HTTPSConnectionPool, ResendOnce
from holyroute.transport.response import Answer
from holyroute.transport.watchdog import WATCHDOG

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest
    from requests.adapters import BaseAdapter

    from holyroute.core.cancel import CancelToken

POOLS = 32  # hosts; beyond requests' 10 the least recently used host loses its connections at every turn
POOL_SIZE = 64  # connections kept per host: as many as threads that call at once, or they are opened anew

PER_OPERATION = "time is counted per socket operation only"  # what a trace says of somebody else's adapter

_OWN_OPTIONS = {"maxsize", "block"}  # what `init_poolmanager` takes by name
_POOL_CLASSES: dict[str, type] = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


class Adapter(HTTPAdapter):
    """An `HTTPAdapter` whose blocked calls the watchdog can cut; it re-sends only over a dead keep-alive connection.

    `send` is inherited, so that whatever patches `HTTPAdapter.send` sees every attempt. The hooks that it calls do the
    same as the stock ones, which they leave everything unusual to, but what does not change from request to request
    they do once.
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
        # Pools by origin and `verify`. Weakly, because a pool that its manager drops closes when it is collected.
        self._found: dict[tuple[str, bool | str], ref[Any]] = {}

    def close(self) -> None:
        """Close the idle connections."""
        super().close()
        self._found.clear()

    def get_connection_with_tls_context(
        self, request: PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """The pool of a request's host; remembered, but for proxies and client certificates."""
        origin = None if proxies or cert is not None else _origin(request.url)
        is_usual = origin is not None and (isinstance(verify, bool) or type(verify) is str)
        key: Any = origin, verify
        found = self._found.get(key) if is_usual else None
        pool = found() if found is not None else None
        if pool is None or len(self.poolmanager.pools) >= self._pool_connections:  # then, who was used last counts
            pool = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)
            if is_usual:
                self._remember(key, pool)
        return pool

    def _remember(self, key: tuple[str, bool | str], pool: Any) -> None:
        if len(self._found) >= 2 * self._pool_connections:  # of pools that are no more, mostly
            self._found.clear()
        self._found[key] = ref(pool)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Set up a pool's certificates; once, if they are the usual ones."""
        if verify is True and cert is None:
            if getattr(conn, "has_usual_certificates", False):
                return
            super().cert_verify(conn, url, verify, cert)
            conn.has_usual_certificates = True
        else:
            super().cert_verify(conn, url, verify, cert)
            conn.has_usual_certificates = False

    def request_url(self, request: PreparedRequest, proxies: Any) -> str:
        """What the request line asks for."""
        return super().request_url(request, proxies) if proxies else request.path_url

    def add_headers(self, request: PreparedRequest, **kwargs: Any) -> None:
        """None; but here it is known whether the body of an attempt is to be read at once."""
        UNDER_WAY.whole = UNDER_WAY.token is not None and not kwargs.get("stream")
        super().add_headers(request, **kwargs)

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        """The response that requests would have built; with its body, where that is the next thing to be read."""
        response = self._built(req, resp)
        if UNDER_WAY.whole and type(resp) is Answer and (body := resp.whole()) is not None:
            response._content, response._content_consumed = body, True  # noqa: SLF001 - as requests has read it
        return response

    def _built(self, req: PreparedRequest, resp: Any) -> Response:
        fields = resp.fields if type(resp) is Answer else {}
        if not fields or "set-cookie" in fields or "set-cookie2" in fields or type(req.url) is not str:
            return super().build_response(req, resp)
        response = Response()
        response.status_code = resp.status
        named = ((low, (name, ", ".join(values))) for low, (name, *values) in fields.items())
        response.headers._store.update(named)  # noqa: SLF001 - without the walk that requests makes for each
        response.encoding = _encoding(", ".join(fields.get("content-type", ("",))[1:]))
        response.raw = resp
        response.reason = resp.reason
        response.url = req.url
        response.request = req
        response.connection = self
        return response

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """The pools behind a proxy, of our kind; SOCKS has connections of its own and keeps them."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOL_CLASSES
        return manager


def _origin(url: Any) -> str | None:
    """Scheme, host and port as they stand in a URL, if they are written as usual and hold no credentials."""
    if type(url) is not str or not url.startswith(("http://", "https://")):
        return None
    end = url.find("/", 8)  # behind `https://`
    return url[:end] if end > 0 and "@" not in url[:end] else None


@lru_cache(maxsize=64)
def _encoding(content_type: str) -> str | None:
    """What requests makes of a content type; providers send the same few."""
    return get_encoding_from_headers(CaseInsensitiveDict({"content-type": content_type}))


class cutting(owned_by):  # noqa: N801 - used as a function
    """What the block sends and reads ends when the token is cancelled, or after some seconds."""

    __slots__ = ("_watch",)

    def __init__(self, token: CancelToken, seconds: float, on_resend: Callable[[], None] | None = None) -> None:
        super().__init__(token, on_resend)
        self._watch = WATCHDOG.watching(token, SYSTEM_CLOCK.now() + seconds)

    def __enter__(self) -> None:
        self._watch.__enter__()
        super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self._watch.__exit__()


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
