"""Measuring arms on held-out prompts: effect, override, cost, all paired with the plain model.

Every arm steers both ways. The same prompt draws the same random numbers in every arm, so that arms
differ by what steers them and by nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cogit.evaluation import measures
from cogit.evaluation.statistics import Interval, bootstrap_mean
from cogit.intervention import Intervention
from cogit.sampling import Sample, SamplingOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.base import Backend

SIGNS = (1, -1)
_N_EXAMPLES = 3
Judge = Callable[[str], int]
"""Text to +1, -1 or 0."""


@dataclass(frozen=True)
class Arm:
    """One way to steer, in both directions; None steers nothing.

    control: the interventions are meant to change nothing.
    """

    name: str
    interventions: Mapping[int, Intervention] | None
    control: bool = False

    @classmethod
    def both_ways(cls, name: str, intervention: Intervention, *, control: bool = False) -> Arm:
        """The intervention towards +1, and at the opposite strength towards -1."""
        towards = {sign: intervention.at_strength(sign * intervention.strength) for sign in SIGNS}
        return cls(name, towards, control)


@dataclass(frozen=True)
class EvaluationSet:
    """Held-out material.

    open_prompts: starts that can go either way. opposite: for each target sign, starts whose
    context says the contrary. neutral: texts on which steering should change little.
    """

    open_prompts: Sequence[str]
    opposite: Mapping[int, Sequence[str]]
    neutral: Sequence[str]
    judge: Judge
    sampling: SamplingOptions


@dataclass(frozen=True)
class ArmResult:
    """What one arm did.

    success: share of open prompts continued in the target's sense, mean of both directions.
    lift: its gain over the plain model in percentage points, with a paired interval.
    override: the same on prompts whose context says the opposite.
    perplexity_ratio: perplexity of the text under the plain model, over that of plain text.
    neutral_kl: nats per token on neutral text. hits_*: per-prompt successes, for pairing.
    """

    name: str
    success: float
    lift: Interval
    override_success: float
    override: Interval
    perplexity_ratio: float
    neutral_kl: float
    repetition: float
    hits_open: NDArray[np.float64]  # (prompt, sign)
    hits_opposite: NDArray[np.float64]  # (prompt,)
    examples: tuple[Sample, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "success": self.success,
            "lift_pp": self.lift.mean,
            "ci": [self.lift.low, self.lift.high],
            "override_success": self.override_success,
            "override_pp": self.override.mean,
            "override_ci": [self.override.low, self.override.high],
            "perplexity_ratio": self.perplexity_ratio,
            "neutral_kl": self.neutral_kl,
            "repetition": self.repetition,
        }


@dataclass(frozen=True)
class _Run:
    """The texts and logits of one arm."""

    open_samples: dict[int, Sequence[Sample]]
    opposite_samples: dict[int, Sequence[Sample]]
    neutral_logits: dict[int, Sequence[NDArray[np.float32]]]


class Evaluator:
    """Evaluates arms on one backend against the plain model, which runs once."""

    def __init__(self, backend: Backend, data: EvaluationSet) -> None:
        self._backend, self._data = backend, data
        self._neutral = [backend.tokenize(text) for text in data.neutral]
        plain = self._sample_plain()
        # Both signs, as for an arm: the same batches round the same, and a control's ratio is 1.
        texts = [sample for sign in SIGNS for sample in plain.open_samples[sign]]
        self._plain_nll = measures.negative_log_likelihood(backend, texts)
        self._plain = plain
        self._plain_hits = (self._open_hits(plain), self._opposite_hits(plain))

    def run(self, arm: Arm, *, verify: bool = True) -> ArmResult:
        """Generate, judge and measure one arm."""
        run = self._plain if arm.interventions is None else self._sample(arm, verify=verify)
        hits_open, hits_opposite = self._open_hits(run), self._opposite_hits(run)
        texts = [sample for sign in SIGNS for sample in run.open_samples[sign]]
        nll = measures.negative_log_likelihood(self._backend, texts)
        divergence = np.mean(
            [
                measures.token_divergence(
                    self._plain.neutral_logits[sign], run.neutral_logits[sign]
                )
                for sign in SIGNS
            ]
        )
        return ArmResult(
            name=arm.name,
            success=float(hits_open.mean()),
            lift=bootstrap_mean(100 * (hits_open - self._plain_hits[0])),
            override_success=float(hits_opposite.mean()),
            override=bootstrap_mean(100 * (hits_opposite - self._plain_hits[1])),
            perplexity_ratio=float(np.exp(nll - self._plain_nll)),
            neutral_kl=float(divergence),
            repetition=measures.repetition(texts),
            hits_open=hits_open,
            hits_opposite=hits_opposite,
            examples=self._examples(run),
        )

    def share_positive(self, intervention: Intervention) -> float:
        """Share of open prompts that continue positively, for a dose-response curve."""
        with self._backend.steer(intervention, verify=False):
            samples = self._generate(self._data.open_prompts)
        return float(np.mean([self._data.judge(sample.text) > 0 for sample in samples]))

    def _sample_plain(self) -> _Run:
        run = self._generate(self._data.open_prompts)
        opposite: dict[int, Sequence[Sample]] = {
            sign: self._generate(self._data.opposite[sign]) for sign in SIGNS
        }
        logits = self._backend.logits(self._neutral)
        return _Run(dict.fromkeys(SIGNS, run), opposite, dict.fromkeys(SIGNS, logits))

    def _sample(self, arm: Arm, *, verify: bool) -> _Run:
        run = _Run({}, {}, {})
        for sign, intervention in (arm.interventions or {}).items():
            with self._backend.steer(intervention, verify=verify, control=arm.control):
                run.open_samples[sign] = self._generate(self._data.open_prompts)
                run.opposite_samples[sign] = self._generate(self._data.opposite[sign])
                run.neutral_logits[sign] = self._backend.logits(self._neutral)
        return run

    def _generate(self, prompts: Sequence[str]) -> list[Sample]:
        return self._backend.generate(prompts, self._data.sampling)

    def _examples(self, run: _Run) -> tuple[Sample, ...]:
        n = min(_N_EXAMPLES, len(self._data.open_prompts))
        return tuple(run.open_samples[sign][i] for i in range(n) for sign in SIGNS)

    def _open_hits(self, run: _Run) -> NDArray[np.float64]:
        return np.stack([self._hits(run.open_samples[sign], sign) for sign in SIGNS], axis=1)

    def _opposite_hits(self, run: _Run) -> NDArray[np.float64]:
        return np.concatenate([self._hits(run.opposite_samples[sign], sign) for sign in SIGNS])

    def _hits(self, samples: Sequence[Sample], sign: int) -> NDArray[np.float64]:
        return np.array([float(self._data.judge(sample.text) == sign) for sample in samples])


def paired_difference(one: ArmResult, other: ArmResult) -> dict[str, Interval]:
    """``one`` minus ``other`` in percentage points, on the same prompts."""
    return {
        "open": bootstrap_mean(100 * (one.hits_open - other.hits_open)),
        "override": bootstrap_mean(100 * (one.hits_opposite - other.hits_opposite)),
    }
