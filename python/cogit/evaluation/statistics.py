"""Intervals for paired comparisons: the prompt is the unit, and prompts are resampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean with its percentile bootstrap interval at 95 %."""

    mean: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        return Interval(self.mean * factor, self.low * factor, self.high * factor)

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


def bootstrap_mean(values: ArrayLike, *, seed: int = 42) -> Interval:
    """Mean of per-prompt values with a percentile interval over 2000 resamples of prompts.

    values: (prompt,) or (prompt, replicate); replicates of a prompt (seeds, directions) stay
    together, since they are not independent (cluster bootstrap: Efron & Tibshirani 1993).
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.size == 0 or not np.isfinite(array).all():
        message = f"[bootstrap] expected finite values of at least one prompt, got {array.shape}"
        raise ValueError(message)
    prompts = array.reshape(len(array), -1).mean(axis=1)
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(prompts), (RESAMPLES, len(prompts)))
    low, high = np.quantile(prompts[draws].mean(axis=1), [0.025, 0.975])
    return Interval(float(prompts.mean()), float(low), float(high))
