"""holyroute: change one import line, and your `requests` calls to chat models survive outages.

    import holyroute as requests

Every public name of requests is here, the same object where possible; calls that are no chat completions go through
untouched. Ours come on top: `Client`, `routing`, `direct`, `trace_of`, `standard_retry`, `load`.

What needs the engine is loaded when it is first used: importing this package costs hardly more than importing requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests

from holyroute import _surface

if TYPE_CHECKING:
    from requests import ConnectionError as ConnectionError  # noqa: A004 - requests' name
    from requests import ConnectTimeout as ConnectTimeout
    from requests import HTTPError as HTTPError
    from requests import JSONDecodeError as JSONDecodeError
    from requests import PreparedRequest as PreparedRequest
    from requests import ReadTimeout as ReadTimeout
    from requests import Request as Request
    from requests import RequestException as RequestException
    from requests import Response as Response
    from requests import Timeout as Timeout
    from requests import TooManyRedirects as TooManyRedirects
    from requests import URLRequired as URLRequired
    from requests import codes as codes

    from holyroute import adapters as adapters
    from holyroute import api as api
    from holyroute import auth as auth
    from holyroute import certs as certs
    from holyroute import compat as compat
    from holyroute import cookies as cookies
    from holyroute import exceptions as exceptions
    from holyroute import hooks as hooks
    from holyroute import models as models
    from holyroute import packages as packages
    from holyroute import sessions as sessions
    from holyroute import status_codes as status_codes
    from holyroute import structures as structures
    from holyroute import utils as utils
    from holyroute.api import delete as delete
    from holyroute.api import get as get
    from holyroute.api import head as head
    from holyroute.api import options as options
    from holyroute.api import patch as patch
    from holyroute.api import post as post
    from holyroute.api import put as put
    from holyroute.api import request as request
    from holyroute.client import Client as Client
    from holyroute.completing import CompletionStream as CompletionStream
    from holyroute.completing import Delta as Delta
    from holyroute.config.load import load as load
    from holyroute.config.schema import Config as Config
    from holyroute.context import direct as direct
    from holyroute.context import routing as routing
    from holyroute.context import trace_of as trace_of
    from holyroute.core.cancel import CancelToken as CancelToken
    from holyroute.core.completion import Completion as Completion
    from holyroute.core.completion import Usage as Usage
    from holyroute.core.ticket import Ticket as Ticket
    from holyroute.core.trace import Trace as Trace
    from holyroute.deferred.handlers import Delivered as Delivered
    from holyroute.engine.router import Router as Router
    from holyroute.exceptions import AllTargetsFailed as AllTargetsFailed
    from holyroute.exceptions import ConfigurationError as ConfigurationError
    from holyroute.exceptions import ContentFiltered as ContentFiltered
    from holyroute.exceptions import DeadLetter as DeadLetter
    from holyroute.exceptions import DeadlineExceeded as DeadlineExceeded
    from holyroute.exceptions import HolyRouteError as HolyRouteError
    from holyroute.exceptions import InvalidRequest as InvalidRequest
    from holyroute.exceptions import QueueError as QueueError
    from holyroute.exceptions import ResultTimeout as ResultTimeout
    from holyroute.exceptions import StreamInterrupted as StreamInterrupted
    from holyroute.installation import install as install
    from holyroute.installation import installed as installed
    from holyroute.installation import uninstall as uninstall
    from holyroute.queueing import handler as handler
    from holyroute.queueing import parking as parking
    from holyroute.sessions import RoutingMixin as RoutingMixin
    from holyroute.sessions import Session as Session
    from holyroute.sessions import session as session
    from holyroute.sessions import standard_retry as standard_retry

_VERBS = ("delete", "get", "head", "options", "patch", "post", "put", "request")
_ERRORS = (
    "AllTargetsFailed",
    "ConfigurationError",
    "ContentFiltered",
    "DeadLetter",
    "DeadlineExceeded",
    "HolyRouteError",
    "InvalidRequest",
    "QueueError",
    "ResultTimeout",
    "StreamInterrupted",
)
_HOMES = {
    **dict.fromkeys(_VERBS, "holyroute.api"),
    **dict.fromkeys(_ERRORS, "holyroute.exceptions"),
    **dict.fromkeys(("RoutingMixin", "Session", "session", "standard_retry"), "holyroute.sessions"),
    **dict.fromkeys(("install", "installed", "uninstall"), "holyroute.installation"),
    **dict.fromkeys(("direct", "routing", "trace_of"), "holyroute.context"),
    **dict.fromkeys(("handler", "parking"), "holyroute.queueing"),
    **dict.fromkeys(("Completion", "Usage"), "holyroute.core.completion"),
    **dict.fromkeys(("CompletionStream", "Delta"), "holyroute.completing"),
    "CancelToken": "holyroute.core.cancel",
    "Client": "holyroute.client",
    "Config": "holyroute.config.schema",
    "Delivered": "holyroute.deferred.handlers",
    "Router": "holyroute.engine.router",
    "Ticket": "holyroute.core.ticket",
    "Trace": "holyroute.core.trace",
    "load": "holyroute.config.load",
}
_OWN_MODULES = ("api", "exceptions", "sessions", "simulator", "testing")

__version__: str = requests.__version__  # type: ignore[attr-defined] # scripts compare the version of requests
__all__ = sorted({*requests.__all__, *_HOMES})  # noqa: PLE0605

_surface.alias()
globals().update({name: getattr(requests, name) for name in __all__ if name not in _HOMES})


def __getattr__(name: str) -> Any:
    """Ours from their modules, everything else from requests."""
    from importlib import import_module

    if name in _OWN_MODULES:
        return import_module(f"holyroute.{name}")
    home = _HOMES.get(name)
    value = getattr(import_module(home), name) if home else getattr(requests, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *dir(requests)})
