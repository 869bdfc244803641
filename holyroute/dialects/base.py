"""What a dialect can do, and how the fields of its requests fare in another one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from requests import PreparedRequest

    from holyroute.config.credentials import Credential
    from holyroute.core.sse import Event
    from holyroute.core.target import Target

Json = dict[str, Any]


class Untranslatable(ValueError):  # noqa: N818 - a reason, not a mistake: the next target is asked
    """Something that the other dialect cannot say.

    Attributes:
        path: where it stands: "messages[2].content[0]".
        reason: why it cannot be carried over, free of anything that a user wrote.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Fate(StrEnum):
    """What becomes of a field on its way into another dialect."""

    SAME = "same"  # same name, same meaning
    TRANSLATED = "translated"
    DROPPED = "dropped"  # the answer is as good and as usable without it
    REFUSED = "refused"  # without it the answer would be another one, or have another form


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a dialect's table: the fate of a field, and the reason where it is left out."""

    fate: Fate
    reason: str = ""
    neutral: tuple[Any, ...] = ()  # values that say no more than leaving the field out


SAME = Field(Fate.SAME)
TRANSLATED = Field(Fate.TRANSLATED)


def dropped(reason: str) -> Field:
    """A field that is left out."""
    return Field(Fate.DROPPED, reason)


def refused(reason: str, *neutral: Any) -> Field:
    """A field that cannot be left out, unless it has one of the neutral values."""
    return Field(Fate.REFUSED, reason, neutral)


_UNKNOWN = refused("nobody knows what it means there")


def sorted_out(table: Mapping[str, Field], body: Mapping[str, Any], path: str = "") -> Json:
    """The fields of a body that count: null is as good as left out, and what is dropped is gone.

    Raises:
        Untranslatable: A field is refused, or not in the table.
    """
    kept = {}
    for name, value in body.items():
        field = table.get(name, _UNKNOWN)
        if value is None or field.fate is Fate.DROPPED or value in field.neutral:
            continue
        if field.fate is Fate.REFUSED:
            raise Untranslatable(f"{path}{name}", field.reason)
        kept[name] = value
    return kept


class StreamTranslator(Protocol):
    """Turns the events of one stream into those of another dialect, one stream per object.

    A stream that breaks off, or tells of an error, never ends as if it were whole.
    """

    def feed(self, event: Event) -> list[Event]:
        """What one event becomes; nothing more after an error."""

    def finish(self) -> list[Event]:
        """What is left to say when the stream has ended."""


class Dialect(Protocol):
    """How a provider wants to be asked, and how it answers; the translations lead to and from OpenAI's form.

    Translations take and return decoded JSON, change nothing they are given, and raise nothing but `Untranslatable`,
    whatever the JSON holds.
    """

    name: str

    def read(self, request: PreparedRequest) -> tuple[str, Json] | None:
        """Model and decoded body in the dialect's own form, if a request is of this dialect."""

    def base_url(self, request: PreparedRequest) -> str:
        """The URL of such a request up to, and without, the dialect's path; without user and password."""

    def prepare(
        self,
        target: Target,
        body: Mapping[str, Any],
        credential: Credential | None,
        headers: Mapping[str, Any] | None = None,
    ) -> PreparedRequest:
        """A new request to a target; of the caller's headers only those travel that name no one."""

    def renamed(self, request: PreparedRequest, target: Target, body: Mapping[str, Any]) -> PreparedRequest:
        """The caller's own request, asking the same host for another model."""

    def request_to_openai(self, body: Mapping[str, Any]) -> Json:
        """A request of this dialect in OpenAI's form."""

    def request_from_openai(self, body: Mapping[str, Any], target: Target) -> Json:
        """A request of OpenAI's form in this dialect, fit for a target."""

    def judged(self, answer: Any) -> Any:
        """What the error table reads of a decoded 200, in OpenAI's form; also where more stands in it than that says.

        Raises nothing.
        """

    def answer_to_openai(self, answer: Any) -> Any:
        """The decoded body of a 200 in OpenAI's form."""

    def answer_from_openai(self, answer: Any) -> Any:
        """An answer of OpenAI's form in this dialect."""

    def error_to_openai(self, status: int, decoded: Any) -> tuple[int, Json]:
        """Status and body of an error in OpenAI's form; `decoded` None where the body was no JSON."""

    def error_from_openai(self, status: int, decoded: Any) -> tuple[int, Json]:
        """Status and body of an error of OpenAI's form in this dialect."""

    def stream_to_openai(self, *, usage: bool) -> StreamTranslator:
        """A translator of one stream into OpenAI's form; `usage`: the caller asked for the usage at its end."""

    def stream_from_openai(self) -> StreamTranslator:
        """A translator of one stream of OpenAI's form into this dialect."""


def pieces(translator: StreamTranslator, events: Iterator[Event]) -> Iterator[Event]:
    """A whole stream, translated."""
    for event in events:
        yield from translator.feed(event)
    yield from translator.finish()
