"""Every exception a caller can see: requests' own, and ours below its root.

    requests.RequestException
    └─ HolyRouteError
       ├─ ConfigurationError   (+ ValueError)       a setting is wrong; the message names its path
       ├─ InvalidRequest                            the first target refused the request itself: 400, 413, 422
       ├─ ContentFiltered                           the provider refused to answer this content
       ├─ StreamInterrupted    (+ ChunkedEncodingError)  a streamed answer broke off; carries what was said
       └─ AllTargetsFailed     (+ ConnectionError)  nobody could answer; carries the trace and when to retry
          └─ DeadlineExceeded  (+ ReadTimeout)      the time ran out before somebody answered

Double inheritance keeps `except requests.ConnectionError` and `except requests.Timeout` true. Only `Client` raises
ours; the drop-in doors show what requests itself would have shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,  # noqa: A004 - requests' name
    ConnectTimeout,
    ContentDecodingError,
    FileModeWarning,
    HTTPError,
    InvalidHeader,
    InvalidJSONError,
    InvalidProxyURL,
    InvalidSchema,
    InvalidURL,
    JSONDecodeError,
    MissingSchema,
    ProxyError,
    ReadTimeout,
    RequestException,
    RequestsDependencyWarning,
    RequestsWarning,
    RetryError,
    SSLError,
    StreamConsumedError,
    Timeout,
    TooManyRedirects,
    UnrewindableBodyError,
    URLRequired,
)

from holyroute import _surface

if TYPE_CHECKING:
    from holyroute.core.trace import Trace


class HolyRouteError(RequestException):
    """Root of what holyroute raises on its own account.

    Attributes:
        trace: everything that happened to the call, or None where no call was made.
    """

    def __init__(self, *args: Any, trace: Trace | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.trace = trace


class ConfigurationError(HolyRouteError, ValueError):
    """A setting is missing or wrong. The message names the path to it, what was expected and what was found."""


class InvalidRequest(HolyRouteError):  # noqa: N818 - the decided name
    """The first target answered 400, 413 or 422: the request itself is at fault, so nobody else was asked."""


class ContentFiltered(HolyRouteError):  # noqa: N818
    """The provider withheld the answer because of its content, with the provider's reason in the message."""


class StreamInterrupted(HolyRouteError, ChunkedEncodingError):  # noqa: N818
    """A streamed answer broke off after its first words, when nobody else could take over.

    Attributes:
        partial: the text until then, of the first choice.
    """

    def __init__(self, *args: Any, partial: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.partial = partial


class AllTargetsFailed(HolyRouteError, ConnectionError):  # noqa: N818
    """No target could answer.

    Attributes:
        retry_at: monotonic seconds (`holyroute.core.clock`) when a target may be free again, or None.
        retry_after: the same as seconds from the moment of raising.
        ticket: the parked call, once calls can be parked; None otherwise.
    """

    def __init__(
        self, *args: Any, retry_at: float | None = None, retry_after: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.retry_at = retry_at
        self.retry_after = retry_after
        self.ticket = None


class DeadlineExceeded(AllTargetsFailed, ReadTimeout):
    """The call's deadline passed before a target answered."""


__all__ = [
    "AllTargetsFailed",
    "ChunkedEncodingError",
    "ConfigurationError",
    "ConnectTimeout",
    "ConnectionError",
    "ContentDecodingError",
    "ContentFiltered",
    "DeadlineExceeded",
    "FileModeWarning",
    "HTTPError",
    "HolyRouteError",
    "InvalidHeader",
    "InvalidJSONError",
    "InvalidProxyURL",
    "InvalidRequest",
    "InvalidSchema",
    "InvalidURL",
    "JSONDecodeError",
    "MissingSchema",
    "ProxyError",
    "ReadTimeout",
    "RequestException",
    "RequestsDependencyWarning",
    "RequestsWarning",
    "RetryError",
    "SSLError",
    "StreamConsumedError",
    "StreamInterrupted",
    "Timeout",
    "TooManyRedirects",
    "URLRequired",
    "UnrewindableBodyError",
]

_surface.hand_on(__name__)
