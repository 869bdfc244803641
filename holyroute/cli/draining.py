"""`holyroute queue drain`: handlers from a module, a replay in a thread, and signals that end it."""

from __future__ import annotations

import signal
import sys
import traceback
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from holyroute.cli.output import Failure, Misuse
from holyroute.cli.waiting import LOOK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holyroute.deferred.replay import Progress
    from holyroute.deferred.worked import WorkedQueue

OURS = Path(__file__).parents[1]
_ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]


def load_handlers(modules: Iterable[str]) -> None:
    """Import modules by name, from the working folder too, as `python -m` does.

    Raises:
        Misuse: There is no such module, or it registers nothing.
        Failure: It cannot be imported.
    """
    for name in modules:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        _load(name)


def _load(name: str) -> None:
    from holyroute.deferred.handlers import OF_PROCESS

    if name.endswith(".py") or not all(map(str.isidentifier, name.split("."))):
        raise Misuse(f"--handlers: expected the name of a module, such as app.handlers, got {name!r}")
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Failure(_told(name, error)) from error
        raise Misuse(f"--handlers: no module {name!r}, neither in this folder nor installed") from error
    except Exception as error:
        raise Failure(_told(name, error)) from error
    if not OF_PROCESS:
        raise Misuse(f"--handlers: {name} registers no handler; expected @holyroute.handler(NAME) in it")


def _told(name: str, error: Exception) -> str:
    """What went wrong in somebody else's module, and where, as far as that was not in ours or in Python's own."""
    text = f"--handlers: {name} cannot be imported: {type(error).__name__}: {error}"
    places = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((str(OURS), "<frozen "))
    ]
    return "\n".join([text, *places[-1:]])


def drained(worked: WorkedQueue, *, until_empty: bool) -> tuple[Progress, bool]:
    """Replay in a thread, so that this one hears signals, and holds none of the queue's locks when it does.

    The first signal lets calls under way end, a second one calls them off.

    Returns:
        What became of the calls, and whether Ctrl-C ended it.
    """
    from concurrent import futures

    from holyroute.deferred.worked import GRACE

    with _signals() as heard, futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(worked.drain, until_empty=until_empty)
        while not futures.wait([future], timeout=LOOK).done:
            if heard:  # said again and again: the replay may not have begun when it was said first
                worked.stop(GRACE if len(heard) == 1 else 0.0)
        return future.result(), signal.SIGINT in heard


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that came in a block and ask for its end; what is ignored (nohup, &) stays ignored."""
    heard: list[int] = []
    before = {number: was for number in _ENDS if (was := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, lambda number, _: heard.append(number))
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
