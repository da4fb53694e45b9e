"""An evaluation that can say "no effect": a learned intervention beside all of its controls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation.arm_result import ArmResult, compare, measure, points, with_holm
from cogit.evaluation.arms import Role
from cogit.evaluation.control_arms import all_arms
from cogit.evaluation.dose import dose_curve
from cogit.evaluation.engine import ArmRun, Engine, Samples
from cogit.evaluation.neutral import NeutralTexts
from cogit.evaluation.power import power_report
from cogit.evaluation.strengths import matched_arms
from cogit.evaluation.subject import Subject
from cogit.evaluation.suite import SIGNS, Suite
from cogit.evaluation.summary import conditions
from cogit.evaluation.tests_of_difference import sign_flip_p
from cogit.evaluation.thresholds import Settings
from cogit.evaluation.token_view import token_views
from cogit.evaluation.verdicts import Verdict, verdict
from cogit.progress import track

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.evaluation.judges import Judge

FORMAT, FORMAT_VERSION = "cogit evaluation", 1
_N_SHOWN = 3
_POWER = ("n_prompts", "discordance", "detectable_pp", "power_at_threshold", "n_for_80")
# All of their texts are kept; of every other arm those of the first prompts.
_KEPT: tuple[Role, ...] = ("baseline", "learned", "additive")


@dataclass(frozen=True)
class Evaluation:
    """What was found: every arm, the verdict, and the report as JSON."""

    results: tuple[ArmResult, ...]
    verdict: Verdict
    report: Mapping[str, Any]

    def of(self, role: Role) -> list[ArmResult]:
        """The arms of a role, in the order of the report."""
        return [one for one in self.results if one.arm.role == role]

    def to_json(self) -> dict[str, Any]:
        """The format "cogit evaluation", version 1: every number finite or null."""
        return dict(self.report)


def evaluate(
    backend: Backend,
    subject: Subject,
    suite: Suite,
    judge: Judge,
    settings: Settings | None = None,
    *,
    title: str = "",
    show: bool = True,
) -> Evaluation:
    """Run the learned intervention and every control on held-out prompts, and judge them.

    Deterministic on one machine. Raises ValueError before any long work for another model, texts
    that do not fit, or a judge without proper scores, and InterventionError for a learned
    intervention that does not land in the model.
    """
    chosen = settings or Settings()
    suite = suite.limited(chosen.n_prompts)
    subject.learned.identity.require_same_shape(backend.identity)
    engine = Engine(backend, suite, judge, chosen)
    arms = all_arms(subject, chosen, instructed=bool(suite.instructions))
    # Whatever does not land or cannot be judged should show before the long work.
    for one in arms[1].towards.values() if arms[1].towards else ():
        with backend.steer(one):
            pass
    plain = engine.run(arms[0])
    arms = matched_arms(backend, arms, suite.calibration_texts, chosen.match, show=show)
    engine.neutral = NeutralTexts(backend, suite.neutral_texts, subject.learned.layers)
    runs = [plain, *(engine.run(arm) for arm in track(arms[1:], "evaluating", show=show))]
    results = with_holm(
        [
            measure(
                run,
                plain,
                accuracy=engine.neutral.accuracy,
                resamples=chosen.resamples,
                seed=chosen.seed,
            )
            for run in runs
        ],
        chosen.n_tests,
    )
    n_learned = sum(one.arm.role == "learned" for one in results)
    found = verdict(
        results,
        chosen.thresholds,
        subject.facts,
        subject.notes,
        n_tests=max(chosen.n_tests, n_learned),
    )
    report = _report(engine, subject, results, found, judge)
    if title:
        report["title"] = title
    return Evaluation(tuple(results), found, finite(report))


def _report(
    engine: Engine, subject: Subject, results: Sequence[ArmResult], found: Verdict, judge: Judge
) -> dict[str, Any]:
    backend, settings, suite = engine.backend, engine.settings, engine.suite
    learned = next(one for one in results if one.arm.role == "learned")
    plain = results[0]
    power = power_report(
        learned.run.hits, plain.run.hits, min(1.0, settings.thresholds.lift_pp / 100)
    )
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "title": f"Evaluation of {subject.learned.describe()}",
        "backend": backend.name,
        "model": backend.identity.to_json(),
        "intervention": _intervention(subject),
        "settings": _settings(engine, learned, judge),
        "facts": dict(subject.facts),
        "arms": [one.to_json() for one in results],
        "comparisons": _comparisons(results, settings),
        "dose": _doses(engine, results),
        "power": {name: value for name, value in power.to_json().items() if name in _POWER},
        "criteria": [one.to_json() for one in found.criteria],
        "verdict": found.word,
        "reasons": list(found.reasons),
        "summary": conditions(engine, results),
        "records": _records(engine, results, neutral=False),
        "neutral_summary": (
            conditions(engine, results, neutral=True) if suite.neutral_prompts else None
        ),
        "neutral_records": _records(engine, results, neutral=True),
        "tokens": token_views(backend, learned.arm, learned.run.samples, _N_SHOWN),
        "layers": None if subject.layers is None else [dict(row) for row in subject.layers],
    }


def _intervention(subject: Subject) -> dict[str, Any]:
    learned = subject.learned
    return {
        "description": learned.describe(),
        "hash": learned.content_hash,
        "layers": list(learned.layers),
        "strength": learned.strength,
        "operators": [
            {
                "layer": layer,
                "kind": operator.kind,
                "formula": operator.formula,
                "dial": operator.dial,
                "parameters": operator.parameters(),
            }
            for layer, operator in learned.operators.items()
        ],
    }


def _settings(engine: Engine, learned: ArmResult, judge: Judge) -> dict[str, Any]:
    towards = learned.arm.towards or {}
    return {
        **engine.settings.to_json(),
        "judge": judge.describe(),
        "sizes": engine.suite.sizes(),
        "neutral_texts_used": 0 if engine.neutral is None else engine.neutral.n_used,
        "strengths": {f"{sign:+d}": one.strength for sign, one in towards.items()},
        "positions": str(towards[1].positions) if towards else None,
        "hook_point": "resid_post",
    }


def _comparisons(results: Sequence[ArmResult], settings: Settings) -> list[Mapping[str, Any]]:
    """The learned arm minus its rivals, and minus the mean of the random draws."""
    learned = next(one for one in results if one.arm.role == "learned")
    rivals: tuple[Role, ...] = (
        "additive",
        "sign_flipped",
        "diagonal",
        "prompt_only",
        "prompt_and_steer",
    )
    options = {"resamples": settings.resamples, "seed": settings.seed}
    found = [compare(learned, one, **options) for one in results if one.arm.role in rivals]
    by_role = {one.arm.role: one for one in results}
    if "prompt_and_steer" in by_role:
        found.append(compare(by_role["prompt_and_steer"], by_role["prompt_only"], **options))
    for role in ("random", "random_same_subspace", "shuffled"):
        draws = [one for one in results if one.arm.role == role]
        if draws:
            gap = learned.run.hits - np.mean([one.run.hits for one in draws], axis=0)
            lift = points(gap, settings.resamples, settings.seed)
            found.append(
                {
                    "one": learned.arm.name,
                    "other": f"{draws[0].arm.name} (mean of {len(draws)})",
                    "lift_pp": {"mean": lift.mean, "low": lift.low, "high": lift.high},
                    "override_pp": None,
                    "p": sign_flip_p(gap, seed=settings.seed),
                    "mcnemar_p": None,
                }
            )
    return found


def _doses(engine: Engine, results: Sequence[ArmResult]) -> dict[str, Any]:
    doses = engine.settings.doses
    if not doses:
        return {}
    chosen: list[ArmRun] = []
    for role in ("learned", "additive"):
        chosen += [one.run for one in results if one.arm.role == role][:1]
    return {run.arm.name: dose_curve(engine, run, results[0].run, doses) for run in chosen}


def _records(
    engine: Engine, results: Sequence[ArmResult], *, neutral: bool
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in results:
        samples: Samples = one.run.neutral_samples if neutral else one.run.samples
        kept = None if one.arm.role in _KEPT else _N_SHOWN
        baseline = one.arm.role == "baseline"
        rows: list[dict[str, Any]] = []
        for sign in (SIGNS[0],) if baseline else SIGNS:
            for seed, texts in zip(engine.settings.seeds, samples.get(sign, []), strict=False):
                shown = texts[:kept]
                rows += [
                    {
                        "arm": one.arm.name,
                        "draw": one.arm.draw,
                        "sign": 0 if baseline else sign,
                        "seed": seed,
                        "prompt": text.prompt,
                        "text": text.text,
                        "score": float(score),
                    }
                    for text, score in zip(shown, engine.judge(shown), strict=True)
                ]
        found += rows[: engine.settings.max_records]
    return found


def finite(value: Any) -> Any:
    """The same JSON with null for every number that is not finite, and plain Python numbers."""
    if isinstance(value, Mapping):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
