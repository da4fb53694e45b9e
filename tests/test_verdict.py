"""The verdict: every criterion alone can say no."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from _results import PLAIN, result, verdict
from cogit.evaluation.statistics import Interval
from cogit.evaluation.verdict import MIN_CONTROLS, judge

LIFT, COST, SAME, ELSEWHERE, EXACT = range(5)


def controls(*lifts: float) -> list[Any]:
    return [result("control", lift) for lift in lifts]


def test_all_criteria_hold() -> None:
    found = verdict()
    assert found.overall == "effect"
    assert len(found.criteria) == 5
    assert all(criterion.holds for criterion in found.criteria)


MOVED = Interval(0.5, 0.0, 1.0)
FAILURES: dict[str, tuple[int, dict[str, Any]]] = {
    "small lift": (LIFT, {"unitary": result("unitary", 9.9)}),
    "lift the wrong way": (LIFT, {"unitary": result("unitary", -38.0)}),
    "no lift": (LIFT, {"unitary": result("unitary", 0.0)}),
    "interval touches 0": (LIFT, {"unitary": replace(result("u"), lift=Interval(12.0, 0.0, 24.0))}),
    "costly text": (COST, {"unitary": result("unitary", 38.0, perplexity_ratio=1.151)}),
    "one strong control": (SAME, {"random_same_subspace": controls(*[0.0] * 7, 40.0)}),
    "an equal control": (SAME, {"random_same_subspace": controls(*[0.0] * 7, 38.25)}),
    "random subspaces lift": (ELSEWHERE, {"random_subspace": controls(*[5.1] * 8)}),
    "random subspaces sink": (ELSEWHERE, {"random_subspace": controls(*[-5.1] * 8)}),
    "identity lifts": (EXACT, {"identity": replace(PLAIN, lift=MOVED)}),
    "strength 0 overrides": (EXACT, {"strength_zero": replace(PLAIN, override=MOVED)}),
    "strength 0 moves logits": (EXACT, {"strength_zero": replace(PLAIN, neutral_kl=1e-12)}),
    "a lift that averages out": (
        EXACT,
        {"identity": replace(PLAIN, lift=Interval(0.0, -1.0, 1.0))},
    ),
}
# A learned lift this small is also below the strongest control of the made-up results; here the
# controls are quiet, so that each failure is one criterion's own.
QUIET = {"random_same_subspace": controls(*[-60.0] * 8)}


@pytest.mark.parametrize("name", FAILURES)
def test_one_failing_criterion_is_enough(name: str) -> None:
    index, changes = FAILURES[name]
    found = verdict(**(QUIET | changes))
    assert found.overall == "no effect"
    assert [i for i, criterion in enumerate(found.criteria) if not criterion.holds] == [index]


def test_limits_belong_to_the_criteria() -> None:
    found = verdict(
        **QUIET,
        unitary=replace(result("u", perplexity_ratio=1.15), lift=Interval(10.0, 0.1, 20.0)),
        random_subspace=controls(*[5.0] * 8),
    )
    assert found.overall == "effect"


def test_random_subspaces_are_judged_by_their_mean() -> None:
    assert verdict(random_subspace=controls(30.0, -30.0, *[0.0] * 6)).overall == "effect"


@pytest.mark.parametrize("kind", ["random_same_subspace", "random_subspace"])
def test_too_few_controls_are_an_error(kind: str) -> None:
    few = controls(*[0.0] * (MIN_CONTROLS - 1))
    with pytest.raises(ValueError, match=r"^\[verdict\] expected at least 8 random controls"):
        verdict(**{kind: few})


def test_nothing_that_must_be_unchanged_is_an_error() -> None:
    many = controls(*[0.0] * MIN_CONTROLS)
    with pytest.raises(ValueError, match=r"^\[verdict\] expected at least one arm"):
        judge(result("u", 38.0), same_subspace=many, random_subspace=many, unchanged={})


def test_criteria_say_what_was_found() -> None:
    found = verdict(identity=replace(PLAIN, lift=MOVED))
    texts = [criterion.found for criterion in found.criteria]
    assert texts[LIFT] == "+38.2 [35.2, 41.2]"
    assert texts[COST] == "1.050"
    assert texts[SAME] == "strongest of them +5.0"
    assert texts[ELSEWHERE] == "+0.2"
    assert texts[EXACT] == "identity CHANGED, strength_zero exact"


def test_a_verdict_as_json() -> None:
    found = verdict()
    data = json.loads(json.dumps(found.to_json()))
    assert data["overall"] == "effect"
    assert len(data["criteria"]) == 5
    for entry, criterion in zip(data["criteria"], found.criteria, strict=True):
        assert entry == {
            "name": criterion.name,
            "holds": criterion.holds,
            "found": criterion.found,
        }
