"""Axes: round ticks over a range, and where a value lies on the paper."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MOST_TICKS = 40


@dataclass(frozen=True)
class Scale:
    """A linear axis from ``low`` to ``high``, drawn from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Place on the paper; what lies outside is drawn at the border."""
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, n: int = 5, *, whole: bool = False) -> list[float]:
        """About ``n`` round values within the range; ``whole`` for counts and blocks."""
        step = _step((self.high - self.low) / n)
        if whole:
            step = max(1.0, float(round(step)))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step + 0.0 for i in range(first, min(last, first + _MOST_TICKS) + 1)]


def reach(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """A range with a margin around the values; never empty."""
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    if not math.isfinite(high - low):
        return -1e300, 1e300
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)) or span == 0:
        span = max(abs(low), 1e-6)
        return low - span / 2, high + span / 2
    return low - margin * span, high + margin * span


def label(value: float, step: float) -> str:
    """A tick's text with as many digits as the step needs."""
    if value != 0 and (abs(value) >= 1e6 or abs(step) < 1e-5):
        return f"{value:.3g}".replace("-", "−")
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    if step > 0 and abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1
    return f"{value:.{digits}f}".replace("-", "−")


def _step(rough: float) -> float:
    """The round step nearest above a rough one."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in _STEPS if step * power >= rough * (1 - 1e-9))
