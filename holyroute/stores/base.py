"""What the retry queue asks of a store, in bytes and seconds.

A store writes down times of day, in seconds since the epoch, by its own clock, so that all who share it agree; callers
speak of durations. Every method is one transaction, safe between threads and, where the store is shared, between
processes. Each may raise `QueueUnavailable`, `QueueCorrupt` or `QueueVersion`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

State = Literal["ready", "leased", "done", "dead"]

FURTHEST = 3_600.0  # seconds: no delay and no lease is longer; what lies further ahead, a wrong clock wrote
DAMAGED = "damaged: its checksum does not match"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """What is to be kept."""

    payload: bytes = field(repr=False)
    digest: str  # of the payload: two items that wait and are the same are one
    group: int = 0  # items that the same targets may answer
    key: str | None = None  # the user's idempotency key; instead of the digest, and also after the item is done
    delay: float = 0.0  # seconds until it may be leased


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """An item lent to one worker; nobody else gets it until the lease ends."""

    id: str
    token: str = field(repr=False)  # fences off whoever held it before
    key: str | None = field(repr=False)
    payload: bytes = field(repr=False)
    group: int
    attempts: int  # this one included, as if it counted
    leases: int  # this one included


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An item as it stands. Times are of the day."""

    id: str
    key: str | None
    state: State
    payload: bytes | None = field(repr=False)  # None once done, or damaged
    result: bytes | None = field(repr=False)  # None until done, or damaged
    attempts: int
    leases: int
    not_before: float
    expires: float
    created: float
    finished: float | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """How many items are in which state, and what room they take."""

    ready: int
    leased: int
    done: int
    dead: int
    size: int  # bytes in use
    next_at: float | None  # when an item falls due or a lease ends; None: nothing waits


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair found."""

    recovered: int  # items in order
    damaged: int  # items that can be seen but not used: dead letters now
    kept: str | None  # where the damaged file lies now


class QueueStore(Protocol):
    """Items that wait, are lent, and end as done or dead."""

    name: str  # for messages

    def exists(self) -> bool:
        """Whether it was made; everything else makes it."""

    def put(self, new: NewItem) -> tuple[str, bool]:
        """Keep an item durably: its id, and whether it is new.

        Raises:
            QueueFull: The store's limit or the disk.
            InvalidItem: The key stands for another payload.
        """

    def groups(self) -> list[int]:
        """The groups of which an item is due, that with the earliest first; before that, as `lease`, order is made."""

    def sample(self, group: int) -> bytes | None:
        """The payload of a group's next item, unchecked; None where nothing of it waits."""

    def lease(self, limit: int, seconds: float, shares: Mapping[int, int] | None = None) -> list[Leased]:
        """Lend up to some due items, first due first; before that, what time has brought is put in order.

        A lease that ended puts its item back behind those that are due, or among the dead when its attempts are used
        up. What waited too long dies, a damaged item too; answers older than the retention go.

        Args:
            limit: how many at most.
            seconds: that they are lent for, at most `FURTHEST`.
            shares: how many of which groups at most, and none of others; None: of any.
        """

    def renew(self, item_id: str, token: str, seconds: float) -> bool:
        """Hold an item for some seconds from now; False: the lease is lost."""

    def complete(self, item_id: str, token: str, result: bytes) -> bool:
        """Keep the answer and drop the payload; False: the lease is lost, and nothing was recorded."""

    def retry(
        self, item_id: str, token: str, *, delay: float, error: str | None, counts: bool
    ) -> Literal["ready", "dead"] | None:
        """Put an item back; None: the lease is lost.

        Args:
            item_id: of the item.
            token: of the lease.
            delay: seconds until it may be leased again, at most `FURTHEST`.
            error: the cause; None keeps the one before.
            counts: whether the attempt counts. If so, the item dies with the last one; if not, it is given back.
        """

    def bury(self, item_id: str, token: str, error: str) -> bool:
        """Give an item up; False: the lease is lost."""

    def get(self, item_id: str) -> Record | None:
        """One item."""

    def dead(self, limit: int) -> list[Record]:
        """Items given up, the latest first."""

    def waiting(self, limit: int) -> list[Record]:
        """Items that wait or are lent, the next one first."""

    def hasten(self, ids: list[str] | None) -> int:
        """Make some waiting items due now, or all; how many there were."""

    def requeue(self, ids: list[str] | None) -> int:
        """Let some dead items, or all, wait again, with fresh attempts and time; how many there were."""

    def purge(self, older_than: float, *, dead: bool) -> int:
        """Delete answers, or dead items, that ended so many seconds ago; how many there were."""

    def stats(self) -> QueueStats:
        """Count."""

    def check(self) -> tuple[str, ...]:
        """Read everything; what is wrong, in words."""

    def repair(self) -> Repair:
        """Salvage what can be read, and keep what was there before."""

    def close(self) -> None:
        """Let go; everything after that raises `QueueUnavailable`."""
