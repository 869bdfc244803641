"""The `holyroute` command: one small module per command. Needs the extra `cli` (click, rich)."""

from __future__ import annotations

from holyroute.cli.app import main

__all__ = ["main"]
