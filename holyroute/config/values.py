"""Checks of one value each: a check returns the value in its final type or raises `WrongValueError`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

from holyroute.config.problems import WrongValueError, unknown

Check = Callable[[Any], Any]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A run this long of lower case mixed with digits or capitals is a key that happens to be spelt like a name: gsk_…, hex.
_LIKE_A_KEY = re.compile(r"(?=[A-Za-z0-9]*[a-z])(?=[A-Za-z0-9]*[A-Z0-9])[A-Za-z0-9]{24}")


def text(value: Any) -> str:
    """A string with something in it, fit for one line of a log."""
    if not isinstance(value, str):
        raise WrongValueError("expected a string, got {}", value)
    if not value or value != value.strip() or not value.isprintable():
        raise WrongValueError("expected a non-empty string without control characters or outer spaces, got {}", value)
    return value


def text_or_empty(value: Any) -> str:
    """A string, or nothing."""
    return "" if value == "" else text(value)


def route_part(value: Any) -> str:
    """A task or priority, which callers write as `route:task/priority`."""
    if "/" in text(value):
        raise WrongValueError("expected a name without a slash", value)
    return str(value)


def failover_source(value: Any) -> str:
    """Where failover starts: a host with its port where it has one, a provider or a model."""
    if "://" in text(value):
        raise WrongValueError('expected a host such as "api.openai.com", a provider or a model, not a URL', value)
    return str(value)


def flag(value: Any) -> bool:
    """True or false; 1 and "yes" are neither."""
    if not isinstance(value, bool):
        raise WrongValueError("expected true or false, got {}", value)
    return value


def count(value: Any) -> int:
    """A whole number above zero."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongValueError("expected an integer, got {}", value)
    if value < 1:
        raise WrongValueError("expected an integer greater than 0, got {}", value)
    return value


def number(value: Any) -> float:
    """A finite number, of seconds for instance."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise WrongValueError("expected a number, got {}", value)
    try:
        result = float(value)
    except (OverflowError, ValueError):
        result = math.inf
    if not math.isfinite(result):
        raise WrongValueError("expected a finite number, got {}", value)
    return result


def positive(value: Any) -> float:
    """A number above zero."""
    result = number(value)
    if result <= 0:
        raise WrongValueError("expected a number greater than 0, got {}", value)
    return result


def not_negative(value: Any) -> float:
    """A number from zero up."""
    result = number(value)
    if result < 0:
        raise WrongValueError("expected a number of 0 or more, got {}", value)
    return result


def share(value: Any) -> float:
    """A number above zero, at most one."""
    result = positive(value)
    if result > 1:
        raise WrongValueError("expected a number greater than 0 and at most 1, got {}", value)
    return result


def part(value: Any) -> float:
    """A number above zero and below one."""
    result = positive(value)
    if result >= 1:
        raise WrongValueError("expected a number greater than 0 and less than 1, got {}", value)
    return result


def money(value: Any) -> Decimal:
    """An exact amount of 0 or more; a float counts as the digits it is printed with."""
    try:
        amount = Decimal(str(value))  # what is no number, True for one, has no digits either
    except (InvalidOperation, ValueError):
        raise WrongValueError("expected a number, got {}", value) from None
    if not amount.is_finite():
        raise WrongValueError("expected a finite number, got {}", value)
    if amount < 0:
        raise WrongValueError("expected a number of 0 or more, got {}", value)
    return amount


def one_of(kind: str, known: Iterable[str]) -> Check:
    """A check for one of some names: `one_of("model", ["gpt-4.1"])`."""
    names = list(known)

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise WrongValueError("expected a string, got {}", value)
        if value not in names:
            raise WrongValueError(unknown(f"{kind} {{}}", value, names), value)
        return value

    return check


def listed(check: Check, *, empty: bool = True) -> Check:
    """A check for a list without repetition, each item of which passes a check; the result is a tuple."""

    def check_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise WrongValueError("expected a list, got {}", value)
        if not value and not empty:
            raise WrongValueError("expected at least one name, got an empty list", value)
        items: list[Any] = []
        for position, item in enumerate(value):
            try:
                checked = check(item)
            except WrongValueError as error:
                raise WrongValueError(error.message, error.value, (position, *error.at)) from None
            if checked in items:
                raise WrongValueError("{} stands in the list twice", item, (position,))
            items.append(checked)
        return tuple(items)

    return check_all


def table(check_key: Check, check: Check) -> Check:
    """A check for a table whose keys and values each pass a check."""

    def check_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise WrongValueError("expected a table, got {}", value)
        found = {}
        for key, item in value.items():
            try:
                found[check_key(key)] = check(item)
            except WrongValueError as error:
                raise WrongValueError(error.message, error.value, (str(key), *error.at)) from None
        return found

    return check_all


def variables(value: Any) -> tuple[str, ...]:
    """The name of an environment variable, or a list of them."""
    return (variable_name(value),) if isinstance(value, str) else tuple(listed(variable_name)(value))


def variable_name(value: Any) -> str:
    """The name of an environment variable, and nothing that looks like the key it should hold."""
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value) or _LIKE_A_KEY.search(value):
        raise WrongValueError("expected the name of an environment variable, not the key", value)
    return value


def base_url(value: Any) -> str:
    """Scheme, host and path prefix of an API, without a slash at the end."""
    split = _split(text(value))
    if split.scheme not in {"http", "https"} or not split.hostname or " " in value:
        raise WrongValueError('expected a URL such as "https://host/v1", got {}', value)
    if "@" in split.netloc:
        raise WrongValueError("expected a URL without user and password: name the key's variable in api_key_env", value)
    if "?" in value or "#" in value:
        raise WrongValueError("expected a URL without a query or fragment", value)
    if split.path.rstrip("/").endswith("/chat/completions"):
        raise WrongValueError("expected the base URL, without /chat/completions, got {}", value)
    return str(value).rstrip("/")


def proxies(value: Any) -> dict[str, str]:
    """Proxies as requests takes them: scheme, or scheme and host, to URL."""
    if not isinstance(value, Mapping):
        raise WrongValueError("expected a table, got {}", value)
    return {text(scheme): _proxy(str(scheme), url) for scheme, url in value.items()}


def verify(value: Any) -> bool | str:
    """Whether to check certificates, or the path of a CA bundle."""
    if not isinstance(value, bool | str):
        raise WrongValueError("expected true, false or the path of a CA bundle, got {}", value)
    return value if isinstance(value, bool) else text(value)


def certificate(value: Any) -> str | tuple[str, str]:
    """The path of a client certificate, or of certificate and key."""
    if isinstance(value, str):
        return text(value)
    paths = listed(text)(value)
    if len(paths) != 2:
        raise WrongValueError("expected a path, or a list of two: certificate and key, got {}", value)
    return paths[0], paths[1]


def _split(url: str) -> Any:
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError:
        raise WrongValueError('expected a URL such as "https://host/v1", got {}', url) from None
    return split


def _proxy(scheme: str, url: Any) -> str:
    try:
        split = _split(text(url))
    except WrongValueError as error:
        raise WrongValueError(error.message, error.value, (scheme,)) from None
    if "@" in split.netloc:
        message = "expected a URL without user and password: the file holds no secrets, HTTPS_PROXY may"
        raise WrongValueError(message, url, (scheme,))
    return str(url)
