"""Which file holds the settings, and whether it may be believed. One file is read: the first one found."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holyroute.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "holyroute.toml"
VARIABLE = "HOLYROUTE_CONFIG"
UNDER_RUN = "HOLYROUTE_RUN"  # set by `holyroute run`: what lies in the folder of a program decides nothing

_WRITABLE_BY_OTHERS = 0o022

logger = logging.getLogger("holyroute")


@dataclass(frozen=True, slots=True)
class Found:
    """A file that was read."""

    path: str
    tables: dict[str, Any]


def find(path: str | os.PathLike[str] | None, env: Mapping[str, str], *, cwd_file: bool) -> Found | None:
    """Read the named file, the one in `HOLYROUTE_CONFIG`, `./holyroute.toml` or the user's own, in this order.

    Raises:
        ConfigurationError: If a file is named and not there, or cannot be read or understood.
    """
    if path is not None:
        return _read(_absolute(path))
    if named := env.get(VARIABLE, "").strip():
        return _read(_absolute(named), named_by=VARIABLE)
    if cwd_file and not env.get(UNDER_RUN) and (found := _read_if_trusted(Path(FILE_NAME).absolute())) is not None:
        return found
    return _read(user_file()) if _is_file(user_file()) else None


def user_file() -> Path:
    """Where the user's own settings live: `~/.config/holyroute/config.toml` on Linux."""
    import platformdirs

    return platformdirs.user_config_path("holyroute") / "config.toml"


def parse(content: bytes, name: str) -> dict[str, Any]:
    """The tables of a TOML document; numbers with a point become `Decimal`, exactly as written.

    Raises:
        ConfigurationError: If it is not UTF-8 or not TOML; it names the line and shows none of the content.
    """
    import tomllib
    from decimal import Decimal

    try:
        return tomllib.loads(content.decode("utf-8-sig"), parse_float=Decimal)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{name}: not UTF-8 (at line {line})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name}: not TOML: {error}") from None
    except (ValueError, ArithmeticError, RecursionError):
        raise ConfigurationError(f"{name}: not TOML: a number is too large or the nesting too deep") from None


def _read(path: Path, named_by: str = "") -> Found:
    name = f"{path} (named by {named_by})" if named_by else str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{name}: cannot be read: {error}") from error
    return Found(str(path), parse(content, name))


def _absolute(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(f"{os.fspath(path)}: cannot be read: {error}") from error


def _is_file(path: Path) -> bool:
    """Whether a file is there; a folder that may not be entered holds none for us."""
    try:
        return path.is_file()
    except OSError:
        return False


def _read_if_trusted(path: Path) -> Found | None:
    """Read a file nobody named, if only the user can have written it: it decides where prompts go."""
    if not _is_file(path):
        return None
    content = None
    with suppress(OSError), path.open("rb") as file:
        status = os.fstat(file.fileno())  # of what is open: the name may point elsewhere by now
        if status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS:
            content = file.read()
    if content is None:
        logger.warning("%s is ignored: it must be yours, readable, and writable by nobody else", path)
        return None
    return Found(str(path), parse(content, str(path)))
