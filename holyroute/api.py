"""The functions of requests, on the default router.

Each call has a session of its own, so that no cookie leaks from one into the next; the connections are shared.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING, Any

from holyroute import _surface
from holyroute.sessions import RoutingMixin
from holyroute.transport.settings import pooled_adapter

if TYPE_CHECKING:
    from requests import Response
    from requests.adapters import BaseAdapter


class _OneCall(RoutingMixin):
    """A session for one call, over the pools of all."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = _pools()

    def close(self) -> None:
        """The pools outlive the call."""


@cache
def _pools() -> OrderedDict[str, BaseAdapter]:
    return OrderedDict({"https://": pooled_adapter(), "http://": pooled_adapter()})


def request(method: str, url: str, **kwargs: Any) -> Response:
    """Send a request, as `requests.request` does; chat completions survive an outage."""
    with _OneCall() as session:
        return session.request(method=method, url=url, **kwargs)


def get(url: str, params: Any = None, **kwargs: Any) -> Response:
    """Send a GET request."""
    return request("get", url, params=params, **kwargs)


def options(url: str, **kwargs: Any) -> Response:
    """Send an OPTIONS request."""
    return request("options", url, **kwargs)


def head(url: str, **kwargs: Any) -> Response:
    """Send a HEAD request, without following redirects unless asked to."""
    kwargs.setdefault("allow_redirects", False)
    return request("head", url, **kwargs)


def post(url: str, data: Any = None, json: Any = None, **kwargs: Any) -> Response:
    """Send a POST request."""
    return request("post", url, data=data, json=json, **kwargs)


def put(url: str, data: Any = None, **kwargs: Any) -> Response:
    """Send a PUT request."""
    return request("put", url, data=data, **kwargs)


def patch(url: str, data: Any = None, **kwargs: Any) -> Response:
    """Send a PATCH request."""
    return request("patch", url, data=data, **kwargs)


def delete(url: str, **kwargs: Any) -> Response:
    """Send a DELETE request."""
    return request("delete", url, **kwargs)


_surface.hand_on(__name__)
