"""Server-sent events: bytes as they come to events, and back.

As the HTML standard has it (§9.2, "event stream interpretation"), but for one thing: an event that the end of the
stream leaves without its blank line is handed on by `finish()`, because some providers end their last one so. Whoever
reads JSON out of it notices when it is half an event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its data, lines joined by a newline, and its name, empty where the stream gives none."""

    data: str
    name: str = ""

    def encode(self) -> bytes:
        """The event as bytes of a stream."""
        name = [f"event: {self.name}"] if self.name else []
        lines = [*name, *(f"data: {line}" for line in self.data.split("\n")), "", ""]
        return "\n".join(lines).encode("utf-8", "replace")


class Decoder:
    """Cuts a stream of bytes into events, wherever the bytes happen to be split. `id` and `retry` are passed over."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line whose end has not come
        self._after_cr = False  # a newline that comes next belongs to the line end before it
        self._at_start = True
        self._data: list[str] = []
        self._name = ""

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        events = []
        start = 0
        for end in _LINE_END.finditer(data):
            self._rest += data[start : end.start()]
            start = end.end()
            events += self._end_line()
        self._rest += data[start:]
        self._after_cr = self._after_cr or data.endswith(b"\r")
        return events

    def finish(self) -> list[Event]:
        """The event that the end of the stream completes, if one was begun."""
        return [*(self._end_line() if self._rest else []), *self._dispatch()]

    def _end_line(self) -> list[Event]:
        line = self._rest.decode("utf-8", "replace")
        self._rest.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        return []

    def _dispatch(self) -> list[Event]:
        events = [Event("\n".join(self._data), self._name)] if self._data else []
        self._data, self._name = [], ""
        return events
