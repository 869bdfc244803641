"""Every exception a caller can see: requests' own, and ours below its root.

    requests.RequestException
    └─ HolyRouteError
       ├─ ConfigurationError   (+ ValueError)       a setting is wrong; the message names its path
       ├─ InvalidRequest                            the first target refused the request itself: 400, 413, 422
       ├─ ContentFiltered                           the provider refused to answer this content
       ├─ StreamInterrupted    (+ ChunkedEncodingError)  a streamed answer broke off; carries what was said
       ├─ AllTargetsFailed     (+ ConnectionError)  nobody could answer; carries the trace and when to retry
       │  └─ DeadlineExceeded  (+ ReadTimeout)      the time ran out before somebody answered
       └─ QueueError                                the queue of parked calls
          ├─ QueueFull                              its limit or the disk
          ├─ QueueCorrupt                           its file is damaged
          ├─ QueueUnavailable                       its file cannot be used: gone, busy, read-only, open to others
          ├─ QueueVersion                           its file is of another version of holyroute
          ├─ InvalidItem       (+ ValueError)       this cannot be parked
          │  └─ SecretInPayload                     because a key stands in it
          ├─ UnknownTicket     (+ LookupError)      nothing is known under this id
          ├─ DeadLetter                             the parked call was given up; carries its id and the cause
          └─ ResultTimeout     (+ TimeoutError)     the answer is not there yet

Double inheritance keeps `except requests.ConnectionError` and `except requests.Timeout` true. Only `Client` and the
queue raise ours; the drop-in doors show what requests itself would have shown.
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
    from holyroute.core.ticket import Ticket
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
        ticket: of the parked call, where somebody asked for that; else None, and `trace.not_parked` says why not.
    """

    def __init__(
        self,
        *args: Any,
        retry_at: float | None = None,
        retry_after: float | None = None,
        ticket: Ticket | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.retry_at = retry_at
        self.retry_after = retry_after
        self.ticket = ticket


class DeadlineExceeded(AllTargetsFailed, ReadTimeout):
    """The call's deadline passed before a target answered."""


class QueueError(HolyRouteError):
    """Root of what the queue of parked calls raises."""


class QueueFull(QueueError):  # noqa: N818
    """Nothing more can be parked: too many calls wait, the file has reached its limit, or the disk is full."""


class QueueCorrupt(QueueError):  # noqa: N818
    """The queue's file is damaged. Nothing was deleted; `RetryQueue.repair` salvages what can be read."""


class QueueUnavailable(QueueError):  # noqa: N818
    """The queue's file cannot be used now: missing, locked for too long, read-only, or open to other users."""


class QueueVersion(QueueError):  # noqa: N818
    """The queue's file was written by another version of holyroute than this one can read."""


class InvalidItem(QueueError, ValueError):  # noqa: N818
    """This cannot be parked: it is no JSON object, too large, or its idempotency key stands for another call."""


class SecretInPayload(InvalidItem):
    """A key stands in what was to be parked; keys are never written to disk."""


class UnknownTicket(QueueError, LookupError):  # noqa: N818
    """Nothing is known under this id: it was never parked here, or its answer has been purged."""


class DeadLetter(QueueError):  # noqa: N818
    """A parked call was given up. It stays in the queue until it is requeued or purged.

    Attributes:
        id: of the parked call.
        cause: why it was given up.
    """

    def __init__(self, *args: Any, id: str = "", cause: str = "", **kwargs: Any) -> None:  # noqa: A002 - its name
        super().__init__(*args, **kwargs)
        self.id = id
        self.cause = cause


class ResultTimeout(QueueError, TimeoutError):  # noqa: N818
    """A parked call has not been answered yet; the ticket stays good."""


__all__ = [
    "AllTargetsFailed",
    "ChunkedEncodingError",
    "ConfigurationError",
    "ConnectTimeout",
    "ConnectionError",
    "ContentDecodingError",
    "ContentFiltered",
    "DeadLetter",
    "DeadlineExceeded",
    "FileModeWarning",
    "HTTPError",
    "HolyRouteError",
    "InvalidHeader",
    "InvalidItem",
    "InvalidJSONError",
    "InvalidProxyURL",
    "InvalidRequest",
    "InvalidSchema",
    "InvalidURL",
    "JSONDecodeError",
    "MissingSchema",
    "ProxyError",
    "QueueCorrupt",
    "QueueError",
    "QueueFull",
    "QueueUnavailable",
    "QueueVersion",
    "ReadTimeout",
    "RequestException",
    "RequestsDependencyWarning",
    "RequestsWarning",
    "ResultTimeout",
    "RetryError",
    "SSLError",
    "SecretInPayload",
    "StreamConsumedError",
    "StreamInterrupted",
    "Timeout",
    "TooManyRedirects",
    "URLRequired",
    "UnknownTicket",
    "UnrewindableBodyError",
]

_surface.hand_on(__name__)
