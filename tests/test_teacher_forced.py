"""The teacher-forced contrast with its budget: by hand, both ways, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from _planted import FACTS, PLANTED_LAYER, Run, learned, run, sampling, texts
from _planted import pairs as planted_pairs
from cogit.evaluation.calibrate import CalibrationSet, Calibrator, Candidate
from cogit.evaluation.teacher_forced import Budget, Score, TeacherForced, neutral_divergence


@pytest.fixture(scope="module")
def planted() -> Run:
    return run(connected=True)


PAIRS = planted_pairs(16, 61, n_plain=4, n_class=1)
NEUTRAL = texts(6, 62, FACTS, 8)


@pytest.fixture(scope="module")
def scorer(planted: Run) -> TeacherForced:
    return TeacherForced(planted.backend, PAIRS, NEUTRAL)


def candidates(planted: Run, strengths: tuple[float, ...]) -> list[Candidate]:
    return [
        Candidate(
            {"layer": layer, "strength": s}, learned(planted.activations, "additive", layer, s)
        )
        for layer in planted.activations.layers
        for s in strengths
    ]


def test_the_contrast_is_the_calibrators(planted: Run, scorer: TeacherForced) -> None:
    """Two implementations over the same pairs; the other one takes means and generates text."""
    data = CalibrationSet(PAIRS, texts(4, 63, FACTS, 4), NEUTRAL, sampling())
    other = Calibrator(planted.backend, data)
    candidate = Candidate({}, planted.additive)
    score = scorer.score(planted.additive)
    assert score.per_pair.shape == (16,)
    # Float32 logits in batches of other sizes.
    assert score.contrast == pytest.approx(other.contrast(candidate), abs=1e-4)
    assert score.neutral_kl == pytest.approx(other.cost(candidate)["neutral_kl"], abs=1e-6)


def test_the_targets_own_texts_by_hand(planted: Run, scorer: TeacherForced) -> None:
    from cogit.evaluation.measures import log_likelihoods

    backend, rises = planted.backend, []
    for sign, name in ((1, "positive"), (-1, "negative")):
        ids = [backend.tokenize(getattr(pair, name)) for pair in PAIRS]
        plain = np.concatenate(log_likelihoods(backend, ids))
        with backend.steer(planted.additive.at_strength(sign)):
            rises.append(plain.mean() - np.concatenate(log_likelihoods(backend, ids)).mean())
    assert scorer.score(planted.additive).target_nll == pytest.approx(np.mean(rises), abs=1e-5)


def test_strength_zero_scores_nothing(planted: Run, scorer: TeacherForced) -> None:
    score = scorer.score(planted.additive.at_strength(0.0))
    assert not score.per_pair.any()
    assert (score.target_nll, score.neutral_kl) == (0.0, 0.0)
    assert score.within(Budget(0.0, 0.0))


def test_turning_the_strength_turns_the_contrast(planted: Run, scorer: TeacherForced) -> None:
    forth, back = (scorer.score(planted.additive.at_strength(s)) for s in (0.5, -0.5))
    np.testing.assert_allclose(forth.per_pair, -back.per_pair, atol=1e-9)
    assert forth.neutral_kl == pytest.approx(back.neutral_kl, rel=1e-12)
    assert neutral_divergence(
        planted.backend, planted.additive.at_strength(0.5), NEUTRAL
    ) == pytest.approx(forth.neutral_kl, rel=1e-12)


def test_a_way_back_of_its_own_serves_the_other_direction(
    planted: Run, scorer: TeacherForced
) -> None:
    made = learned(planted.activations, "additive")
    one, other = scorer.score(made), scorer.score(made, made.at_strength(-made.strength))
    np.testing.assert_array_equal(other.per_pair, one.per_pair)
    assert (other.target_nll, other.neutral_kl) == (one.target_nll, one.neutral_kl)
    # Going the same way twice, the two directions cancel.
    twice = scorer.contrast(made, made)[0]
    np.testing.assert_allclose(twice, 0.0, atol=1e-12)


def test_the_best_within_the_budget_is_chosen(planted: Run, scorer: TeacherForced) -> None:
    budget = Budget(target_nll=0.5, neutral_kl=0.02)
    choice = scorer.choose(candidates(planted, (0.5, 1.0, 2.0, 3.0)), budget, show=False)
    assert choice.chosen.settings["layer"] == PLANTED_LAYER
    assert choice.score.within(budget)
    contrasts = [row["contrast"] for row in choice.table]
    assert contrasts == sorted(contrasts, reverse=True)
    assert len(choice.table) == 12
    for row in choice.table:
        if row["contrast"] > choice.score.contrast:
            over = row["target_nll_rise"] > budget.target_nll
            assert over or row["neutral_kl"] > budget.neutral_kl


def test_no_candidate_within_the_budget_is_refused(planted: Run, scorer: TeacherForced) -> None:
    with pytest.raises(ValueError, match=r"^\[calibrate\] expected .* got none of 3 .*smaller"):
        scorer.choose(candidates(planted, (2.0,)), Budget(0.5, 0.0), show=False)
    assert planted.backend.intervention is None


def test_at_budget_takes_the_largest_that_fits(planted: Run, scorer: TeacherForced) -> None:
    kl = scorer.score(planted.additive).neutral_kl
    budget = Budget(target_nll=np.inf, neutral_kl=1.01 * kl)
    found = scorer.at_budget(planted.additive, budget, (0.5, 1.0, 2.0))
    assert found is not None
    assert found[0] == 1.0
    assert scorer.at_budget(planted.additive, Budget(0.0, 0.0), (0.5, 1.0)) is None


def test_a_broken_model_scores_no_number(planted: Run, scorer: TeacherForced) -> None:
    score = Score(np.array([np.nan, 1.0]), 0.0, np.inf)
    assert not score.within(Budget())
    assert np.isnan(score.contrast)


@pytest.mark.parametrize(("pairs", "neutral"), [([], NEUTRAL), (PAIRS, [])])
def test_effect_and_cost_are_both_needed(planted: Run, pairs: Any, neutral: Any) -> None:
    with pytest.raises(ValueError, match=r"^\[contrast\] expected pairs and neutral texts"):
        TeacherForced(planted.backend, pairs, neutral)
