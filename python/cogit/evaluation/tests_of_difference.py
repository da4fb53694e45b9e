"""p-values of paired differences: prompts are the units, whatever is repeated within them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

from cogit.evaluation.statistics import differences as paired
from cogit.evaluation.statistics import prompt_means

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Alternative = Literal["two-sided", "greater", "less"]
PERMUTATIONS = 9999
_CHUNK = 2**22  # numbers held at once while permuting
_ROUNDING = 1e-9  # differences below this share of an effect are ties


def sign_flip_p(
    differences: ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    permutations: int = PERMUTATIONS,
    seed: int = 42,
) -> float:
    """p of a mean paired difference under random signs of whole prompts (Fisher 1935).

    differences: (prompt,) or (prompt, replicate, ...); all replicates of a prompt flip together.
    alternative: ``greater`` asks whether the mean is above 0. Where there are no more than
    ``permutations`` patterns of signs, all are counted and p is exact; otherwise p is
    (1 + b) / (1 + permutations), never 0 (Phipson & Smyth 2010).
    """
    _require_alternative(alternative)
    if permutations < 1:
        message = f"[permutation] expected at least one permutation, got {permutations}"
        raise ValueError(message)
    prompts = prompt_means(differences, "permutation")
    if len(prompts) == 1:
        # SciPy wants two. One prompt has two patterns, and its own is among them.
        towards = {"greater": prompts[0] > 0, "less": prompts[0] < 0, "two-sided": False}
        return 0.5 if towards[alternative] else 1.0
    result = stats.permutation_test(
        (prompts,),
        lambda values, axis: values.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=max(1, _CHUNK // len(prompts)),
        alternative=alternative,
        random_state=seed,
    )
    return float(result.pvalue)


def rank_p(effect: float, controls: ArrayLike, *, alternative: Alternative = "greater") -> float:
    """p of one effect by its rank among draws of a control: (1 + b) / (1 + n).

    controls: (draw,). b counts draws at least as large (``greater``), as small (``less``), or,
    ``two-sided``, twice the rarer of both. With 20 draws no p is below 1/21: more draws, or a test
    over prompts, are needed for a smaller one. Ties count against the effect.
    """
    _require_alternative(alternative)
    draws = np.asarray(controls, dtype=np.float64)
    if draws.ndim != 1 or draws.size == 0 or not np.isfinite([effect, *draws.ravel()]).all():
        message = f"[rank] expected a finite effect and control draws, got {effect}, {draws.shape}"
        raise ValueError(message)
    slack = _ROUNDING * max(abs(effect), float(np.abs(draws).max()))
    above = (1 + int((draws >= effect - slack).sum())) / (1 + len(draws))
    below = (1 + int((draws <= effect + slack).sum())) / (1 + len(draws))
    two_sided = min(1.0, 2 * min(above, below))
    return {"greater": above, "less": below, "two-sided": two_sided}[alternative]


def holm(pvalues: Mapping[str, float]) -> dict[str, float]:
    """p-values of a family, adjusted so that any false finding is as rare as each (Holm 1979).

    The smallest is multiplied by the size of the family, the next by one less, and so on; an
    adjusted p is never below that of a smaller one, nor above 1. The order of names is kept.
    """
    for name, p in pvalues.items():
        if not 0 <= p <= 1:
            message = f"[holm] expected p-values in [0, 1], got {p} for {name!r}"
            raise ValueError(message)
    adjusted: dict[str, float] = {}
    floor = 0.0
    for rank, name in enumerate(sorted(pvalues, key=lambda key: pvalues[key])):
        floor = max(floor, min(1.0, (len(pvalues) - rank) * pvalues[name]))
        adjusted[name] = floor
    return {name: adjusted[name] for name in pvalues}


@dataclass(frozen=True)
class McNemar:
    """Prompts that one arm answers better than the other, worse, and alike; the exact p."""

    better: int
    worse: int
    alike: int
    p: float


def mcnemar(one: ArrayLike, other: ArrayLike, *, alternative: Alternative = "two-sided") -> McNemar:
    """McNemar's exact test of paired successes (McNemar 1947), one pair for each prompt.

    one, other: 0 or 1, (prompt,) or (prompt, replicate, ...). Replicates are no pairs of their own:
    a prompt is *better* where ``one`` succeeds in more of its replicates than ``other``, *worse*
    where in fewer. Better against worse is a binomial with share 1/2 if the arms do not differ;
    alike prompts say nothing. With a single replicate this is the usual test.
    """
    _require_alternative(alternative)
    moved = _net(one, other)
    better, worse = int((moved > 0).sum()), int((moved < 0).sum())
    p = 1.0
    if better + worse:
        p = float(stats.binomtest(better, better + worse, 0.5, alternative=alternative).pvalue)
    return McNemar(better, worse, len(moved) - better - worse, p)


def cohen_h(one: float, other: float) -> float:
    """Cohen's h of two shares, 2 arcsin √one − 2 arcsin √other (Cohen 1988, chapter 6).

    About .2 is small, .5 medium and .8 large; positive where ``one`` is the larger.
    """
    for share in (one, other):
        if not 0 <= share <= 1:
            message = f"[cohen h] expected shares in [0, 1], got {share}"
            raise ValueError(message)
    return 2 * math.asin(math.sqrt(one)) - 2 * math.asin(math.sqrt(other))


def require_binary(values: ArrayLike, where: str) -> NDArray[np.float64]:
    """Values that are all 0 or 1; ValueError otherwise."""
    array = np.asarray(values, dtype=np.float64)
    if not np.isin(array, (0.0, 1.0)).all():
        message = f"[{where}] expected values of 0 and 1, got others; judge the texts first"
        raise ValueError(message)
    return array


def _net(one: ArrayLike, other: ArrayLike) -> NDArray[np.float64]:
    """Net successes gained by each prompt: whole numbers, so that a draw is exactly 0."""
    a, b = require_binary(one, "mcnemar"), require_binary(other, "mcnemar")
    gained = paired(a, b, "mcnemar")
    return np.asarray(gained.reshape(len(gained), -1).sum(axis=1), dtype=np.float64)


def _require_alternative(alternative: str) -> None:
    if alternative not in ("two-sided", "greater", "less"):
        message = f"[p] expected two-sided, greater or less, got {alternative!r}"
        raise ValueError(message)
