"""Weights for several directions, from their eigenvalues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

WeightMethod = Literal["proportional", "softmax", "rank"]
WEIGHT_METHODS: tuple[WeightMethod, ...] = get_args(WeightMethod)


def eigenvalue_weights(
    eigenvalues: ArrayLike, method: WeightMethod = "proportional", *, temperature: float = 1.0
) -> NDArray[np.float64]:
    """How much each of m directions counts: weights (m,), none negative, of sum 1.

    eigenvalues: (m,) in any order and unit. Larger ones never count less.

    proportional: wᵢ = max(λᵢ, 0) / Σ max(λ, 0), the explained-variance ratio (Jolliffe 2002). A
    contrast may have negative eigenvalues, which count nothing.
    softmax: wᵢ ∝ exp(zᵢ / T), z the eigenvalues less their mean over their standard deviation and
    T the temperature (Hinton et al. 2015): T → 0 takes the largest alone, T → ∞ is uniform. Raw
    eigenvalues, of any unit, would saturate it; z does not know the unit, and since no z exceeds
    √(m - 1), no weight exceeds 1 / (1 + (m - 1) exp(-m / (T √(m - 1)))).
    rank: wᵢ ∝ 1 / rᵢ, r = 1 for the largest (rank reciprocals, Stillwell et al. 1981); equal
    eigenvalues share their mean rank.

    Raises ValueError for another method, values that are not finite, a temperature of zero or less
    or one given to another method than softmax, and proportional weights of no positive eigenvalue.
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        message = f"[weights] expected finite eigenvalues (m,), got shape {values.shape}"
        raise ValueError(message)
    if method not in WEIGHT_METHODS:
        message = f"[weights] expected a method among {', '.join(WEIGHT_METHODS)}, got {method!r}"
        raise ValueError(message)
    if not (temperature > 0 and np.isfinite(temperature)):
        message = f"[weights] expected a finite temperature above zero, got {temperature}"
        raise ValueError(message)
    if method != "softmax" and temperature != 1.0:
        message = f"[weights] expected a temperature with softmax only, got one with {method!r}"
        raise ValueError(message)
    if method == "proportional":
        raw = np.maximum(values, 0.0)
        if not raw.any():
            message = (
                f"[weights] expected an eigenvalue above zero, got {values.max():.3g} at most; "
                f"use softmax or rank, or a smaller alpha"
            )
            raise ValueError(message)
        raw = raw / raw.max()
    elif method == "softmax":
        raw = _softmax_terms(values, temperature)
    else:
        _, inverse, counts = np.unique(-values, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        raw = 1.0 / ((last - (counts - 1) / 2)[inverse])
    return np.asarray(raw / raw.sum())


def _softmax_terms(values: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    scaled = values / max(float(np.abs(values).max()), 1e-300)  # squares stay finite
    spread = float(scaled.std())
    # Equal eigenvalues differ by rounding at most: z would blow it up.
    z = (scaled - scaled.mean()) / spread if spread > 1e-14 else np.zeros_like(scaled)
    return np.asarray(np.exp((z - z.max()) / temperature))
