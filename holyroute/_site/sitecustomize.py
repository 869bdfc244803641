"""Python runs this when it starts, in every process under `holyroute run`: requests is routed once it is imported.

Until then nothing happens, and nothing at all where holyroute cannot be imported: this may be another Python, of
another version, so only what every Python 3 knows is used here.
"""

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Watch:
    """Finds requests as ever, with a loader that has it routed afterwards."""

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        """Called for every import; only one is of interest."""
        if name != "requests":
            return None
        finders = [finder.find_spec for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec: Any = next(filter(None, (find(name, path, target) for find in finders)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = Loader(spec.loader)
        return spec


class Loader:
    """Stands before the loader of requests."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def exec_module(self, module: "Any") -> None:
        """Load requests, step aside, and have it routed."""
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        if WATCH in sys.meta_path:
            sys.meta_path.remove(WATCH)
            install()


def install() -> None:
    """Route requests, or leave it alone."""
    try:
        from holyroute.installation import install
    except Exception:  # noqa: BLE001 - whatever is wrong with this Python's holyroute, the program runs as ever
        return
    install()


def run_the_next() -> None:
    """Python runs only the first `sitecustomize` on its path, which is this one: the machine's own comes next."""
    here = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if os.path.abspath(entry) != here])
    if spec is not None and spec.loader is not None:
        from importlib.util import module_from_spec

        module = sys.modules["sitecustomize"] = module_from_spec(spec)
        spec.loader.exec_module(module)


WATCH: "Any" = Watch()
sys.meta_path.insert(0, WATCH)
run_the_next()
