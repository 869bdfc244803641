"""Every client by its name, in the order of the tables."""

from __future__ import annotations

from importlib.util import find_spec

from ours import OURS
from peers import BASELINE, PEERS

CLIENTS = {client.name: client for client in (*PEERS, *OURS)}


def chosen(only: str) -> list[str]:
    """The names that contain one of some words; the baseline is always among them."""
    words = only.split(",")
    return [name for name in CLIENTS if name == BASELINE or any(word in name for word in words)]


def installed(names: list[str]) -> list[str]:
    """Those whose package is there."""
    return [name for name in names if not CLIENTS[name].package or find_spec(CLIENTS[name].package)]
