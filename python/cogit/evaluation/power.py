"""How small a paired difference of shares a number of prompts can show (McNemar's test)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize, stats

from cogit.evaluation.statistics import differences
from cogit.evaluation.tests_of_difference import require_binary

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

ALPHA, POWER = 0.05, 0.8
_MAX_PAIRS = 100_000  # of the exact power, whose cost grows with it


def mcnemar_power(
    n: float, discordance: float, difference: float, *, alpha: float = ALPHA
) -> float:
    """Chance that McNemar's two-sided test finds a difference, in its own direction.

    n: independent pairs, not necessarily whole. discordance ψ: the share of pairs whose two
    outcomes differ. difference δ of the two shares, |δ| ≤ ψ. Normal approximation of Miettinen
    (1968) and Connor (1987): Φ((|δ|√n − z√ψ) / √(ψ − δ²)), z the 1 − alpha/2 quantile.
    """
    _require(n, discordance, difference, alpha)
    z = float(stats.norm.ppf(1 - alpha / 2))
    reach = abs(difference) * math.sqrt(n) - z * math.sqrt(discordance)
    spread = math.sqrt(max(0.0, discordance - difference**2))
    if spread == 0.0:
        return float(reach > 0)
    return float(stats.norm.cdf(reach / spread))


def mcnemar_exact_power(
    n: int, discordance: float, difference: float, *, alpha: float = ALPHA
) -> float:
    """The same for the exact test, which is the more careful one with few discordant pairs.

    The number of discordant pairs is Binomial(n, ψ), and given m of them those in favour are
    Binomial(m, (ψ + |δ|)/2ψ); summed over every m (Duffy 1984).
    """
    _require(n, discordance, difference, alpha)
    if n > _MAX_PAIRS:
        message = f"[power] expected at most {_MAX_PAIRS} pairs, got {n}; use mcnemar_power"
        raise ValueError(message)
    m = np.arange(n + 1)
    share = (discordance + abs(difference)) / (2 * discordance)
    # The test rejects where at most this many pairs go against: the lower tail is alpha/2 at most.
    against = stats.binom.ppf(alpha / 2, m, 0.5)
    against -= stats.binom.cdf(against, m, 0.5) > alpha / 2
    found = np.where(against >= 0, stats.binom.cdf(against, m, 1 - share), 0.0)
    return float(np.sum(stats.binom.pmf(m, n, discordance) * found))


def pairs_needed(
    discordance: float, difference: float, *, power: float = POWER, alpha: float = ALPHA
) -> int:
    """Pairs with which ``mcnemar_power`` reaches ``power``: (z√ψ + z_β√(ψ − δ²))² / δ², rounded up.

    ValueError for a difference of 0, which none can show.
    """
    _require(1, discordance, difference, alpha, power)
    if difference == 0.0:
        message = "[power] expected a difference other than 0, got 0"
        raise ValueError(message)
    z, z_power = (float(stats.norm.ppf(p)) for p in (1 - alpha / 2, power))
    spread = math.sqrt(max(0.0, discordance - difference**2))
    root = (z * math.sqrt(discordance) + z_power * spread) / difference
    # A root that rounding put just above a whole number needs no further pair.
    return max(1, math.ceil(root**2 * (1 - 1e-12)))


def detectable_difference(
    n: float, discordance: float, *, power: float = POWER, alpha: float = ALPHA
) -> float | None:
    """The smallest difference that n pairs show with ``power``; None where they show none at all.

    A difference beyond the discordance is taken to come with as much discordance as it needs.
    """
    _require(n, max(discordance, 1e-12), 0.0, alpha, power)

    def missing(difference: float) -> float:
        return mcnemar_power(n, max(discordance, difference), difference, alpha=alpha) - power

    if missing(1.0) < 0:
        return None
    return float(optimize.brentq(missing, 1e-9, 1.0, xtol=1e-12))


@dataclass(frozen=True)
class PowerReport:
    """What a set of prompts can show, from the discordance that was seen.

    effective_pairs: the independent pairs that the replicates of all prompts are worth.
    threshold_pp, detectable_pp: percentage points. n_for_80: prompts, with as many replicates.
    """

    n_prompts: int
    effective_pairs: float
    discordance: float
    threshold_pp: float
    power_at_threshold: float
    detectable_pp: float | None
    n_for_80: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def power_report(
    one: ArrayLike, other: ArrayLike, threshold: float = 0.1, *, alpha: float = ALPHA
) -> PowerReport:
    """Power from paired successes, 0 or 1, (prompt,) or (prompt, replicate, ...).

    threshold: the difference of shares that should be found, such as 0.1. Replicates of a prompt
    are alike, so they count as many pairs as their variance says: n (ψ − δ²) / var(prompt means),
    between one and all of a prompt's replicates (a design effect: Kish 1965; for McNemar's test
    Gönen 2004). Where nothing is discordant, every prompt counts as one pair.
    """
    if not 0 < threshold <= 1:
        message = f"[power] expected a threshold in (0, 1], got {threshold}"
        raise ValueError(message)
    gained = differences(require_binary(one, "power"), require_binary(other, "power"), "power")
    table = gained.reshape(len(gained), -1)  # (prompt, replicate)
    discordance = float(np.abs(table).mean())
    pairs = _effective_pairs(table, discordance)
    # A true difference as large as the threshold brings at least as much discordance.
    assumed = max(discordance, threshold)
    needed = pairs_needed(assumed, threshold, alpha=alpha)
    detectable = detectable_difference(pairs, discordance, alpha=alpha)
    return PowerReport(
        n_prompts=len(table),
        effective_pairs=pairs,
        discordance=discordance,
        threshold_pp=100 * threshold,
        power_at_threshold=mcnemar_power(pairs, assumed, threshold, alpha=alpha),
        detectable_pp=None if detectable is None else 100 * detectable,
        n_for_80=math.ceil(needed * len(table) / pairs),
    )


def _effective_pairs(table: NDArray[np.float64], discordance: float) -> float:
    n, replicates = table.shape
    single = discordance - float(table.mean()) ** 2
    between = float(table.mean(axis=1).var())
    if single <= 0 or replicates == 1:
        return float(n)
    if between * replicates <= single:
        return float(n * replicates)
    return float(max(n, n * single / between))


def _require(
    n: float, discordance: float, difference: float, alpha: float, power: float = POWER
) -> None:
    checks = {
        "n >= 1": (n, n >= 1 and math.isfinite(n)),
        "a discordance in (0, 1]": (discordance, 0 < discordance <= 1),
        "a difference within the discordance": (difference, abs(difference) <= discordance),
        "alpha in (0, 1)": (alpha, 0 < alpha < 1),
        "a power between alpha and 1": (power, alpha < power < 1),
    }
    for expected, (found, holds) in checks.items():
        if not holds:
            message = f"[power] expected {expected}, got {found}"
            raise ValueError(message)
