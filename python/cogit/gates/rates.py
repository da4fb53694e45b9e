"""How well a gate tells two conditions apart: rates on held-out texts, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.gates.gate import Gate
from cogit.intervals import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    States = NDArray[np.floating[Any]]
    Scores = Sequence[NDArray[np.float64]]

_PERMUTATIONS = 999


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
    above one without; auc_p: how often shuffled labels of the texts reach that. Intervals count
    texts, not tokens: tokens of a text are not independent.
    """

    true_positive: Rate
    false_positive: Rate
    factor_on: float
    factor_off: float
    accuracy: Rate
    auc: float
    auc_p: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def wilson(share: float, n: int) -> Rate:
    """A share over n units with its interval (see `cogit.intervals.wilson_interval`)."""
    low, high = wilson_interval(share, n)
    return Rate(float(share), float(low), float(high), n)


def area_under_curve(on: Scores, off: Scores, *, seed: int = 0) -> tuple[float, float]:
    """AUC of the scores of some texts, ties at a half, and its one-sided p-value.

    on, off: the token scores of each text. Every pair of texts weighs the same. The p-value comes
    from 999 permutations of the texts' labels, so that it holds for few texts and many tokens.
    """
    texts = [np.sort(text) for text in (*on, *off)]
    wins = np.array([[_wins(one, other) for other in texts] for one in texts])
    rng = np.random.default_rng(seed)
    labels = np.zeros((1 + _PERMUTATIONS, len(texts)))
    labels[:, : len(on)] = 1.0
    labels[1:] = rng.permuted(labels[1:], axis=1)
    areas = ((labels @ wins) * (1.0 - labels)).sum(axis=1) / (len(on) * len(off))
    # Equal areas may differ in their last bits.
    reached = (areas >= areas[0] - 1e-9).sum()
    return float(areas[0]), float(reached / (1 + _PERMUTATIONS))


def _wins(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How often a score of one text exceeds one of the other; both sorted."""
    below, upto = (np.searchsorted(other, one, side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(other)))


def assess(gate: Gate, on: Sequence[States], off: Sequence[States]) -> GateRates:
    """Rates of a gate. on, off: one array (token, d_model) a text."""
    scores = _scores(gate, on, off)
    factors = {name: [gate.factor(text) for text in texts] for name, texts in scores.items()}
    opened = {name: _mean_share([f > 0 for f in found]) for name, found in factors.items()}
    n_on, n_off = len(on), len(off)
    auc, p_value = area_under_curve(scores["on"], scores["off"])
    return GateRates(
        true_positive=wilson(opened["on"], n_on),
        false_positive=wilson(opened["off"], n_off),
        factor_on=_mean_share(factors["on"]),
        factor_off=_mean_share(factors["off"]),
        accuracy=wilson(accuracy(gate, on, off), n_on + n_off),
        auc=auc,
        auc_p=p_value,
    )


def accuracy(gate: Gate, on: Sequence[States], off: Sequence[States]) -> float:
    """The balanced accuracy of :class:`GateRates`, without its interval."""
    scores = _scores(gate, on, off)
    half = {
        name: _mean_share([gate.factor(text) >= 0.5 for text in texts])
        for name, texts in scores.items()
    }
    return (half["on"] + 1.0 - half["off"]) / 2


def _scores(
    gate: Gate, on: Sequence[States], off: Sequence[States]
) -> dict[str, list[NDArray[np.float64]]]:
    return {
        name: [gate.score(deciding_states(gate.scope, text)) for text in texts]
        for name, texts in (("on", on), ("off", off))
    }


def deciding_states(scope: str, states: States) -> NDArray[np.float64]:
    """The states of a text by which a gate of this scope decides: (token or 1, d_model)."""
    rows = np.asarray(states, np.float64)
    return rows if scope == "token" else rows.mean(axis=0, keepdims=True)


def _mean_share(texts: Sequence[NDArray[Any]]) -> float:
    return float(np.mean([text.mean() for text in texts]))
