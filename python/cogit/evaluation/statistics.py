"""Intervals for paired comparisons: the prompt is the unit, and prompts are resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2000
SEEDS = (42, 43, 44, 45)
_CHUNK = 2**22  # numbers held at once while resampling


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


def bootstrap_mean(
    values: ArrayLike, *, seed: int | Sequence[int] = 42, resamples: int = RESAMPLES
) -> Interval:
    """Mean of per-prompt values with a percentile interval over resamples of prompts.

    values: (prompt,) or (prompt, replicate); replicates of a prompt (seeds, directions) stay
    together, since they are not independent (cluster bootstrap: Efron & Tibshirani 1993).
    seed: with several, each draws its own ``resamples``, and the interval is that of all of them
    pooled: it depends less on the luck of one seed, and costs as many times more.
    """
    prompts = prompt_means(values, "bootstrap")
    low, high = np.quantile(resample_means(prompts, seed, resamples), [0.025, 0.975])
    return Interval(float(prompts.mean()), float(low), float(high))


def bootstrap_difference(
    one: ArrayLike,
    other: ArrayLike,
    *,
    seed: int | Sequence[int] = SEEDS,
    resamples: int = RESAMPLES,
) -> Interval:
    """``one`` minus ``other`` on the same prompts and replicates, as ``bootstrap_mean``.

    Both (prompt,) or (prompt, replicate, ...), of one shape; ValueError otherwise.
    """
    return bootstrap_mean(differences(one, other, "bootstrap"), seed=seed, resamples=resamples)


def prompt_means(values: ArrayLike, where: str) -> NDArray[np.float64]:
    """The mean of each prompt over its replicates. (prompt,)

    values: (prompt,) or (prompt, replicate, ...). ValueError, naming ``where``, for values that
    are not finite and for none at all.
    """
    array = _finite(values, where)
    return np.asarray(array.reshape(len(array), -1).mean(axis=1), dtype=np.float64)


def differences(one: ArrayLike, other: ArrayLike, where: str) -> NDArray[np.float64]:
    """``one`` minus ``other``, paired value by value; ValueError for values that have no pair."""
    a, b = _finite(one, where), _finite(other, where)
    if a.shape != b.shape:
        message = (
            f"[{where}] expected two sets of values of one shape, paired by prompt and replicate, "
            f"got {a.shape} and {b.shape}"
        )
        raise ValueError(message)
    return np.asarray(a - b, dtype=np.float64)


def resample_means(
    prompts: NDArray[np.float64], seed: int | Sequence[int], resamples: int
) -> NDArray[np.float64]:
    """Means over resamples of prompts, those of several seeds one after another.

    (prompt,) gives (resample,), and (prompt, k) gives (resample, k).
    """
    seeds = [seed] if isinstance(seed, int | np.integer) else list(seed)
    if resamples < 1 or not seeds:
        message = f"[bootstrap] expected resamples and a seed, got {resamples} of seeds {seeds}"
        raise ValueError(message)
    rows = max(1, _CHUNK // prompts.size)
    means: list[NDArray[np.float64]] = []
    for each in seeds:
        rng = np.random.default_rng(each)
        for start in range(0, resamples, rows):
            shape = (min(rows, resamples - start), len(prompts))
            means.append(prompts[rng.integers(0, len(prompts), shape)].mean(axis=1))
    return np.concatenate(means)


def _finite(values: ArrayLike, where: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.size == 0 or not np.isfinite(array).all():
        message = f"[{where}] expected finite values of at least one prompt, got {array.shape}"
        raise ValueError(message)
    return array
