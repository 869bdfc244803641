"""How many tokens a request will take, without a tokenizer.

Characters are counted by script, ten classes with a weight each, start values of OpenAI's o200k vocabulary. What a
model's own vocabulary makes of a script is learnt from the `usage` of its answers: one factor per script, because a
vocabulary that needs half as many tokens more for Chinese does not need more for English.

Everything is counted by C code: the text is encoded, its bytes are translated to one letter per class, and the letters
are counted.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import operator
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from holyroute.core.completion import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PER_MESSAGE = 4  # tokens of role and separators, by OpenAI's cookbook
PER_REQUEST = 3  # tokens that open the answer
PER_NAME = 1
IMAGE, SMALL_IMAGE = 765, 85  # tokens: OpenAI's for 1024 × 1024 pixels, and for `detail: "low"`
COMPLETION = 500  # tokens of an answer, until some have been seen
ANSWERS = 64  # of a model, whose lengths are remembered
MODELS = 256  # that are remembered
NARROW, WIDE = 0.3, 3.0  # bounds of a factor: beyond, `usage` counts something else than this text
FEW, ONE_IN = ANSWERS, 8  # answers of a model that are all learnt from, and how many of those that follow
SLOWEST = 0.05  # weight of one more answer in a factor, when many have been seen

# Tokens per unit, fitted to counts of prose in 13 languages, code, JSON and LaTeX (`benchmarks/tokens.py` judges it).
# A word of ASCII letters, and more for each 7 letters of it; 24 in a row are no word.
WORD, SEVEN, TWENTY_FOUR = 0.7, 0.4, 6.0
DIGIT, SPACE, PUNCTUATION = 0.9, 0.25, 0.8
HANGUL, HAN, KANA, ACCENTED, CYRILLIC, OTHER = 0.73, 0.86, 0.92, 1.3, 0.21, 0.34

logger = logging.getLogger("holyroute")

# One letter for each class of ASCII characters, and for each script by the upper byte of its UTF-16 units.
_ASCII_CLASSES = {
    b"a": b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    b"0": b"0123456789",
    b" ": b" \t\n\r\f\v",
    b"!": bytes(byte for byte in range(128) if not chr(byte).isalnum() and not chr(byte).isspace()),
}
_SCRIPT_CLASSES = {
    b"h": bytes([0x11, *range(0xAC, 0xD8)]),  # Hangul
    b"c": bytes([*range(0x34, 0xA0), 0xF9, 0xFA]),  # Han
    b"k": bytes([0x30]),  # kana, and the punctuation of Han
    b"a": bytes([0x00, 0x01, 0x02, 0x1E]),  # Latin with accents; ASCII is taken off
    b"r": bytes([0x04, 0x05]),  # Cyrillic
    b"!": bytes([*range(0x20, 0x28), *range(0xD8, 0xE0), 0xFF]),  # punctuation, symbols; two for an emoji
}


def _table(classes: Mapping[bytes, bytes], rest: bytes) -> bytes:
    letters = bytearray(rest * 256)
    for letter, members in classes.items():
        for byte in members:
            letters[byte] = letter[0]
    return bytes(letters)


_ASCII = _table(_ASCII_CLASSES, b"!")
_SCRIPTS = _table(_SCRIPT_CLASSES, b"o")
_WORDS = _table({b"a": b"a"}, b" ")


_FORMS = frozenset({"tools", "functions", "response_format"})  # what else of a body is read by the model


class RawEstimate(NamedTuple):
    """Tokens of a prompt before anything was learnt, by group of scripts, and what the body says of the answer."""

    scripts: tuple[float, ...]  # Latin, Hangul, Han with kana, all others
    fixed: int = 0  # tokens that depend on no vocabulary
    max_tokens: int | None = None
    choices: int = 1


def count(text: str) -> tuple[float, ...]:
    """Tokens of a text by group of scripts, as o200k would have it: Latin, Hangul, Han with kana, all others."""
    if text.isascii():
        return _count_ascii(text.encode()), 0.0, 0.0, 0.0
    ascii_only = len(text.encode("ascii", "ignore"))
    latin = _count_ascii(text.encode("ascii", "replace")) - PUNCTUATION * (len(text) - ascii_only)
    scripts = text.encode("utf-16-le", "surrogatepass")[1::2].translate(_SCRIPTS)
    latin += ACCENTED * (scripts.count(b"a") - ascii_only) + PUNCTUATION * scripts.count(b"!")
    han = HAN * scripts.count(b"c") + KANA * scripts.count(b"k")
    return latin, HANGUL * scripts.count(b"h"), han, CYRILLIC * scripts.count(b"r") + OTHER * scripts.count(b"o")


def _count_ascii(text: bytes) -> float:
    kinds = text.replace(b"    ", b" ").translate(_ASCII)  # an indent is one token
    words = kinds.translate(_WORDS)
    return (
        WORD * len(words.split())
        + SEVEN * words.count(b"a" * 7)
        + TWENTY_FOUR * words.count(b"a" * 24)
        + DIGIT * kinds.count(b"0")
        + SPACE * kinds.count(b" ")
        + PUNCTUATION * kinds.count(b"!")
    )


class TokenEstimator:
    """Estimates requests, and learns from answers. Constant memory; safe to share between threads.

    Args:
        tokenizer: counts the tokens of a text, where the caller has a real one. What it cannot read is estimated.
    """

    def __init__(self, tokenizer: Callable[[str], int] | None = None) -> None:
        self._tokenizer = tokenizer
        self._models: dict[str, _Model] = {}
        self._lock = threading.Lock()

    def read(self, body: Mapping[str, Any]) -> RawEstimate:
        """Everything that later calls want to know of a body, so that it is counted only once."""
        fixed, texts = PER_REQUEST, []
        messages = body.get("messages")
        for message in messages if isinstance(messages, list) else ():
            if not isinstance(message, dict):
                continue
            fixed += PER_MESSAGE
            content = message.get("content")
            if type(content) is str and len(message) == 2 and "role" in message:  # as most are
                texts.append(content)
                continue
            fixed += PER_NAME if message.get("name") else 0
            for part in _parts(message):
                if isinstance(part, str):
                    texts.append(part)
                else:
                    fixed += part
        if not _FORMS.isdisjoint(body):
            texts += [_json(body[key]) for key in ("tools", "functions", "response_format") if body.get(key)]
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        choices = body.get("n")
        return RawEstimate(
            self._count("\n".join(texts)),
            fixed,
            limit if type(limit) is int and limit > 0 else None,
            choices if type(choices) is int and choices > 0 else 1,
        )

    def prompt(self, body: Mapping[str, Any] | RawEstimate, model: str) -> int:
        """Tokens of the prompt."""
        raw = self._raw(body)
        known = self._models.get(model)
        return raw.fixed + math.ceil(known.tokens(raw.scripts) if known else sum(raw.scripts))

    def completion(self, body: Mapping[str, Any] | RawEstimate, model: str, *, reserved: int | None = None) -> int:
        """Tokens of the answer: what nine in ten answers of the model took, at most what the body allows.

        Args:
            body: the request.
            model: whose answer it will be.
            reserved: for a provider that counts all an answer may have: what it counts where the body sets no limit.
        """
        raw = self._raw(body)
        known = self._models.get(model)
        usual = reserved if reserved is not None else known.usual_answer if known else COMPLETION
        if raw.max_tokens is None:
            return usual * raw.choices
        return (raw.max_tokens if reserved is not None else min(usual, raw.max_tokens)) * raw.choices

    def of_stream(self, body: Mapping[str, Any], model: str, text: str) -> Usage:
        """What a streamed answer took, where its provider did not say."""
        known = self._models.get(model)
        said = self._count(text)
        return Usage(self.prompt(body, model), math.ceil(known.tokens(said) if known else sum(said)), estimated=True)

    def estimate(self, body: Mapping[str, Any] | RawEstimate, model: str) -> int:
        """Tokens of prompt and answer."""
        raw = self._raw(body)
        return self.prompt(raw, model) + self.completion(raw, model)

    def learn(self, body: Mapping[str, Any] | RawEstimate, model: str, usage: Usage | None) -> None:
        """Compare with what the provider counted."""
        if usage is None:
            return
        known = self._models.get(model)
        if known is not None and not known.is_due():
            return
        raw = self._raw(body)
        with self._lock:
            known = self._models.get(model)
            if known is None:
                if len(self._models) >= MODELS:
                    self._models.pop(next(iter(self._models)))
                known = self._models[model] = _Model()
            known.learn(raw, usage)

    def _raw(self, body: Mapping[str, Any] | RawEstimate) -> RawEstimate:
        return body if isinstance(body, RawEstimate) else self.read(body)

    def _count(self, text: str) -> tuple[float, ...]:
        if self._tokenizer is not None:
            try:
                return float(self._tokenizer(text)), 0.0, 0.0, 0.0
            except Exception:  # a stranger's code, and some refuse texts that hold their special tokens
                logger.debug("the tokenizer failed", exc_info=True)
        return count(text)


class _Model:
    """What is known of one model's vocabulary and answers. Readers need no lock: records are replaced, not changed."""

    def __init__(self) -> None:
        self.usual_answer = COMPLETION
        self._factors: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
        self._seen: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)  # requests, each split among the groups it is made of
        self._answers: deque[int] = deque(maxlen=ANSWERS)
        self._turns = itertools.count()  # next() is atomic in CPython

    def is_due(self) -> bool:
        """Whether the next answer is one to learn from: each of the first ones, then one in so many."""
        turn = next(self._turns)
        return turn < FEW or turn % ONE_IN == 0

    def tokens(self, scripts: tuple[float, ...]) -> float:
        """Tokens of a text in this vocabulary."""
        return sum(map(operator.mul, self._factors, scripts), 0.0)

    def learn(self, raw: RawEstimate, usage: Usage) -> None:
        """Move the factors and the length of answers."""
        if usage.completion_tokens > 0:
            self._answers.append(-(-usage.completion_tokens // raw.choices))
            self.usual_answer = sorted(self._answers)[len(self._answers) * 9 // 10]
        expected, actual = self.tokens(raw.scripts), usage.prompt_tokens - raw.fixed
        if expected <= 0 or actual <= 0:
            return
        error = math.log(actual / expected)
        # by squares, as in a regression: the spaces and digits of a Korean text say little about English
        squares = [(factor * tokens) ** 2 for factor, tokens in zip(self._factors, raw.scripts, strict=True)]
        whole, factors, seen = sum(squares), list(self._factors), list(self._seen)
        for group, square in enumerate(squares):
            if square:  # else it says nothing about these scripts
                share = square / whole
                seen[group] += share
                moved = factors[group] * math.exp(share * _step(error, seen[group]))
                factors[group] = min(WIDE, max(NARROW, moved))
        self._factors, self._seen = tuple(factors), tuple(seen)


def _step(error: float, seen: float) -> float:
    """How far to go towards an observed error (exponential average of logarithms, each one cut like an outlier)."""
    weight = max(SLOWEST, 1 / (seen + 1))
    return weight * min(2 * weight, max(-2 * weight, error))


def _parts(message: Mapping[str, Any]) -> Iterator[str | int]:
    """Texts of a message, and tokens of what is no text."""
    for key in ("name", "refusal"):
        if isinstance(message.get(key), str):
            yield message[key]
    for key in ("tool_calls", "function_call"):
        if message.get(key):
            yield _json(message[key])
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            yield _part(part)


def _part(part: Mapping[str, Any]) -> str | int:
    text = part.get("text")
    if isinstance(text, str):
        return text
    if "image" not in str(part.get("type")):
        return 0
    image = part.get("image_url")
    detail = image.get("detail") if isinstance(image, dict) else part.get("detail")
    return SMALL_IMAGE if detail == "low" else IMAGE


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
