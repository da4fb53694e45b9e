"""Dose-response: how steeply an effect grows with the strength, and whether it always grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats

from cogit.evaluation.statistics import (
    RESAMPLES,
    SEEDS,
    Interval,
    bootstrap_mean,
    resample_means,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Scale = Literal["linear", "log10"]
_PER = {"linear": "unit of strength", "log10": "decade of strength"}


@dataclass(frozen=True)
class DoseResponse:
    """Slope of the effect over the dose with its interval, and Spearman's rank correlation.

    spearman: 1 where the mean effect never falls from one dose to the next; None where it is the
    same at every dose. spearman_interval: over the same resamples of prompts.
    """

    slope: Interval
    unit: str
    spearman: float | None
    spearman_interval: Interval | None

    def to_json(self) -> dict[str, Any]:
        interval = self.spearman_interval
        return {
            "slope": {**asdict(self.slope), "unit": self.unit},
            "spearman": self.spearman,
            "spearman_ci": None if interval is None else [interval.low, interval.high],
        }


def dose_response(
    doses: ArrayLike,
    values: ArrayLike,
    *,
    scale: Scale = "linear",
    unit: str = "points",
    seed: int | Sequence[int] = SEEDS,
    resamples: int = RESAMPLES,
) -> DoseResponse:
    """Least squares slope and rank correlation over doses, prompts resampled as a whole.

    doses: (dose,), two different ones at least. values: (prompt, dose) or (prompt, dose,
    replicate, ...) in ``unit``. scale ``log10`` takes the slope per tenfold dose, and wants doses
    above 0. The slope of the mean curve is the mean of the prompts' own slopes, as all share the
    doses; so its interval is a clustered bootstrap of these. A curve that saturates has a slope
    that depends on the doses chosen: compare arms over the same ones.
    """
    x, table = _checked(doses, values, scale)
    centred = x - x.mean()
    slopes = table @ centred / (centred @ centred)
    rho = _spearman(x, table.mean(axis=0)[None])[0]
    known = not np.isnan(rho)
    return DoseResponse(
        slope=bootstrap_mean(slopes, seed=seed, resamples=resamples),
        unit=f"{unit} per {_PER[scale]}",
        spearman=float(rho) if known else None,
        spearman_interval=_rank_interval(x, table, float(rho), seed, resamples) if known else None,
    )


def _rank_interval(
    x: NDArray[np.float64],
    table: NDArray[np.float64],
    rho: float,
    seed: int | Sequence[int],
    resamples: int,
) -> Interval:
    found = _spearman(x, resample_means(table, seed, resamples))
    # A resample whose curve is flat shows no order at all.
    low, high = np.quantile(np.nan_to_num(found, nan=0.0), [0.025, 0.975])
    return Interval(rho, float(low), float(high))


def _spearman(x: NDArray[np.float64], curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank correlation of (curve, dose) with the doses, NaN for flat curves. (curve,)"""
    # Means of the same outcomes differ by rounding; that is no order.
    size = np.abs(curves).max(axis=1, keepdims=True)
    ranks = stats.rankdata(np.round(curves / np.where(size == 0, 1.0, size), 9), axis=1)
    a = stats.rankdata(x) - (len(x) + 1) / 2
    b = ranks - (len(x) + 1) / 2
    norms = np.sqrt((a @ a) * (b * b).sum(axis=1))
    flat = norms == 0
    rho = np.clip((b @ a) / np.where(flat, 1.0, norms), -1.0, 1.0)
    return np.asarray(np.where(flat, np.nan, rho), dtype=np.float64)


def _checked(
    doses: ArrayLike, values: ArrayLike, scale: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Doses on their scale (dose,), and the values of each prompt (prompt, dose)."""
    x = np.asarray(doses, dtype=np.float64)
    table = np.asarray(values, dtype=np.float64)
    if scale not in _PER:
        message = f"[dose] expected scale linear or log10, got {scale!r}"
        raise ValueError(message)
    if x.ndim != 1 or not np.isfinite(x).all() or len(np.unique(x)) < 2:
        message = f"[dose] expected at least two different finite doses, got {x.tolist()}"
        raise ValueError(message)
    if table.ndim < 2 or table.shape[1] != len(x) or table.size == 0:
        message = f"[dose] expected (prompt, dose) values for {len(x)} doses, got {table.shape}"
        raise ValueError(message)
    if not np.isfinite(table).all():
        message = "[dose] expected finite values, got others; leave doses out that broke the text"
        raise ValueError(message)
    if scale == "log10":
        if (x <= 0).any():
            message = f"[dose] expected doses above 0 on a log scale, got {x.min()}"
            raise ValueError(message)
        x = np.log10(x)
    return x, table.reshape(*table.shape[:2], -1).mean(axis=2)
