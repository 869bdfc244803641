"""`holyroute.adapters`, `holyroute.packages.urllib3.util.retry` and all other submodules of requests, as they are.

They are the same module objects, so that what a script sets there (`adapters.DEFAULT_POOLSIZE`,
`packages.urllib3.disable_warnings()`) has its effect. `api`, `exceptions` and `sessions` are modules of our own, which
hand on what is not theirs, both ways.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_REQUESTS = "requests."
_OWN = {"api", "exceptions", "sessions"}
_MISSING = object()


def alias() -> None:
    """Let `import holyroute.x` find requests' module of that name, for all that are loaded with requests."""
    for name, module in list(sys.modules.items()):
        submodule = name.removeprefix(_REQUESTS)
        if submodule != name and submodule not in _OWN:
            sys.modules.setdefault(f"holyroute.{submodule}", module)


def hand_on(name: str) -> None:
    """Let a module of ours read and write what it does not define in requests' module of the same name."""
    sys.modules[name].__class__ = _HandingOn


class _HandingOn(ModuleType):
    """A module before another one. A name that both have as the same object is written in both."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":  # what a star import takes: the names of both
            return [name for name in dir(self) if not name.startswith("_")]
        return getattr(_behind(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        ours, theirs = vars(self).get(name, _MISSING), vars(_behind(self)).get(name, _MISSING)
        if not _is_special(name) and (ours is _MISSING or ours is theirs):
            setattr(_behind(self), name, value)
        if _is_special(name) or ours is not _MISSING:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in vars(self):
            super().__delattr__(name)
        else:
            delattr(_behind(self), name)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(_behind(self))})


def _behind(module: ModuleType) -> ModuleType:
    return sys.modules[module.__name__.replace("holyroute.", _REQUESTS)]


def _is_special(name: str) -> bool:
    """Module attributes that the import system sets, such as `__spec__`, belong to each module."""
    return name.startswith("__") and name.endswith("__")
