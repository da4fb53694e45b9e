"""Choosing layer and strength on a split of its own, by forward passes and a perplexity budget.

No static score of a layer predicts where steering works. What does is a teacher-forced contrast:
how much likelihood steering adds to texts of the target class, minus what it adds to the opposite
ones. Candidates are ranked by it; the best whose generated text stays within the budget is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation import measures
from cogit.intervention import Intervention
from cogit.pairs import ContrastPair
from cogit.progress import track
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from cogit.backends.base import Backend

SIGNS = (1, -1)


@dataclass(frozen=True)
class Candidate:
    """An intervention towards +1 and where it comes from, such as layer, angle and gain."""

    settings: dict[str, Any]
    intervention: Intervention


@dataclass(frozen=True)
class Calibration:
    """The chosen candidate, its scores, and the whole table that it was chosen from.

    contrast: nats per pair. perplexity_ratio, neutral_kl: the cost on calibration prompts.
    """

    chosen: Candidate
    contrast: float
    perplexity_ratio: float
    neutral_kl: float
    table: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class CalibrationSet:
    """Held-in material: pairs for the contrast, prompts and neutral texts for the cost."""

    pairs: Sequence[ContrastPair]
    prompts: Sequence[str]
    neutral: Sequence[str]
    sampling: SamplingOptions


class Calibrator:
    """Scores candidates on one backend."""

    def __init__(
        self,
        backend: Backend,
        data: CalibrationSet,
        *,
        perplexity_budget: float = 1.12,
        kl_budget: float = 0.02,
    ) -> None:
        """Budgets: the largest perplexity ratio of generated text, and KL (nats per token)."""
        self._backend, self._data = backend, data
        self._perplexity_budget, self._kl_budget = perplexity_budget, kl_budget
        self._texts = [backend.tokenize(text) for pair in data.pairs for text in pair.texts]
        self._starts = [
            _continuation(backend, pair.prompt, ids)
            for pair, ids in zip(
                (pair for pair in data.pairs for _ in pair.texts), self._texts, strict=True
            )
        ]
        self._neutral = [backend.tokenize(text) for text in data.neutral]
        self._plain = self._likelihoods()
        self._plain_neutral = backend.logits(self._neutral)
        samples = backend.generate(data.prompts, data.sampling)
        self._plain_nll = measures.negative_log_likelihood(backend, samples)

    def choose(
        self, candidates: Sequence[Candidate], *, label: str = "calibrating", show: bool = True
    ) -> Calibration:
        """The candidate with the largest contrast among those within both budgets.

        Raises ValueError when none is.
        """
        measured = [
            (self.contrast(candidate), candidate)
            for candidate in track(candidates, label, show=show)
        ]
        # Steering so strong that the model breaks down gives no number to rank by.
        scored = [entry for entry in measured if np.isfinite(entry[0])]
        scored.sort(key=lambda entry: -entry[0])
        table: list[dict[str, Any]] = []
        for contrast, candidate in scored:
            cost = self.cost(candidate)
            table.append({**candidate.settings, "contrast": contrast, **cost})
            if (
                cost["perplexity_ratio"] <= self._perplexity_budget
                and cost["neutral_kl"] <= self._kl_budget
            ):
                rest = [
                    {**other.settings, "contrast": value} for value, other in scored[len(table) :]
                ]
                return Calibration(candidate, contrast, **cost, table=(*table, *rest))
        message = (
            f"[calibrate] expected a candidate within perplexity ratio {self._perplexity_budget} "
            f"and KL {self._kl_budget}, got none of {len(scored)}; add weaker ones"
        )
        raise ValueError(message)

    def contrast(self, candidate: Candidate) -> float:
        """Likelihood added to the target's texts minus that added to the opposite ones.

        Nats per pair, mean of both directions.
        """
        gains: list[float] = []
        for sign in SIGNS:
            intervention = candidate.intervention
            towards = intervention.at_strength(sign * intervention.strength)
            with self._backend.steer(towards, verify=False):
                added = self._likelihoods() - self._plain
            gains.append(sign * float(added[0] - added[1]))
        return float(np.mean(gains))

    def cost(self, candidate: Candidate) -> dict[str, float]:
        """Perplexity ratio of generated text and KL on neutral text, mean of both directions."""
        ratios: list[float] = []
        divergences: list[float] = []
        for sign in SIGNS:
            intervention = candidate.intervention
            towards = intervention.at_strength(sign * intervention.strength)
            with self._backend.steer(towards, verify=False):
                samples = self._backend.generate(self._data.prompts, self._data.sampling)
                logits = self._backend.logits(self._neutral)
            ratios.append(
                measures.negative_log_likelihood(self._backend, samples) - self._plain_nll
            )
            divergences.append(measures.token_divergence(self._plain_neutral, logits))
        return {
            "perplexity_ratio": float(np.exp(np.mean(ratios))),
            "neutral_kl": float(np.mean(divergences)),
        }

    def _likelihoods(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Mean log-likelihood per text of the positive and the negative texts. (2,)

        That of the continuation given the prompt, where a pair has one.
        """
        values = measures.log_likelihoods(self._backend, self._texts)
        sums = [v[start - 1 :].sum() for v, start in zip(values, self._starts, strict=True)]
        return np.asarray(np.reshape(sums, (-1, 2)).mean(axis=0), dtype=np.float64)


def _continuation(backend: Backend, prompt: str, ids: Sequence[int]) -> int:
    """The first token of the continuation, 1 at least: nothing predicts the first token.

    A token that spans the seam belongs to the continuation.
    """
    if not prompt:
        return 1
    before = backend.tokenize(prompt)
    same = next((i for i, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), None)
    return max(1, min(len(before), len(ids)) if same is None else same)
