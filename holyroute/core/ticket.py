"""A ticket: what a caller holds of a call that was parked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from holyroute.exceptions import QueueUnavailable


class Results(Protocol):
    """Whoever knows the answers to tickets."""

    def result(self, ticket_id: str, timeout: float | None = None) -> Any:
        """The answer to a parked call."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A parked call. The id alone is enough to ask for the answer later, from any process that opens the same queue."""

    id: str
    created: bool = field(compare=False)  # False: the same call was waiting already, and this is its ticket
    results: Results = field(repr=False, compare=False)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the answer; somebody has to replay the queue meanwhile, in this process or another.

        Args:
            timeout: seconds; None waits for ever, 0 only looks.

        Raises:
            ResultTimeout: The answer is not there yet.
            DeadLetter: The call was given up, with the cause.
            UnknownTicket: It was purged meanwhile.
        """
        return self.results.result(self.id, timeout)

    def __reduce__(self) -> tuple[Any, ...]:
        return Ticket, (self.id, self.created, _ELSEWHERE)  # a queue does not travel; another process opens its own


class _Elsewhere:
    """Stands for the queue of another process."""

    def result(self, ticket_id: str, timeout: float | None = None) -> NoReturn:  # noqa: ARG002 - as `Results`
        raise QueueUnavailable(f"ticket {ticket_id} comes from another process: ask the queue itself, by this id")


_ELSEWHERE = _Elsewhere()
