"""What every drop-in door has: how it routes, and the engine behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from holyroute.core.call import Selection

if TYPE_CHECKING:
    import os

    from holyroute.config.schema import Config
    from holyroute.engine.router import Router


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingOptions:
    """How a door routes. Pickles with a session; the router does not."""

    config: Config | str | os.PathLike[str] | None = None
    selection: Selection = Selection()  # noqa: RUF009 - frozen
    raise_on_exhaustion: bool = False
    queue: bool | str | os.PathLike[str] | None = None  # where calls are parked; True: at the configured place


class Door(Protocol):
    """Whose settings a send is routed by: a session of ours, or what was installed."""

    @property
    def routing_options(self) -> RoutingOptions:
        """How it routes."""

    @property
    def router(self) -> Router:
        """The engine behind it; made when it is first needed."""
