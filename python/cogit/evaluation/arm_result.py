"""What an arm did, as numbers: effect with its tests, and cost, all against the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation.anti_steered import anti_steered
from cogit.evaluation.arms import Arm
from cogit.evaluation.engine import ArmRun
from cogit.evaluation.statistics import Interval, bootstrap_mean
from cogit.evaluation.suite import SIGNS
from cogit.evaluation.tests_of_difference import cohen_h, holm, mcnemar, sign_flip_p

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ArmResult:
    """An arm's run with its statistics. ``..._pp``: percentage points; None is not measured.

    p: two-sided permutation over prompts, not of single draws. p_holm: corrected over the learned
    arms. capability: next-token accuracy on neutral texts over the unsteered model's.
    """

    run: ArmRun
    lift: Interval
    override: Interval | None
    drift: Interval | None
    p: float | None
    p_holm: float | None
    mcnemar_p: float
    cohen_h: float
    anti_steered: float | None
    perplexity_ratio: float | None
    capability: float | None

    @property
    def arm(self) -> Arm:
        return self.run.arm

    def to_json(self) -> dict[str, Any]:
        """One entry of ``arms`` in the report."""
        run, arm = self.run, self.arm
        baseline = arm.role == "baseline"
        n_prompts, n_seeds, n_signs = run.scores.shape
        positive = (run.scores > 0).mean(axis=(0, 1))
        return {
            "name": arm.name,
            "role": arm.role,
            "draw": arm.draw,
            "strength": arm.strength,
            "match": None if arm.match is None else arm.match.to_json(),
            "n_prompts": n_prompts,
            "n_samples": n_prompts * n_seeds * (1 if baseline else n_signs),
            "positive_rate": {
                f"{sign:+d}": float(share) for sign, share in zip(SIGNS, positive, strict=True)
            },
            "success": float(run.hits.mean()),
            "score": float((run.scores * np.array(SIGNS)).mean()),
            "lift_pp": asdict(self.lift),
            "override_pp": None if self.override is None else asdict(self.override),
            "p": self.p,
            "p_holm": self.p_holm,
            "mcnemar_p": None if baseline else self.mcnemar_p,
            "cohen_h": self.cohen_h,
            "anti_steered": self.anti_steered,
            "perplexity": run.perplexity,
            "perplexity_ratio": self.perplexity_ratio,
            "neutral_kl": run.neutral_kl,
            "text_kl": run.text_kl,
            "repetition": run.repetition,
            "drift_pp": None if self.drift is None else asdict(self.drift),
            "relevance": run.relevance,
            "capability": self.capability,
            "displacement": run.displacement,
        }


def measure(
    run: ArmRun, plain: ArmRun, *, accuracy: float | None, resamples: int, seed: int
) -> ArmResult:
    """Hold a run against the unsteered one. accuracy: of the unsteered model on neutral texts."""

    def gain(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> Interval | None:
        if one is None or other is None:
            return None
        return points(run.hits_of(one) - run.hits_of(other), resamples, seed)

    lift = run.hits - plain.hits
    baseline = run.arm.role == "baseline"
    ratio = None
    if run.perplexity is not None and plain.perplexity:
        ratio = run.perplexity / plain.perplexity
    known = run.accuracy is not None and bool(accuracy)
    return ArmResult(
        run=run,
        lift=points(lift, resamples, seed),
        override=_override(run, plain, resamples, seed),
        drift=gain(run.neutral_scores, plain.neutral_scores),
        p=sign_flip_p(lift, seed=seed) if run.arm.full and not baseline else None,
        p_holm=None,
        mcnemar_p=mcnemar(run.hits, plain.hits).p,
        cohen_h=cohen_h(float(run.hits.mean()), float(plain.hits.mean())),
        anti_steered=(
            None if baseline else anti_steered(run.scores, plain.scores, np.array(SIGNS)).share
        ),
        perplexity_ratio=ratio,
        capability=1.0 if baseline and accuracy else _share(run.accuracy, accuracy, known),
    )


def with_holm(results: list[ArmResult], n_tests: int) -> list[ArmResult]:
    """p_holm of the learned arms, in a family of at least ``n_tests``.

    Tests whose p is not known here are taken to be 1, the worst case: every known p, not only the
    smallest, is then multiplied by their number as well.
    """
    learned = {
        str(i): one.p
        for i, one in enumerate(results)
        if one.arm.role == "learned" and one.p is not None
    }
    if not learned:
        return results
    others = {f"other {i}": 1.0 for i in range(n_tests - len(learned))}
    adjusted = holm(learned | others)
    return [
        replace(one, p_holm=adjusted[str(i)]) if str(i) in learned else one
        for i, one in enumerate(results)
    ]


def points(values: NDArray[np.float64], resamples: int, seed: int) -> Interval:
    """Mean of per-prompt differences in percentage points, prompts resampled as a whole."""
    return bootstrap_mean(100.0 * values, seed=seed, resamples=resamples)


def compare(one: ArmResult, other: ArmResult, *, resamples: int, seed: int) -> Mapping[str, Any]:
    """One entry of ``comparisons``: two arms on the same prompts and seeds."""
    gap = one.run.hits - other.run.hits
    override = _override(one.run, other.run, resamples, seed)
    return {
        "one": one.arm.name,
        "other": other.arm.name,
        "lift_pp": asdict(points(gap, resamples, seed)),
        "override_pp": None if override is None else asdict(override),
        "p": sign_flip_p(gap, seed=seed),
        "mcnemar_p": mcnemar(one.run.hits, other.run.hits).p,
    }


def _override(run: ArmRun, plain: ArmRun, resamples: int, seed: int) -> Interval | None:
    if run.opposite_scores is None or plain.opposite_scores is None:
        return None
    gain = run.hits_of(run.opposite_scores) - plain.hits_of(plain.opposite_scores)
    # Each sign has prompts of its own: (prompt and sign, seed).
    return points(np.concatenate([gain[:, :, 0], gain[:, :, 1]]), resamples, seed)


def _share(one: float | None, other: float | None, known: bool) -> float | None:
    return one / other if known and one is not None and other else None
