"""Dose-response: what multiples of a strength do to the share of positive continuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation.arms import Arm, both_ways
from cogit.evaluation.continuations import likelihoods, perplexity
from cogit.evaluation.engine import ArmRun, Engine
from cogit.evaluation.slope import dose_response
from cogit.evaluation.statistics import bootstrap_mean
from cogit.intervention import Intervention
from cogit.progress import track
from cogit.sampling import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Row Q57: from hardly anything to far too much.
SWEEP = tuple(float(one) for one in np.geomspace(0.01, 5.0, 10))
COHERENT = 1.5


@dataclass(frozen=True)
class DosePoint:
    """positive: 1 where a continuation is judged positive, (prompt, seed)."""

    strength: float
    positive: NDArray[np.float64]
    perplexity_ratio: float | None

    def to_json(self, resamples: int) -> dict[str, Any]:
        share = bootstrap_mean(self.positive, resamples=resamples)
        return {
            "strength": self.strength,
            "share_positive": share.mean,
            "low": share.low,
            "high": share.high,
            "perplexity_ratio": self.perplexity_ratio,
        }


def dose_curve(engine: Engine, run: ArmRun, plain: ArmRun, doses: Sequence[float]) -> Any:
    """An entry of ``dose`` in the report: doses are multiples of the arm's strength.

    Of the first seed. 0 and ±1 were run already.
    """
    assert run.arm.towards is not None
    seed = engine.settings.seeds[:1]
    points: list[DosePoint] = []
    for dose in sorted(doses):
        sign = 1 if dose >= 0 else -1
        if dose == 0.0:
            rows = plain.samples[1][:1]
        elif abs(dose) == 1.0:
            rows = run.samples[sign][:1]
        else:
            chosen = run.arm.towards[sign]
            with engine.backend.steer(
                chosen.at_strength(abs(dose) * chosen.strength), verify=False
            ):
                rows = engine.generate(engine.suite.prompts, seeds=seed)
        points.append(_point(engine, dose, rows, _perplexity(engine, plain.samples[1][:1])))
    return _curve(points, engine.settings.resamples, "linear")


def strength_sweep(
    engine: Engine,
    intervention: Intervention,
    reverse: Intervention | None = None,
    *,
    strengths: Sequence[float] = SWEEP,
    coherent: float = COHERENT,
    show: bool = True,
) -> dict[str, Any]:
    """Row Q57: strengths, log-spaced, towards +1 and towards -1, and where text stops to cohere.

    On the calibration prompts, since a strength may be chosen by it. strengths: multiples of the
    intervention's own. share_positive there is the share of continuations on the target's side,
    both directions together. coherent_up_to: the largest strength below the first whose perplexity
    under the unsteered model exceeds ``coherent`` times that of unsteered text; None where the
    weakest does already. Raises ValueError without calibration prompts.
    """
    prompts = engine.suite.calibration_prompts
    if not prompts or any(not (np.isfinite(one) and one > 0) for one in strengths):
        message = (
            f"[sweep] expected calibration prompts and strengths above 0, got {len(prompts)} and "
            f"{list(strengths)}"
        )
        raise ValueError(message)
    arm = Arm("sweep", "learned", both_ways(intervention, reverse))
    assert arm.towards is not None
    plain = engine.generate(prompts)
    base = _perplexity(engine, plain)
    points: list[DosePoint] = []
    for factor in track(sorted(strengths), "sweeping strengths", show=show):
        rows: dict[int, list[list[Sample]]] = {}
        for sign, one in arm.scaled(factor).towards.items():  # type: ignore[union-attr]
            with engine.backend.steer(one, verify=False):
                rows[sign] = engine.generate(prompts)
        hits = (engine.scores(rows) * np.array([1, -1]) > 0).astype(np.float64)
        ratio = _ratio(_perplexity(engine, [*rows[1], *rows[-1]]), base)
        points.append(DosePoint(factor, hits.reshape(len(prompts), -1), ratio))
    ratios = [one.perplexity_ratio for one in points]
    broken = next((i for i, one in enumerate(ratios) if one is None or one > coherent), len(points))
    return {
        **_curve(points, engine.settings.resamples, "log10"),
        "coherence_bound": coherent,
        "coherent_up_to": points[broken - 1].strength if broken else None,
    }


def _curve(points: Sequence[DosePoint], resamples: int, scale: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "points": [one.to_json(resamples) for one in points],
        "slope": None,
        "spearman": None,
    }
    if len(points) > 1:
        table = 100 * np.stack([one.positive for one in points], axis=1)
        doses = [one.strength for one in points]
        response = dose_response(doses, table, scale=scale, resamples=resamples)
        found["slope"] = {**asdict(response.slope), "unit": response.unit}
        found["spearman"] = response.spearman
    return found


def _point(
    engine: Engine, dose: float, rows: Sequence[Sequence[Sample]], base: float | None
) -> DosePoint:
    scores = np.array([engine.judge(row) for row in rows]).T
    return DosePoint(dose, (scores > 0).astype(np.float64), _ratio(_perplexity(engine, rows), base))


def _perplexity(engine: Engine, rows: Sequence[Sequence[Sample]]) -> float | None:
    """Perplexity of the texts under the unsteered model."""
    texts = [one for row in rows for one in row]
    return perplexity(
        likelihoods(engine.backend, [one.prompt_ids for one in texts], [one.ids for one in texts])
    )


def _ratio(one: float | None, base: float | None) -> float | None:
    return None if one is None or not base else one / base
