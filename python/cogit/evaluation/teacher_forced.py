"""The teacher-forced contrast: what predicts that steering works, by forward passes alone.

Steering towards a class should add likelihood to texts of that class and take it from texts of the
other. The difference, in nats per pair and mean of both directions, is the contrast. Its price is
how much less likely the target's own texts become, and the KL divergence on neutral texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation import measures
from cogit.evaluation.calibrate import SIGNS, Candidate
from cogit.evaluation.statistics import Interval, bootstrap_mean
from cogit.intervention import Intervention
from cogit.pairs import ContrastPair
from cogit.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.base import Backend


@dataclass(frozen=True)
class Budget:
    """What steering may cost, in nats per token.

    target_nll: the rise of the negative log-likelihood of the target's own texts.
    neutral_kl: the divergence on neutral texts.
    """

    target_nll: float = 0.005
    neutral_kl: float = 0.02


@dataclass(frozen=True)
class Score:
    """Contrast and cost of one intervention at its strength.

    per_pair: (pair,) nats, mean of both directions. target_nll, neutral_kl: nats per token;
    target_nll is negative where the target's texts became likelier.
    """

    per_pair: NDArray[np.float64]
    target_nll: float
    neutral_kl: float

    @property
    def contrast(self) -> float:
        return float(self.per_pair.mean())

    @property
    def interval(self) -> Interval:
        """The contrast with its bootstrap interval over pairs."""
        return bootstrap_mean(self.per_pair)

    def within(self, budget: Budget) -> bool:
        return self.target_nll <= budget.target_nll and self.neutral_kl <= budget.neutral_kl

    def to_json(self) -> dict[str, Any]:
        interval = self.interval
        return {
            "contrast": interval.mean,
            "ci": [interval.low, interval.high],
            "n_pairs": len(self.per_pair),
            "target_nll_rise": self.target_nll,
            "neutral_kl": self.neutral_kl,
        }


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, its score, and the table that it was chosen from."""

    chosen: Candidate
    score: Score
    table: tuple[dict[str, Any], ...]


