"""The verdict: what has to hold before a report may speak of an effect.

Three kinds of criteria. Those of the effect decide between "effect" and "no effect". Those of the
cost turn an effect into one "beyond the budget". Separation and fidelity are shown and never
decide, since neither says that a text changes (DESIGN.md, section 5). One that could not be
measured says so: it does not hold, and where the evaluation rests on it there is no effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cogit.evaluation.arm_result import ArmResult
from cogit.evaluation.arms import Role
from cogit.evaluation.statistics import bootstrap_mean
from cogit.evaluation.tests_of_difference import rank_p
from cogit.evaluation.thresholds import RANK_DRAWS, Thresholds

Kind = Literal["effect", "cost", "shown"]
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Criterion:
    """One condition. holds: None where it was not measured, and ``found`` says why.

    required: without it there is no effect, even where it could not be measured.
    """

    name: str
    holds: bool | None
    found: str
    expected: str
    kind: Kind = "effect"
    required: bool = True

    @property
    def decides(self) -> bool:
        return self.kind != "shown"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "holds": self.holds,
            "found": self.found,
            "expected": self.expected,
            "decides": self.decides,
        }


@dataclass(frozen=True)
class Verdict:
    """``effect``, ``effect beyond the budget`` or ``no effect``, and why."""

    word: str
    reasons: tuple[str, ...]
    criteria: tuple[Criterion, ...]


def verdict(
    results: Sequence[ArmResult],
    thresholds: Thresholds,
    facts: Mapping[str, float | None],
    notes: Mapping[str, str],
    n_tests: int = 1,
) -> Verdict:
    """Hold the learned arm against every other.

    notes: why a control is missing, by role. n_tests: how many p-values the correction is over.
    """
    learned = next(one for one in results if one.arm.role == "learned")
    plain = next(one for one in results if one.arm.role == "baseline")
    criteria = (
        _lift(learned, thresholds),
        _permutation(learned, thresholds, n_tests),
        _random(learned, _of(results, "random"), thresholds),
        _above_all(
            learned,
            _of(results, "random_same_subspace"),
            "random operators of the same subspace",
            notes.get("random_same_subspace", "no other operator of the family fits into it"),
        ),
        _above_mean(
            learned,
            _of(results, "shuffled"),
            "fits to shuffled classes",
            notes.get("shuffled", "no contrast pairs were given"),
        ),
        _exact([*_of(results, "identity"), *_of(results, "strength_zero")]),
        _flipped(_of(results, "sign_flipped")),
        *_costs(learned, plain, thresholds),
        *_shown(facts, thresholds),
    )
    word = _word(criteria)
    return Verdict(word, tuple(_reasons(word, criteria)), criteria)


def _word(criteria: Sequence[Criterion]) -> str:
    for one in criteria:
        if one.kind == "effect" and (one.holds is False or (one.holds is None and one.required)):
            return "no effect"
    if any(one.kind == "cost" and one.holds is False for one in criteria):
        return "effect beyond the budget"
    return "effect"


def _reasons(word: str, criteria: Sequence[Criterion]) -> list[str]:
    found: list[str] = []
    failed = [one for one in criteria if one.decides and one.holds is False]
    missing = [one for one in criteria if one.decides and one.holds is None]
    if word != "no effect":
        found += [
            f"{one.name}: {one.found}" for one in criteria if one.kind == "effect" and one.holds
        ]
    found += [f"fails: {one.name}: {one.found}, expected {one.expected}" for one in failed]
    found += [f"{one.name}: {one.found}" for one in missing]
    return found


# ---- the effect ----


def _lift(learned: ArmResult, limits: Thresholds) -> Criterion:
    lift = learned.lift
    return Criterion(
        "lift on held-out prompts",
        lift.mean >= limits.lift_pp and lift.low > 0,
        f"{lift.mean:+.1f} [{lift.low:.1f}, {lift.high:.1f}] points",
        f"at least {limits.lift_pp:g} points, interval above 0",
    )


def _permutation(learned: ArmResult, limits: Thresholds, n_tests: int) -> Criterion:
    p = learned.p_holm
    assert p is not None
    arms = "" if n_tests == 1 else f", corrected over {n_tests} tests"
    return Criterion(
        "permutation test over prompts",
        p < limits.level and learned.lift.mean > 0,
        f"p = {p:.2g}{arms}",
        f"p below {limits.level:g}",
    )


def _random(learned: ArmResult, draws: Sequence[ArmResult], limits: Thresholds) -> Criterion:
    name = "above random operators of the same family"
    expected = f"rank p below {limits.level:g} among {RANK_DRAWS} draws or more"
    lowest = 1.0 / (1 + len(draws))
    if not lowest < limits.level:
        return Criterion(
            name,
            None,
            f"{NOT_MEASURED}: {len(draws)} draws allow no p below {lowest:.2g}",
            expected,
        )
    lifts = np.array([one.lift.mean for one in draws])
    p = rank_p(learned.lift.mean, lifts)
    found = f"rank p = {p:.2g}; {_spread(lifts)}{_matched(draws)}"
    return Criterion(name, p < limits.level, found, expected)


def _above_all(
    learned: ArmResult, draws: Sequence[ArmResult], what: str, missing: str
) -> Criterion:
    name, expected = f"above {what}", "a larger lift than every draw's"
    if not draws:
        return Criterion(name, None, f"{NOT_MEASURED}: {missing}", expected, required=False)
    lifts = np.array([one.lift.mean for one in draws])
    holds = bool(learned.lift.mean > lifts.max())
    return Criterion(name, holds, f"{_spread(lifts)}{_matched(draws)}", expected, required=False)


def _above_mean(
    learned: ArmResult, draws: Sequence[ArmResult], what: str, missing: str
) -> Criterion:
    """Above the mean of the draws, paired by prompt.

    Classes exchanged in half of the pairs leave a direction along whatever varies most, often the
    class axis itself, with a random sign; at the learned one's cost a single draw may then steer as
    well as it, to either class.
    """
    name, expected = f"above {what}", "a lift above the draws' mean, interval above 0"
    if not draws:
        return Criterion(name, None, f"{NOT_MEASURED}: {missing}", expected, required=False)
    mean = np.mean([one.run.hits for one in draws], axis=0)
    gap = bootstrap_mean(100 * (learned.run.hits - mean))
    spread = _spread(np.array([one.lift.mean for one in draws]))
    found = f"{gap.mean:+.1f} [{gap.low:.1f}, {gap.high:.1f}] points; {spread}{_matched(draws)}"
    return Criterion(name, gap.low > 0, found, expected, required=False)


def _exact(controls: Sequence[ArmResult]) -> Criterion:
    changed = [one.arm.name for one in controls if one.run.changed]
    found = f"{' and '.join(changed)} changed" if changed else "no token and no logit is another"
    return Criterion(
        "identity and strength 0 change nothing",
        bool(controls) and not changed,
        found if controls else f"{NOT_MEASURED}: neither was run",
        "the very tokens and logits of the unsteered model",
    )


def _flipped(arms: Sequence[ArmResult]) -> Criterion:
    name, expected = "the sign-flipped operator does not lift", "an interval that is not above 0"
    if not arms:
        return Criterion(name, None, f"{NOT_MEASURED}: it was not run", expected)
    lift = arms[0].lift
    found = f"{lift.mean:+.1f} [{lift.low:.1f}, {lift.high:.1f}] points"
    return Criterion(name, lift.low <= 0, found, expected)


def _of(results: Sequence[ArmResult], role: Role) -> list[ArmResult]:
    return [one for one in results if one.arm.role == role]


def _spread(lifts: Any) -> str:
    return f"{len(lifts)} draws lift {lifts.min():+.1f} to {lifts.max():+.1f}"


def _matched(draws: Sequence[ArmResult]) -> str:
    known = [one.arm.match for one in draws if one.arm.match is not None]
    if not known:
        return ", not matched"
    short = sum(not one.exact for one in known)
    louder = sum(one.amplified != 1.0 for one in known)
    text = f", {louder} of {len(known)} with a larger amplitude" if louder else ""
    if short:
        text += f", {short} of {len(known)} could not be brought to the learned one's cost"
    return text


# ---- the cost, and what is only shown ----


def _costs(learned: ArmResult, plain: ArmResult, limits: Thresholds) -> list[Criterion]:
    drift, ratio = _drifts(learned, plain), learned.perplexity_ratio
    found: list[Criterion] = [
        _bounded(
            "drift on neutral prompts",
            None if drift is None else max(map(abs, drift)) <= limits.drift_pp,
            ""
            if drift is None
            else f"{drift[0]:+.1f} points towards +1, {drift[1]:+.1f} towards -1",
            f"at most {limits.drift_pp:g} points either way, in each direction",
            "no neutral prompts were given",
        ),
        _bounded(
            "perplexity under the unsteered model",
            None if ratio is None else ratio < limits.perplexity_ratio,
            "" if ratio is None else f"{ratio:.3f} times that of unsteered text",
            f"below {limits.perplexity_ratio:g} times",
            "no tokens were generated",
        ),
        _bounded(
            "capability on neutral texts",
            None if learned.capability is None else learned.capability >= limits.capability,
            "" if learned.capability is None else f"{learned.capability:.1%} of unsteered accuracy",
            f"at least {limits.capability:.0%}",
            "the unsteered model is right about too few tokens of the neutral texts",
        ),
    ]
    return [*found, _relevance(learned.run.relevance, plain.run.relevance, limits)]


def _drifts(learned: ArmResult, plain: ArmResult) -> list[float] | None:
    """Points gained on neutral prompts by each direction.

    In their mean, a shift that both make to the same class would cancel.
    """
    one, other = learned.run.neutral_scores, plain.run.neutral_scores
    if one is None or other is None:
        return None
    gain = learned.run.hits_of(one) - plain.run.hits_of(other)
    return [float(points) for points in 100 * gain.mean(axis=(0, 1))]


def _relevance(share: float | None, plain: float | None, limits: Thresholds) -> Criterion:
    measurable = plain is not None and plain > limits.relevance
    why = (
        "no continuations to compare"
        if plain is None
        else f"the unsteered model's own continuations reach only {plain:.2f}"
    )
    return _bounded(
        "relevance to the prompt",
        None if share is None or not measurable else share > limits.relevance,
        "" if share is None or plain is None else f"{share:.2f}, unsteered {plain:.2f}",
        f"above {limits.relevance:g}",
        why,
    )


def _bounded(name: str, holds: bool | None, found: str, expected: str, why: str) -> Criterion:
    told = f"{NOT_MEASURED}: {why}" if holds is None else found
    return Criterion(name, holds, told, expected, "cost", required=False)


def _shown(facts: Mapping[str, float | None], limits: Thresholds) -> list[Criterion]:
    rows = (
        ("separation of the classes", "separation_gap", limits.separation, "no contrast pairs"),
        ("fidelity to +1", "fidelity_to_positive", limits.fidelity, "no unitary on states"),
        ("fidelity to -1", "fidelity_to_negative", limits.fidelity, "no unitary on states"),
    )
    shown: list[Criterion] = []
    for name, key, limit, why in rows:
        value = facts.get(key)
        found = f"{NOT_MEASURED}: {why}" if value is None else f"{value:.3f}"
        holds = None if value is None else value >= limit
        shown.append(Criterion(name, holds, found, f"at least {limit:g}", "shown", False))
    return shown
