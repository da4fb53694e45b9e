"""Numbers as people read them: one form for each kind, in every output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cogit.reporting.schema_parts import Interval, Slope

MISSING = "–"
_MINUS = "−"
Form = Callable[[float], str]


@dataclass(frozen=True)
class Spread:
    """Mean and range of several values; ``values`` in their order."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """None where nothing was measured; unmeasured ones are left out."""
        found = tuple(value for value in values if value is not None)
        if not found:
            return None
        return cls(sum(found) / len(found), min(found), max(found), found)


def signed(value: float, digits: int = 1) -> str:
    """``+39.5``, ``−3.0``; ``0.0`` has no sign."""
    text = f"{value:+.{digits}f}"
    if float(text) == 0:
        return text[1:]
    return text.replace("-", _MINUS)


def plain(value: float, digits: int = 1) -> str:
    text = f"{value:.{digits}f}"
    return (text[1:] if float(text) == 0 and text[0] == "-" else text).replace("-", _MINUS)


def points(value: float) -> str:
    """A difference in percentage points."""
    return signed(value)


def percent(value: float) -> str:
    """A share as per cent."""
    return f"{plain(100 * value)} %"


def ratio(value: float) -> str:
    return plain(value, 3)


def divergence(value: float) -> str:
    """Nats per token: three decimals, or three digits where that would be 0."""
    if value == 0:
        return "0"
    return plain(value, 3) if abs(value) >= 0.001 else compact(value)


def compact(value: float) -> str:
    """Any number in four significant digits."""
    return f"{value:.4g}".replace("-", _MINUS)


def probability(value: float) -> str:
    """A p-value; never 0."""
    if value < 1e-4:
        return "< 0.0001"
    return f"{value:.4f}" if value < 0.001 else f"{value:.3f}"


def shown(value: float | None, form: Form) -> str:
    """The number, or a dash where it was not measured."""
    return MISSING if value is None else form(value)


def interval(value: Interval | Slope | None) -> str:
    """``+39.5 [36.5, 42.2]``; ``0 exactly`` where nothing moved at all."""
    if value is None:
        return MISSING
    if value.mean == value.low == value.high == 0:
        return "0 exactly"
    return f"{signed(value.mean)} {bounds(value.low, value.high)}"


def bounds(low: float, high: float, form: Form = plain) -> str:
    """``[36.5, 42.2]``."""
    return f"[{form(low)}, {form(high)}]"


def spread(value: Spread | None, form: Form) -> str:
    """``−2.0 (−9.0 … +5.0)``; a unit stands at the mean alone."""
    if value is None:
        return MISSING
    if value.low == value.high:
        return form(value.mean)
    low, high = (form(end).removesuffix(" %") for end in (value.low, value.high))
    return f"{form(value.mean)} ({low} … {high})"


def blocks(layers: Sequence[int]) -> str:
    """``blocks 2, 3``."""
    return f"block{'s' if len(layers) != 1 else ''} {', '.join(map(str, layers)) or 'none'}"
