"""Reads untrusted JSON: finite numbers, limited size, depth and number of values, from regular files only."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from medvar_engine.errors import MedvarError
from medvar_engine.storage import check_regular

MAX_BYTES = 64 * 2**20
MAX_CONTAINERS = 500_000
"""Largest number of lists and objects in a text. Each needs about 60 bytes of memory, but only two characters."""

MAX_NUMBERS = 6_000_000
"""Largest number of values of a text. In a list, a number needs 40 bytes of memory, but two characters."""

_FEW = 1_000_000  # a text may always hold so many values, and so many texts
_NUMBER_BYTES, _TEXT_BYTES = 4, 32  # beyond, a value and a text have so many bytes on average
_MAX_DEPTH = 100


def loads(text: str | bytes, *, most: int = MAX_BYTES) -> Any:
    """The value of a JSON text.

    Raises `ValueError` for invalid JSON, NaN, infinity, numbers beyond float64, more than ``most`` bytes, more than
    `MAX_CONTAINERS` lists and objects or `MAX_NUMBERS` values, far more texts or values than a text of its size has, or
    values that are nested too deeply.
    """
    if len(text) > most:
        raise ValueError(f"it has {len(text)} bytes, and at most {most} are read")
    content = text.decode("utf-8") if isinstance(text, bytes) else text
    del text  # so that it is not in memory twice
    check_counts(content)
    try:
        value = json.loads(content, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    if _opening(content) > _MAX_DEPTH and _too_deep(value):
        raise ValueError(f"its values are nested more than {_MAX_DEPTH} deep")
    return value


def check_counts(content: str) -> None:
    """Raise `ValueError` if a JSON text holds more lists, objects, values or texts than `loads` reads."""
    for what, count, limit in (
        ("lists and objects", _opening(content), MAX_CONTAINERS),
        ("values", content.count(","), min(MAX_NUMBERS, _FEW + len(content) // _NUMBER_BYTES)),
        ("texts", content.count('"') // 2, _FEW + len(content) // _TEXT_BYTES),
    ):
        if count > limit:
            raise ValueError(f"it holds {count} {what}, and at most {limit} are read")


def read(path: Path, *, most: int = MAX_BYTES) -> Any:
    """The value of a JSON file, see `loads`. Raises `OSError` when it cannot be read."""
    check_regular(path)
    with path.open("rb") as file:
        return loads(file.read(most + 1), most=most)


def read_object(path: Path, what: str, hint: str, *, most: int = MAX_BYTES) -> dict[str, Any]:
    """The named values in a JSON file of at most ``most`` bytes.

    Raises `MedvarError` that calls the file ``what``, such as "a manifest", and ends with ``hint``: what to do.
    """
    try:
        if path.stat().st_size > most:
            raise MedvarError(f"{path} is too large for {what}. {hint}")
        values = read(path, most=most)
    except OSError as error:
        raise MedvarError(f"Cannot read {path}: {error.strerror or error}. {hint}") from error
    except (ValueError, RecursionError) as error:
        raise MedvarError(f"{path} is not JSON, or is incomplete: {error}. {hint}") from error
    if not isinstance(values, dict):
        raise MedvarError(f"{path} has no named fields, so it is not {what}. {hint}")
    return values


def _opening(content: str) -> int:
    return content.count("[") + content.count("{")


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"it contains {name}, which is not a JSON number")


def _whole(text: str) -> int:
    value = int(text)
    _finite(text)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"it contains the number {text[:20]}, which is too large")
    return value
