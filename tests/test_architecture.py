"""The house stands as DESIGN.md draws it: floors, "onlys", size budget, names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import requests

import holyroute

PACKAGE = Path(holyroute.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up. A module may import from its own floor and from those below.
FLOORS = [
    {"exceptions", "_surface", "_version"},
    {"core"},
    {"config", "transport"},
    {"stores"},
    {"resilience", "caching", "cost", "monitoring", "dialects"},
    {"engine"},
    {"batch", "deferred"},
    {"simulator"},
    {
        "__init__",
        "api",
        "attempting",
        "batching",
        "client",
        "completing",
        "context",
        "door",
        "dropin",
        "failure",
        "flask",
        "installation",
        "queueing",
        "sessions",
    },
    {"testing"},
    {"cli"},
    {"__main__", "_site"},
]

# An error carries its trace: `exceptions` names the type, and imports nothing at run time.
FOR_TYPES = {"exceptions": {"core"}}

# What a folder may know beyond its floor's rule.
ONLY_CORE = {"transport", "simulator"}

ONLYS = {
    "time": {"core/clock.py"},
    "tomllib": {"config/"},
    "sqlite3": {"stores/"},
    "redis": {"stores/"},
}

FUNCTION_LINES, MODULE_LINES = 40, 400


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def imports(path: Path) -> list[tuple[str, str]]:
    """Every import of a module, those in functions and under TYPE_CHECKING included: module and imported name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
    return found


def rooms_used(path: Path) -> set[str]:
    used = set()
    for module, name in imports(path):
        if module == "holyroute":
            used.add(name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "__init__")
        elif module.startswith("holyroute."):
            used.add(module.split(".")[1])
    return used


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    """No module knows what is built on top of it."""
    here = room(path)
    upward = {used for used in rooms_used(path) if floor(used) > floor(here)} - FOR_TYPES.get(here, set())
    if here in ONLY_CORE:
        upward |= rooms_used(path) - {here, "core", "exceptions"}

    assert upward == set()


def test_no_import_cycle() -> None:
    """Modules can be read in some order, first page first."""
    known = {".".join(("holyroute", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
    known = {name.removesuffix(".__init__"): path for name, path in known.items()}
    graph = {
        name: {
            used
            for module, imported in runtime_imports(path)
            if (used := f"{module}.{imported}" if f"{module}.{imported}" in known else module) in known
        }
        for name, path in known.items()
    }
    order: list[str] = []
    while graph:
        free = [name for name, uses in graph.items() if not uses & graph.keys()]
        if not free:
            break
        for name in free:
            del graph[name]
        order += free

    assert graph == {}


def runtime_imports(path: Path) -> list[tuple[str, str]]:
    """Imports that run when the module is loaded."""
    tree = ast.parse(path.read_text())
    return [
        (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]


@pytest.mark.parametrize("banned", ONLYS)
def test_onlys(banned: str) -> None:
    """Time, TOML and stores are each known in one place."""
    users = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if any(module.split(".")[0] == banned for module, _ in imports(path))
    }
    strangers = {user for user in users if not any(user.startswith(home) for home in ONLYS[banned])}

    assert strangers == set()


def test_only_config_reads_the_environment() -> None:
    """Settings enter through config, nowhere else."""
    readers = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }

    assert {reader for reader in readers if not reader.startswith("config/")} == set()


def test_only_events_calls_observers() -> None:
    """Whoever has something to tell publishes it; nobody else holds observers."""
    holders = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"observers", "_observers"}
    }

    assert holders <= {"core/events.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_size_budget(path: Path) -> None:
    """A function fits on a screen, a module into an hour."""
    text = path.read_text()
    long_functions = [
        f"{node.name}: {length}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and (length := body_lines(node)) > FUNCTION_LINES
    ]

    assert long_functions == []
    assert len(text.splitlines()) <= MODULE_LINES


def body_lines(function: ast.FunctionDef) -> int:
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_room_hides_a_name_of_requests() -> None:
    """Importing a module of ours never replaces a submodule or function of requests, or a function of ours."""
    rooms = {room(path) for path in MODULES}
    submodules = {path.stem for path in Path(requests.__file__).parent.glob("*.py")} - {"__init__"}
    functions = {name for name in holyroute.__all__ if callable(getattr(holyroute, name))}

    assert rooms & (submodules - {"api", "exceptions", "sessions", "__version__"}) == set()
    assert rooms & functions == set()
