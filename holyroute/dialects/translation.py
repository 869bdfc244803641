"""The dialects that are known, and what passes between two of them.

    found = recognise(request)                                      # who wrote this request?
    translation = translate(found.dialect, target, found.body)      # raises Untranslatable: ask the next target
    request = translation.answerer.prepare(target, translation.body, credential, headers)
    …
    translation.judged(decoded)                             # a 200 in OpenAI's form, for the error table
    translation.answer(decoded)                             # the same in the caller's form
    translation.error(status, decoded)                      # anything else in the caller's form
    translation.reader()                                    # hands on the bytes of a stream in the caller's form

Within one dialect everything passes as it is: the same objects, the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from holyroute.core.stream import StreamReader
from holyroute.dialects import anthropic, azure, openai
from holyroute.dialects.base import Untranslatable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest

    from holyroute.core.target import Provider, Target
    from holyroute.dialects.base import Dialect, Json

# In the order in which a request is tried: an Azure deployment's path is OpenAI's with more in front.
DIALECTS: Mapping[str, Dialect] = {one.name: one for one in (azure, openai, anthropic)}


class Found(NamedTuple):
    """A request that is ours."""

    dialect: Dialect
    model: str
    body: Json


def dialect_of(provider: Provider) -> Dialect:
    """The dialect that a provider speaks."""
    return DIALECTS[provider.dialect]


def recognise(request: PreparedRequest) -> Found | None:
    """The dialect, the model and the decoded body of a request, if it asks for a chat completion of any kind."""
    for dialect in DIALECTS.values():
        found = dialect.read(request)
        if found is not None:
            return Found(dialect, *found)
    return None


@dataclass(slots=True)
class Translation:
    """What a caller and a target that answers have to say to each other."""

    caller: Dialect
    answerer: Dialect
    body: Mapping[str, Any] = field(repr=False)  # the request in the answerer's form
    usage: bool = False  # the caller's stream ends with the usage

    @property
    def is_needed(self) -> bool:
        """Whether anything changes on the way."""
        return self.caller is not self.answerer

    def judged(self, answer: Any) -> Any:
        """The decoded body of a 200 in OpenAI's form, by which the error table judges it.

        An answer that cannot be told to the caller is as good as none: it has no choices. Raises nothing.
        """
        if not self.is_needed:
            return self.answerer.judged(answer)
        try:
            translated = self.answerer.answer_to_openai(answer)
            self.caller.answer_from_openai(translated)
        except Untranslatable:
            return {}
        return translated

    def answer(self, answer: Any) -> Any:
        """The decoded body of a 200 in the caller's form.

        Raises:
            Untranslatable: The caller's form has no place for something in it.
        """
        if not self.is_needed:
            return answer
        return self.caller.answer_from_openai(self.answerer.answer_to_openai(answer))

    def error(self, status: int, decoded: Any) -> tuple[int, Any]:
        """Status and decoded body of an error in the caller's form."""
        if not self.is_needed:
            return status, decoded
        return self.caller.error_from_openai(*self.answerer.error_to_openai(status, decoded))

    def reader(self, choices: int = 1) -> StreamReader:
        """Reads along with one stream, and hands it on in the caller's form."""
        return StreamReader(
            choices,
            to_openai=self.answerer.stream_to_openai(usage=True),
            to_caller=self.caller.stream_from_openai() if self.is_needed else None,
            usage=self.usage or self.caller is not DIALECTS["openai"],
        )


def translate(caller: Dialect, target: Target, body: Mapping[str, Any]) -> Translation:
    """How a request reaches a target, and how its answer comes back; the same body where both speak one dialect.

    Raises:
        Untranslatable: The target's dialect cannot say what the request asks for.
    """
    answerer = dialect_of(target.provider)
    if answerer is caller:
        return Translation(caller, answerer, body)
    options = body.get("stream_options")
    usage = isinstance(options, dict) and options.get("include_usage") is True
    translated = answerer.request_from_openai(caller.request_to_openai(body), target)
    return Translation(caller, answerer, translated, usage)
