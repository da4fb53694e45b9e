"""Running mean and covariance: one pass, no rows kept, parts may be merged in any order.

Welford (1962) for one row at a time; here a batch at a time by the pairwise update of Chan, Golub
and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class RunningMoments:
    """Mean and covariance of rows seen so far, in float64.

    Memory: d² numbers, or d with ``diagonal``; an update needs a float64 copy of its batch.
    """

    def __init__(self, width: int, *, diagonal: bool = False) -> None:
        if width < 1:
            message = f"[statistics] expected a width of at least 1, got {width}"
            raise ValueError(message)
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(width)
        # Sum of (row − mean)(row − mean)ᵀ, or of the squares alone.
        self._scatter: NDArray[np.float64] = np.zeros(width if diagonal else (width, width))

    @classmethod
    def of(
        cls, count: int, mean: NDArray[np.float64], second: NDArray[np.float64]
    ) -> RunningMoments:
        """From a stored count, mean (d,) and covariance (d, d) or variance (d,), as read back.

        ValueError where the shapes do not fit.
        """
        if mean.ndim != 1 or second.shape not in (mean.shape, mean.shape * 2) or count < 2:
            message = (
                f"[statistics] expected a count of at least 2, a mean (d,) and a covariance (d, d) "
                f"or variance (d,), got {count}, {mean.shape} and {second.shape}"
            )
            raise ValueError(message)
        made = cls(len(mean), diagonal=second.ndim == 1)
        made.count, made.mean = count, mean.astype(np.float64)
        made._scatter = second.astype(np.float64) * (count - 1)
        return made

    @property
    def width(self) -> int:
        return len(self.mean)

    @property
    def diagonal(self) -> bool:
        return self._scatter.ndim == 1

    def update(self, rows: ArrayLike) -> None:
        """Take in rows (n, d), or one row (d,); ValueError for another width, NaN or infinity."""
        batch = np.atleast_2d(np.asarray(rows, np.float64))
        if batch.ndim != 2 or batch.shape[1] != self.width:
            message = f"[statistics] expected rows of width {self.width}, got {batch.shape}"
            raise ValueError(message)
        if not np.isfinite(batch).all():
            message = "[statistics] expected finite rows, got NaN or infinity"
            raise ValueError(message)
        if len(batch):
            mean = batch.mean(axis=0)
            centred = batch - mean
            scatter = (
                np.einsum("ij,ij->j", centred, centred) if self.diagonal else centred.T @ centred
            )
            self._add(len(batch), mean, scatter)

    def merge(self, other: RunningMoments) -> None:
        """Take in what another has seen; ValueError for another width or kind."""
        if self._scatter.shape != other._scatter.shape:
            message = (
                f"[statistics] expected moments of shape {self._scatter.shape}, "
                f"got {other._scatter.shape}"
            )
            raise ValueError(message)
        if other.count:
            self._add(other.count, other.mean, other._scatter)

    def covariance(self) -> NDArray[np.float64]:
        """(d, d) unbiased covariance, divisor n − 1; ValueError if only variances are kept."""
        if self.diagonal:
            message = "[statistics] expected full covariances, got variances alone"
            raise ValueError(message)
        return self._scatter / (self._at_least_two() - 1)

    def variance(self) -> NDArray[np.float64]:
        """(d,) unbiased variances."""
        scatter = self._scatter if self.diagonal else np.diagonal(self._scatter)
        return np.asarray(scatter / (self._at_least_two() - 1))

    def _add(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        total = self.count + count
        shift = mean - self.mean
        weight = self.count * (count / total)
        if self.diagonal:
            self._scatter += scatter + weight * shift**2
        else:
            self._scatter += scatter
            self._scatter += np.outer(weight * shift, shift)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def _at_least_two(self) -> int:
        if self.count < 2:
            message = f"[statistics] expected at least 2 rows, got {self.count}"
            raise ValueError(message)
        return self.count
