"""The interval of a share: one formula for flips, gates and every other count."""

from __future__ import annotations

import math

_Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % of a share in [0, 1] over n independent units (Wilson 1927).

    ValueError for another share, and without a unit.
    """
    if n < 1 or not 0 <= share <= 1:
        message = f"[wilson] expected a share in [0, 1] of at least one unit, got {share} of {n}"
        raise ValueError(message)
    weight = _Z**2 / n
    centre = share + weight / 2
    reach = _Z * math.sqrt(share * (1 - share) / n + weight / (4 * n))
    low, high = (centre - reach) / (1 + weight), (centre + reach) / (1 + weight)
    # Rounding must not put a share of 0 or 1 outside its own interval.
    return min(share, max(0.0, low)), max(share, min(1.0, high))
