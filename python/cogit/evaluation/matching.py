"""Bringing a control to the cost of the arm it is compared with, by its strength alone.

A control that is weaker than what it controls proves nothing. KL on neutral texts grows about with
the square of the strength, displacement about linearly; a search in the logarithms of both finds
the strength in two to four measurements.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cogit.intervention import Intervention
from cogit.operators import Composed, Diagonal, Operator, Rotation, Unitary

TOLERANCE = 0.05
_MOST = 12
_STEP = 8.0
_FARTHEST = 1e4


@dataclass(frozen=True)
class Matched:
    """A strength that was set by a cost.

    by: kl (nats per token on neutral calibration texts) or displacement. target: the learned arm's.
    exact: reached within 5 %. factor: what the strengths were multiplied by. evaluations: how often
    the cost was measured.
    """

    by: str
    target: float
    reached: float
    exact: bool
    factor: float
    evaluations: int

    def to_json(self) -> dict[str, Any]:
        reached = self.reached if math.isfinite(self.reached) else None
        return {"by": self.by, "target": self.target, "reached": reached, "exact": self.exact}


def find_factor(
    cost: Callable[[float], float],
    target: float,
    by: str,
    *,
    limit: float = _FARTHEST,
    power: float = 2.0,
    start: float = 1.0,
    tolerance: float = TOLERANCE,
) -> Matched:
    """The factor at which a growing cost is ``target``.

    cost: of the strengths times a factor; not finite where steering breaks the model, which counts
    as too much. limit: the largest factor, such as the half turn of an angle. power: of the growth
    near zero. Where the target is out of reach the nearest cost that was seen is kept, as inexact.
    """
    if not (math.isfinite(target) and target >= 0):
        message = f"[matching] expected a finite target of zero or more, got {target}"
        raise ValueError(message)
    seen: dict[float, float] = {}
    low, high = 0.0, math.inf
    factor = min(start, limit)
    while len(seen) < _MOST:
        value = cost(factor)
        seen[factor] = value if math.isfinite(value) else math.inf
        if target == 0.0 or abs(seen[factor] - target) <= tolerance * target:
            break
        if seen[factor] < target:
            low = factor
        else:
            high = factor
        following = _next(seen, factor, target, power, (low, high), limit)
        if following in seen or following <= 0:
            break
        factor = following
    best = min(seen, key=lambda one: (_distance(seen[one], target), one))
    exact = abs(seen[best] - target) <= tolerance * target
    return Matched(by, target, seen[best], exact, best, len(seen))


def _next(
    seen: Mapping[float, float],
    factor: float,
    target: float,
    power: float,
    bracket: tuple[float, float],
    limit: float,
) -> float:
    low, high = bracket
    value = seen[factor]
    if low > 0 and math.isfinite(high):
        # Between a cost below and one above: a straight line in the logarithms, kept off the ends.
        below, above = seen[low], seen[high]
        share = 0.5
        if below > 0 and math.isfinite(above) and above > below:
            share = min(0.9, max(0.1, math.log(target / below) / math.log(above / below)))
        return float(low * (high / low) ** share)
    grown = _STEP
    if value > 0:
        grown = (target / value) ** (1.0 / power) if math.isfinite(value) else 1.0 / _STEP
    step = min(_STEP, max(1.0 / _STEP, grown))
    return float(min(limit, factor * step))


def _distance(value: float, target: float) -> float:
    if not math.isfinite(value):
        return math.inf
    return abs(math.log(max(value, 1e-300) / target)) if target > 0 else value


def turn_limit(towards: Mapping[int, Intervention]) -> float:
    """The factor at which the largest angle of any operator is 180°, beyond which dials wrap.

    A large number where nothing turns.
    """
    largest = max(
        (
            abs(one.strength) * _largest_angle(operator)
            for one in towards.values()
            for operator in one.operators.values()
        ),
        default=0.0,
    )
    return _FARTHEST if largest == 0.0 else min(_FARTHEST, math.pi / largest)


def _largest_angle(operator: Operator) -> float:
    """Radians at strength 1; 0 for an operator whose strength is no angle."""
    if isinstance(operator, Unitary):
        return float(np.abs(np.angle(np.linalg.eigvals(operator.matrix))).max())
    if isinstance(operator, Rotation):
        return abs(math.radians(operator.angle))
    if isinstance(operator, Diagonal):
        return float(np.abs(operator.phases).max())
    if isinstance(operator, Composed):
        parts = zip(operator.parts, operator.strengths, strict=True)
        return max(abs(factor) * _largest_angle(part) for part, factor in parts)
    return 0.0
