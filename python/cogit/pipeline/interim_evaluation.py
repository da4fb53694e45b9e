"""The evaluation by the demo's evaluator, in the shape of "cogit evaluation", version 1.

It has the arms and controls of the demo at one seed. It stands in for the full evaluation until
that is connected in `cogit.pipeline.evaluate_phase`, and is then to be removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation.evaluate import Arm, ArmResult, EvaluationSet, Evaluator, paired_difference
from cogit.evaluation.judges import make_judge
from cogit.evaluation.verdict import judge as judge_verdict
from cogit.progress import track
from cogit.sampling import Sample, SamplingOptions

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.evaluation.statistics import Interval
    from cogit.intervention import Intervention
    from cogit.pipeline.material import Material
    from cogit.pipeline.plan import Plan


@dataclass(frozen=True)
class Subject:
    """What is evaluated: the operator, its way back where that is its own, and the additive one."""

    learned: Intervention
    opposite: Intervention | None
    additive: Intervention

    def towards(self) -> dict[int, Intervention]:
        back = self.opposite or self.learned.at_strength(-self.learned.strength)
        return {1: self.learned, -1: back}


def evaluate(
    backend: Backend,
    subject: Subject,
    material: Material,
    plan: Plan,
    sampling: SamplingOptions,
    facts: Mapping[str, float],
    *,
    show: bool,
) -> dict[str, Any]:
    """Every arm on the held-out prompts, and the verdict."""
    judge = make_judge(material.judge, backend=backend)

    def label(text: str) -> int:
        sample = Sample("", (), (), text, "length")
        return int(np.sign(judge.scores([sample])[0]))

    opposite = material.opposite or {1: material.prompts, -1: material.prompts}
    data = EvaluationSet(
        material.prompts,
        opposite,
        material.reporting,
        label,
        replace(sampling, seed=plan.eval_seeds[0]),
    )
    evaluator = Evaluator(backend, data)
    work = _arms(subject, plan)
    found = [
        (role, draw, strength, evaluator.run(arm, verify=not arm.control))
        for role, draw, strength, arm in track(work, "evaluating", show=show)
    ]
    results: dict[str, list[ArmResult]] = {}
    for role, _, _, result in found:
        results.setdefault(role, []).append(result)
    verdict = judge_verdict(
        results["learned"][0],
        same_subspace=results["random_same_subspace"],
        random_subspace=results["random"],
        unchanged={name: results[name][0] for name in ("identity", "strength_zero")},
    )
    difference = paired_difference(results["learned"][0], results["additive"][0])
    return {
        "format": "cogit evaluation",
        "format_version": 1,
        "title": f"cogit pipeline, preset {plan.preset}",
        "backend": backend.name,
        "model": backend.identity.to_json(),
        "intervention": {
            "description": subject.learned.describe(),
            "hash": subject.learned.content_hash,
            "layers": list(subject.learned.layers),
            "strength": subject.learned.strength,
            "operators": sorted({one.kind for one in subject.learned.operators.values()}),
        },
        "settings": {"judge": judge.describe(), "seeds": [plan.eval_seeds[0]], "match": "none"},
        "facts": dict(facts),
        "arms": [_arm(role, draw, at, one, len(material.prompts)) for role, draw, at, one in found],
        "comparisons": [
            {
                "one": "learned",
                "other": "additive",
                "lift_pp": _interval(difference["open"]),
                "override_pp": _interval(difference["override"]),
            }
        ],
        "criteria": [
            {"name": one.name, "holds": one.holds, "found": one.found, "decides": True}
            for one in verdict.criteria
        ],
        "verdict": verdict.overall,
        "reasons": [f"{one.name}: {one.found}" for one in verdict.criteria if not one.holds],
        "summary": None,
    }


def _arms(subject: Subject, plan: Plan) -> list[tuple[str, int | None, float, Arm]]:
    ways, learned = subject.towards(), subject.learned
    still = {sign: one.at_strength(0.0) for sign, one in ways.items()}
    at = learned.strength
    found: list[tuple[str, int | None, float, Arm]] = [
        ("baseline", None, 0.0, Arm("baseline", None)),
        ("learned", None, at, Arm("learned", ways)),
        ("additive", None, subject.additive.strength, Arm.both_ways("additive", subject.additive)),
        ("strength_zero", None, 0.0, Arm("strength_zero", still, control=True)),
    ]
    found.append(("identity", None, 0.0, Arm("identity", still, control=True)))
    kinds = (("random_same_subspace", "subspace", plan.n_same_subspace),)
    for role, space, n in (*kinds, ("random", "space", plan.n_random)):
        for draw in range(n):
            seed = plan.chosen_seed + draw + (1000 if role == "random" else 0)
            turned = {sign: _randomised(one, seed, space) for sign, one in ways.items()}
            found.append((role, draw, at, Arm(role, turned)))
    return found


def _randomised(one: Intervention, seed: int, space: str) -> Intervention:
    operators = {
        layer: operator.randomised(seed, space)  # type: ignore[arg-type]
        for layer, operator in one.operators.items()
    }
    return replace(one, operators=operators)


def _arm(
    role: str, draw: int | None, strength: float, one: ArmResult, n_prompts: int
) -> dict[str, Any]:
    plus, minus = (float(value) for value in one.hits_open.mean(axis=0))
    return {
        "name": role if draw is None else f"{role} {draw}",
        "role": role,
        "draw": draw,
        "strength": strength,
        "match": None,
        "n_prompts": n_prompts,
        "n_samples": int(one.hits_open.size),
        "positive_rate": {"+1": plus, "-1": 1.0 - minus},
        "success": one.success,
        "lift_pp": _interval(one.lift),
        "override_pp": _interval(one.override),
        "perplexity_ratio": one.perplexity_ratio,
        "text_kl": one.neutral_kl,
        "repetition": one.repetition,
        "p": None,
    }


def _interval(value: Interval) -> dict[str, float]:
    return {"mean": value.mean, "low": value.low, "high": value.high}
