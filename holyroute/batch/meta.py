"""What stands beside an output: of which input and which question it is the answer."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from holyroute._version import __version__
from holyroute.batch.source import Survey
from holyroute.exceptions import ConfigurationError
from holyroute.stores import place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = 1
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """Fingerprints of an output: those of another run must be equal, or it does not go on with it."""

    input: Survey | None  # None: a pipe; then the key of each row is compared
    spec: Mapping[str, Any]  # see `Spec.describe`
    shard: str = ""  # k/n
    run: str = field(default_factory=lambda: os.urandom(8).hex())
    dropped_usd: str = "0"  # spent beside the lines: on dropped ones, on what no line tells

    def differences(self, other: Meta) -> list[str]:
        """What another run has changed, named."""
        found = _of_input(self.input, other.input)
        for name in {**self.spec, **other.spec}:
            was, now = self.spec.get(name), other.spec.get(name)
            if was != now:
                found.append(f"{name}: was {_shown(was)}, is {_shown(now)}")
        if self.shard != other.shard:
            found.append(f"shard: was {self.shard or 'all rows'}, is {other.shard or 'all rows'}")
        return found


def path_of(output: Path) -> Path:
    """Where the meta file of an output lies."""
    return output.with_name(f"{output.name}.meta.json")


def read(output: Path) -> Meta | None:
    """The meta file of an output, or None where there is none.

    Raises:
        ConfigurationError: it cannot be read, or is of another version.
    """
    path = path_of(output)
    try:
        said = json.loads(path.read_bytes())
        _check(path, said)
        survey = Survey(**said["input"]) if said["input"] else None
        known = {name: said[name] for name in ("spec", "shard", "run", "dropped_usd")}
        return Meta(input=survey, **known)
    except FileNotFoundError:
        return None
    except ConfigurationError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {error!r}") from error


def write(output: Path, meta: Meta) -> None:
    """Write the meta file whole or not at all."""
    said = {"schema": SCHEMA, "version": __version__, **asdict(meta)}
    place.put(path_of(output), [json.dumps(said, indent=2).encode(), b"\n"])


def _check(path: Path, said: Mapping[str, Any]) -> None:
    if said["schema"] != SCHEMA:
        raise ConfigurationError(f"{path}: written by another version of holyroute ({said['version']})")


def _of_input(was: Survey | None, now: Survey | None) -> list[str]:
    if was is None or now is None or was.digest == now.digest:
        return []
    if was.size != now.size or was.rows != now.rows:
        return [f"input: was {was.rows:,} rows in {was.size:,} bytes, is {now.rows:,} rows in {now.size:,} bytes"]
    return ["input: the same size, but other bytes"]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"
