"""The evaluator on a model with a planted effect, and on the same model without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from _planted import PLANTED_LAYER, READOUT, Run, evaluation_set, judge, learned, run
from cogit.evaluation.evaluate import Arm, Evaluator, paired_difference
from cogit.evaluation.statistics import Interval
from cogit.evaluation.verdict import Verdict
from cogit.evaluation.verdict import judge as reach_verdict
from cogit.subspace import fit_subspace

ZERO = Interval(0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def planted() -> Run:
    return run(connected=True)


@pytest.fixture(scope="module")
def unplanted() -> Run:
    return run(connected=False)


def verdict_of(found: Run) -> Verdict:
    return reach_verdict(
        found.result("unitary"),
        same_subspace=found.results("random_same_subspace"),
        random_subspace=found.results("random_subspace"),
        unchanged={name: found.result(name) for name in ("identity", "strength_zero")},
    )


def test_the_fitted_direction_is_the_planted_one(planted: Run) -> None:
    direction = fit_subspace(planted.activations, PLANTED_LAYER).direction
    # The words' own class dimension, 4 beside about 12 of the readout, takes the rest: .95.
    assert direction[READOUT] > 0.9


@pytest.mark.parametrize("kind", ["unitary", "additive"])
def test_a_planted_effect_is_found(planted: Run, kind: str) -> None:
    found = planted.result(kind)
    assert found.lift.low > 0
    assert found.override.low > 0
    # Unsteered text goes either way; steered text follows with odds of e³ and more.
    assert planted.result("unsteered").success == pytest.approx(0.5, abs=0.1)
    assert found.success > 0.9
    assert found.neutral_kl > 0


def test_the_verdict_on_the_planted_model_is_an_effect(planted: Run) -> None:
    verdict = verdict_of(planted)
    assert verdict.overall == "effect", verdict.criteria


def test_the_verdict_on_the_unplanted_model_is_no_effect(unplanted: Run) -> None:
    verdict = verdict_of(unplanted)
    assert verdict.overall == "no effect"
    # Cost and exact controls hold there: it is the effect that is missing.
    assert not verdict.criteria[0].holds
    assert verdict.criteria[1].holds
    assert verdict.criteria[4].holds


@pytest.mark.parametrize("kind", ["unitary", "additive"])
def test_without_the_plant_there_is_no_lift(unplanted: Run, kind: str) -> None:
    found = unplanted.result(kind)
    assert found.lift.contains(0.0)
    # The logits move a little, since a longer state shrinks under the final norm: no false zero.
    assert found.neutral_kl > 0


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("name", ["identity", "strength_zero"])
def test_controls_that_change_nothing_are_exactly_the_plain_model(
    name: str, connected: bool
) -> None:
    found, plain = (
        run(connected=connected).result(name),
        run(connected=connected).result("unsteered"),
    )
    assert found.lift == ZERO
    assert found.override == ZERO
    assert found.neutral_kl == 0.0
    assert found.perplexity_ratio == plain.perplexity_ratio
    assert found.examples == plain.examples


def test_the_unsteered_arm_is_its_own_baseline(planted: Run) -> None:
    plain = planted.result("unsteered")
    assert plain.lift == ZERO
    assert plain.override == ZERO
    assert plain.neutral_kl == 0.0
    # The same tokens averaged once and twice: float64 sums in another order.
    assert plain.perplexity_ratio == pytest.approx(1.0, abs=1e-9)


def test_common_random_numbers(planted: Run) -> None:
    data = evaluation_set()
    first, again = (planted.backend.generate(data.open_prompts, data.sampling) for _ in range(2))
    assert first == again
    assert first[0] == planted.result("unsteered").examples[0]
    other = planted.backend.generate(data.open_prompts, replace(data.sampling, seed=4))
    assert [sample.text for sample in other] != [sample.text for sample in first]


def test_a_second_evaluator_finds_the_same(planted: Run) -> None:
    again = Evaluator(planted.backend, evaluation_set()).run(planted.arms["unitary"][0])
    assert again.to_json() == planted.result("unitary").to_json()
    assert again.examples == planted.result("unitary").examples


def test_hits_are_what_the_judge_says(planted: Run) -> None:
    found = planted.result("unitary")
    assert found.hits_open.shape == (48, 2)
    assert found.hits_opposite.shape == (48,)
    assert found.success == found.hits_open.mean()
    assert found.override_success == found.hits_opposite.mean()
    # Examples are the first prompts, towards +1 and -1 in turn.
    judged = [judge(sample.text) for sample in found.examples]
    expected = [hit for row in found.hits_open[:3] for hit in row]
    assert [float(s == t) for s, t in zip(judged, (1, -1) * 3, strict=True)] == expected


def test_both_ways_steers_each_way(planted: Run) -> None:
    arm = Arm.both_ways("additive", planted.additive.at_strength(0.7))
    assert arm.interventions is not None
    assert {sign: chosen.strength for sign, chosen in arm.interventions.items()} == {
        1: 0.7,
        -1: -0.7,
    }
    shares = [
        planted.evaluator.share_positive(planted.additive.at_strength(dose))
        for dose in (-1.0, 0.0, 1.0)
    ]
    assert shares[0] < 0.1
    assert 0.3 < shares[1] < 0.7
    assert shares[2] > 0.9


def test_an_effect_costs_more_when_steering_is_stronger(planted: Run) -> None:
    strong = planted.evaluator.run(Arm.both_ways("strong", planted.additive.at_strength(3.0)))
    plain = planted.result("additive")
    assert strong.neutral_kl > plain.neutral_kl
    # Beyond the classes the plant answers with junk words that plain text never holds.
    assert strong.perplexity_ratio > 5 > plain.perplexity_ratio


def test_steering_before_the_plant_moves_less(planted: Run) -> None:
    early = planted.evaluator.run(
        Arm.both_ways("early", learned(planted.activations, "additive", 0))
    )
    gap = paired_difference(planted.result("additive"), early)
    assert gap["open"].low > 0


def test_the_model_is_left_unsteered(planted: Run) -> None:
    planted.result("unitary")
    assert planted.backend.intervention is None
    wrong = replace(planted.unitary, identity=replace(planted.unitary.identity, n_layers=7))
    with pytest.raises(ValueError, match="expected a model with 7 blocks"):
        planted.evaluator.run(Arm.both_ways("wrong", wrong))
    assert planted.backend.intervention is None


def test_paired_difference(planted: Run) -> None:
    one, other = planted.result("unitary"), planted.result("additive")
    assert paired_difference(one, one) == {"open": ZERO, "override": ZERO}
    forth, back = paired_difference(one, other), paired_difference(other, one)
    for label, (a, b) in {
        "open": (one.lift, other.lift),
        "override": (one.override, other.override),
    }.items():
        # Paired on the same prompts, so the mean is the difference of means: float64 sums.
        assert forth[label].mean == pytest.approx(a.mean - b.mean, abs=1e-9)
        assert back[label].mean == pytest.approx(-forth[label].mean, abs=1e-9)
        # Percentiles of the same resamples mirror; quantiles interpolate to rounding.
        assert back[label].low == pytest.approx(-forth[label].high, abs=1e-9)


def test_a_result_as_json(planted: Run) -> None:
    found = planted.result("unitary")
    data = found.to_json()
    assert data["lift_pp"] == found.lift.mean
    assert data["ci"] == [found.lift.low, found.lift.high]
    assert data["override_ci"] == [found.override.low, found.override.high]
    assert data["success"] == found.success
    assert data["perplexity_ratio"] == found.perplexity_ratio
    assert data["neutral_kl"] == found.neutral_kl


def test_two_prompts_are_enough_for_examples(planted: Run) -> None:
    data = evaluation_set()
    few = replace(data, open_prompts=data.open_prompts[:2], opposite={1: ["bad1"], -1: ["good1"]})
    assert len(Evaluator(planted.backend, few).run(Arm("unsteered", None)).examples) == 4
