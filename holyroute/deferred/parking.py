"""Parking: a call that nobody could answer goes into the queue, with its route and without its credentials."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from holyroute.config.credentials import callers_credential
from holyroute.core.call import Selection
from holyroute.deferred.parked import ParkedCall
from holyroute.deferred.ramp import backoff
from holyroute.dialects.base import Untranslatable
from holyroute.dialects.translation import DIALECTS
from holyroute.exceptions import QueueError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holyroute.core.call import Call
    from holyroute.core.target import Target
    from holyroute.core.trace import Trace
    from holyroute.deferred.queue import RetryQueue
    from holyroute.engine.router import Router

logger = logging.getLogger("holyroute")

KEY_HEADER = "Idempotency-Key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What is to become of the answers of parked calls; see `ParkedCall`."""

    handler: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    key: str | None = field(default=None, repr=False)


class Parking:
    """Parks what nobody could answer, and writes the ticket into the call's trace.

    Never raises on the queue's account: who could not be answered should be told that, not what befell the queue. Why
    a call was not parked stands in its trace and in the log.
    """

    def __init__(self, queue: RetryQueue, router: Router, delivery: Delivery) -> None:
        self.queue = queue
        self._router = router
        self._delivery = delivery

    def __call__(self, call: Call, trace: Trace) -> None:
        """Park a call of which its trace says that it may be answered later."""
        own = callers_credential(call)
        free_in = 0.0 if trace.retry_at is None else trace.retry_at - self._router.clock.now()
        try:
            trace.ticket = self.queue.put(
                self.parked(call),
                delay=max(free_in, backoff(self.queue.settings, leases=1)),  # it has failed once
                secrets=() if own is None else [own.secret],
            )
        except QueueError as error:
            trace.not_parked = str(error)
            logger.warning("a call that nobody could answer was not parked: %s", error)

    def parked(self, call: Call) -> ParkedCall:
        """A call as it is parked.

        Raises:
            NotReplayable: It is a stream, nobody who might answer it is configured, or its dialect says more than
                OpenAI's form, in which calls are kept and answered.
        """
        if call.stream or call.body.get("stream"):
            raise NotReplayable("streams are not parked")
        delivery, origin = self._delivery, call.origin
        content = ParkedCall(
            body=_in_openais_form(call),
            handler=delivery.handler,
            metadata=delivery.metadata,
            key=delivery.key,
            model=call.model,
            selection=call.selection,
        )
        if origin is None:
            return content
        names = self._configured(candidate.target for candidate in self._router.candidates(call))
        if not names:
            raise NotReplayable("nobody but the address in the script might answer it, and that is not configured")
        key = delivery.key or origin.request.headers.get(KEY_HEADER)
        key = key.decode("latin-1") if isinstance(key, bytes) else key
        return replace(content, key=key, model=None, selection=Selection(models=names))

    def _configured(self, targets: Iterable[Target]) -> tuple[str, ...]:
        """The names of those that whoever replays the call will know."""
        known = self._router.config.models
        return tuple(target.name for target in targets if known.get(target.name) == target)


def _in_openais_form(call: Call) -> Mapping[str, Any]:
    try:
        return DIALECTS[call.dialect].request_to_openai(call.body)
    except Untranslatable as no:
        raise NotReplayable(f"it cannot be said in OpenAI's form: {no}") from None


class NotReplayable(QueueError):  # noqa: N818 - never leaves `Parking`, but for its message
    """Nobody could replay this call."""
