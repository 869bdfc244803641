"""JSON, by orjson where it is installed (`pip install 'holyroute[fast]'`), else by the standard library.

Both give the same results, but that orjson reads whole numbers beyond 64 bits as floats; what else it does not know is
left to the standard library.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

try:
    import orjson
except ImportError:  # the usual case
    orjson = None  # type: ignore[assignment]
else:  # what the standard library refuses is refused here too
    _PLAIN = orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    _SORTED = _PLAIN | orjson.OPT_SORT_KEYS


def loads(data: str | bytes, *, strict: bool = False) -> Any:
    """Decode; `strict` takes no NaN and no infinity, which the standard library lets pass.

    Raises:
        ValueError: it is no JSON; RecursionError if it is nested too deeply.
    """
    if orjson is not None:
        try:
            return orjson.loads(data)
        except ValueError:  # NaN, another encoding than UTF-8
            pass
    return json.loads(data, parse_constant=_refuse) if strict else json.loads(data)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def dumps(value: Any, *, sorted_keys: bool = False) -> bytes:
    """Encode as UTF-8; with `sorted_keys` dicts that are equal give the same bytes.

    Raises:
        ValueError: NaN or infinity, which are no JSON.
        TypeError: a value that JSON has no form for.
    """
    if orjson is not None:
        try:
            data = orjson.dumps(value, option=_SORTED if sorted_keys else _PLAIN)
        except TypeError:  # a number beyond 64 bits, half a surrogate pair
            return _dumps(value, sorted_keys=sorted_keys)
        if b"null" not in data:  # orjson writes null for NaN
            return data
    return _dumps(value, sorted_keys=sorted_keys)


def _dumps(value: Any, *, sorted_keys: bool = False) -> bytes:
    form: dict[str, Any] = {"allow_nan": False, "sort_keys": sorted_keys}
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), **form).encode()
    except UnicodeEncodeError:  # half a surrogate pair: only an escape can carry it
        return json.dumps(value, **form).encode()