class TeacherForced:
    """Scores interventions on one backend, over pairs and neutral texts of one split."""

    def __init__(
        self, backend: Backend, pairs: Sequence[ContrastPair], neutral: Sequence[str]
    ) -> None:
        """Raises ValueError without pairs or neutral texts: neither effect nor cost is optional."""
        if not pairs or not neutral:
            message = (
                f"[contrast] expected pairs and neutral texts, got {len(pairs)} and {len(neutral)}"
            )
            raise ValueError(message)
        self._backend = backend
        both = [pair.texts for pair in pairs]
        texts = [*(one for one, _ in both), *(other for _, other in both)]
        self._texts = [backend.tokenize(text) for text in texts]
        self._lengths = np.array([max(1, len(ids) - 1) for ids in self._texts]).reshape(2, -1)
        self._neutral = [backend.tokenize(text) for text in neutral]
        self._plain = self._likelihoods()
        self._plain_neutral = backend.logits(self._neutral)

    def score(self, intervention: Intervention, reverse: Intervention | None = None) -> Score:
        """Contrast and cost at the intervention's strength, both ways.

        reverse: steers to the negative class at its own strength; by default the intervention at
        the negative strength. The contrast holds NaN or infinity, and the KL is infinite, where
        steering breaks the model.
        """
        per_pair, target_nll = self.contrast(intervention, reverse)
        finite = bool(np.isfinite(per_pair).all())
        cost = self.divergence(intervention, reverse) if finite else np.inf
        return Score(per_pair, target_nll, cost)

    def contrast(
        self, intervention: Intervention, reverse: Intervention | None = None
    ) -> tuple[NDArray[np.float64], float]:
        """(pair,) nats, and the rise of the target's NLL per token; no neutral text is run."""
        gains: list[NDArray[np.float64]] = []
        rises: list[float] = []
        for sign in SIGNS:
            with self._backend.steer(_towards(intervention, sign, reverse), verify=False):
                added = self._likelihoods() - self._plain
            gains.append(sign * (added[0] - added[1]))
            target = 0 if sign > 0 else 1
            rises.append(-float(added[target].sum() / self._lengths[target].sum()))
        return np.mean(gains, axis=0), float(np.mean(rises))

    def divergence(self, intervention: Intervention, reverse: Intervention | None = None) -> float:
        """KL on neutral texts, nats per token, mean of both directions."""
        return _divergence(self._backend, intervention, self._neutral, self._plain_neutral, reverse)

    def at_budget(
        self, intervention: Intervention, budget: Budget, factors: Iterable[float]
    ) -> tuple[float, Score] | None:
        """The multiple of the strength with the largest contrast within the budget, and its score.

        Factors rise; the first beyond the KL budget is the last that is tried. None where no
        multiple is within the budget.
        """
        best: tuple[float, Score] | None = None
        for factor in factors:
            score = self.score(intervention.at_strength(factor * intervention.strength))
            if not score.neutral_kl <= budget.neutral_kl:
                break
            if score.within(budget) and (best is None or score.contrast > best[1].contrast):
                best = factor, score
        return best

    def choose(
        self,
        candidates: Sequence[Candidate],
        budget: Budget,
        *,
        label: str = "calibrating",
        show: bool = True,
    ) -> Choice:
        """The candidate with the largest contrast among those within the budget.

        Neutral texts are run in the order of the contrast until one fits. Raises ValueError when
        none does.
        """
        measured = [
            (*self.contrast(candidate.intervention), candidate)
            for candidate in track(candidates, label, show=show)
        ]
        # Steering so strong that the model breaks down gives no number to rank by.
        ranked = [entry for entry in measured if np.isfinite(entry[0]).all()]
        ranked.sort(key=lambda entry: -float(entry[0].mean()))
        table = [_row(candidate, gains, rise) for gains, rise, candidate in ranked]
        cheapest = np.inf
        for row, (gains, rise, candidate) in zip(table, ranked, strict=True):
            if rise > budget.target_nll:
                continue
            score = Score(gains, rise, self.divergence(candidate.intervention))
            row["neutral_kl"] = score.neutral_kl
            cheapest = min(cheapest, score.neutral_kl)
            if score.within(budget):
                return Choice(candidate, score, tuple(table))
        message = (
            f"[calibrate] expected a candidate within a rise of the target's NLL of "
            f"{budget.target_nll:g} and a KL of {budget.neutral_kl:g} nats per token, got none of "
            f"{len(candidates)} (smallest KL {cheapest:.3g}); add smaller gains or other blocks"
        )
        raise ValueError(message)

    def _likelihoods(self) -> NDArray[np.float64]:
        """(2, pair) log-likelihoods of the positive and the negative texts, as steered now."""
        values = measures.log_likelihoods(self._backend, self._texts)
        return np.array([value.sum() for value in values]).reshape(2, -1)


def neutral_divergence(
    backend: Backend,
    intervention: Intervention,
    texts: Sequence[str],
    reverse: Intervention | None = None,
) -> float:
    """KL on neutral texts, nats per token, mean of both directions."""
    ids = [backend.tokenize(text) for text in texts]
    return _divergence(backend, intervention, ids, backend.logits(ids), reverse)


def _divergence(
    backend: Backend,
    intervention: Intervention,
    ids: Sequence[Sequence[int]],
    plain: Sequence[NDArray[np.float32]],
    reverse: Intervention | None,
) -> float:
    found: list[float] = []
    for sign in SIGNS:
        with backend.steer(_towards(intervention, sign, reverse), verify=False):
            found.append(measures.token_divergence(plain, backend.logits(ids)))
    return float(np.mean(found))


def _towards(intervention: Intervention, sign: int, reverse: Intervention | None) -> Intervention:
    if reverse is not None and sign < 0:
        return reverse
    return intervention.at_strength(sign * intervention.strength)


def _row(candidate: Candidate, gains: NDArray[np.float64], rise: float) -> dict[str, Any]:
    return {**candidate.settings, "contrast": float(gains.mean()), "target_nll_rise": rise}
