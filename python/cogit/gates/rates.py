"""How well a gate tells two conditions apart: rates on held-out texts, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.gates.gate import Gate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    States = NDArray[np.floating[Any]]

_Z = 1.959963984540054  # 95 %


@dataclass(frozen=True)
class Rate:
    """A share with its 95 % interval; n: how many independent units it comes from."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class GateRates:
    """A gate on texts it was not fitted on.

    true_positive, false_positive: the share of a text's tokens for which the gate is not exactly
    closed, mean over texts with the condition and over those without. factor_on, factor_off: the
    mean factor. accuracy: the mean of both conditions' shares of tokens on the right side of a
    factor of a half, so that 0.5 is a coin. auc: the chance that a token with the condition scores
    above one without. Intervals count texts, not tokens: tokens of a text are not independent.
    """

    true_positive: Rate
    false_positive: Rate
    factor_on: float
    factor_off: float
    accuracy: Rate
    auc: Rate

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def wilson(share: float, n: int) -> Rate:
    """Wilson's score interval of a share over n units (Wilson 1927)."""
    if n < 1 or not 0 <= share <= 1:
        message = f"[wilson] expected a share in [0, 1] of at least one unit, got {share} of {n}"
        raise ValueError(message)
    z2 = _Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    # Rounding must not put a share of 0 or 1 outside its own interval.
    low, high = min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
    return Rate(float(share), float(low), float(high), n)


def area_under_curve(
    on: NDArray[np.float64], off: NDArray[np.float64], n_on: int, n_off: int
) -> Rate:
    """AUC of scores, ties at a half, with Hanley and McNeil's interval (1982) over n texts each."""
    ordered = np.sort(off)
    below, upto = (np.searchsorted(ordered, on, side) for side in ("left", "right"))
    area = float((below + upto).mean() / (2 * len(off)))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n_on - 1) * (q1 - area**2) + (n_off - 1) * (q2 - area**2)
    half = _Z * np.sqrt(max(0.0, variance) / (n_on * n_off))
    low, high = max(0.0, area - half), min(1.0, area + half)
    return Rate(area, float(low), float(high), n_on + n_off)


def assess(gate: Gate, on: Sequence[States], off: Sequence[States]) -> GateRates:
    """Rates of a gate. on, off: one array (token, d_model) a text."""
    scores = {
        name: [gate.score(deciding_states(gate.scope, text)) for text in texts]
        for name, texts in (("on", on), ("off", off))
    }
    factors = {name: [gate.factor(text) for text in texts] for name, texts in scores.items()}
    opened = {name: _mean_share([f > 0 for f in found]) for name, found in factors.items()}
    half = {name: _mean_share([f >= 0.5 for f in found]) for name, found in factors.items()}
    n_on, n_off = len(on), len(off)
    return GateRates(
        true_positive=wilson(opened["on"], n_on),
        false_positive=wilson(opened["off"], n_off),
        factor_on=_mean_share(factors["on"]),
        factor_off=_mean_share(factors["off"]),
        accuracy=wilson((half["on"] + 1.0 - half["off"]) / 2, n_on + n_off),
        auc=area_under_curve(
            np.concatenate(scores["on"]), np.concatenate(scores["off"]), n_on, n_off
        ),
    )


def deciding_states(scope: str, states: States) -> NDArray[np.float64]:
    """The states of a text by which a gate of this scope decides: (token or 1, d_model)."""
    rows = np.asarray(states, np.float64)
    return rows if scope == "token" else rows.mean(axis=0, keepdims=True)


def _mean_share(texts: Sequence[NDArray[Any]]) -> float:
    return float(np.mean([text.mean() for text in texts]))
