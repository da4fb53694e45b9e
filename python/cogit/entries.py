"""Entries of JSON that came from a file: of the type that was asked for, or refused."""

from __future__ import annotations

import math
from typing import Any, TypeVar

T = TypeVar("T")


def entry(data: Any, key: str | int, kind: type[T]) -> T:
    """``data[key]``, an int, finite float, str, bool, list or dict; a whole number may be a float.

    Raises KeyError or IndexError where it is missing, TypeError or ValueError where it is another.
    """
    value = data[key]
    if kind is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not kind:
        message = f"expected {key} of type {kind.__name__}, got {str(value)[:60]!r}"
        raise TypeError(message)
    if isinstance(value, float) and not math.isfinite(value):
        message = f"expected a finite {key}, got {value}"
        raise ValueError(message)
    return value
