"""Controls and corrections that could not have failed: each test is of one that once could not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _evaluated import JUDGE, backend, evaluated, settings, states, subject, suite
from _planted import learned
from cogit.evaluation.arm_result import ArmResult, with_holm
from cogit.evaluation.arms import Arm
from cogit.evaluation.control_arms import all_arms, has_subspace
from cogit.evaluation.engine import Engine
from cogit.evaluation.evaluation import evaluate
from cogit.evaluation.judges import FunctionJudge
from cogit.evaluation.neutral import NeutralTexts
from cogit.evaluation.subject import Subject
from cogit.evaluation.thresholds import Thresholds
from cogit.evaluation.verdicts import verdict
from cogit.intervention import Intervention
from cogit.operators import Ablation, Additive, Rotation
from cogit.operators.base import random_basis


@pytest.mark.parametrize("role", ["random", "random_same_subspace"])
def test_a_random_control_turns_back(role: str) -> None:
    """N1. With a way back of its own, both ways of a draw were one vector, and its lift was 0."""
    forth = learned(states(connected=True), "additive")
    (layer,) = forth.layers
    vector = forth.operators[layer].fold(1.0).c
    back = replace(forth, operators={layer: Additive(-vector)})
    both = replace(Subject.from_activations(forth, states(connected=True)), reverse=back)
    draws = [one for one in all_arms(both, settings(), instructed=False) if one.role == role]
    assert draws
    for draw in draws:
        assert draw.towards is not None
        moves = [one.folds()[layer].c for one in draw.towards.values()]
        np.testing.assert_allclose(moves[0], -moves[1])
        assert np.linalg.norm(moves[0]) > 0


def test_a_subspace_that_holds_no_other_operator() -> None:
    """Draws of a plane or of ablated directions lie elsewhere and must not be named its own."""
    identity = states(connected=True).identity
    basis, mean = random_basis(identity.d_model, 2, 0), np.zeros(identity.d_model)
    for operator in (Rotation(basis, 60.0, mean, restore=False), Ablation(basis, mean)):
        assert not has_subspace(Subject(Intervention({2: operator}, identity)))
    assert has_subspace(subject(connected=True))


def result(p: float, name: str) -> ArmResult:
    one = evaluated(connected=True).of("learned")[0]
    arm = replace(one.arm, name=name)
    return replace(one, p=p, run=replace(one.run, arm=arm))


def test_holm_corrects_every_known_p_for_the_unknown_ones() -> None:
    """The whole and one block, of ten tests: the whole's p is not the smallest."""
    found = with_holm([result(0.04, "learned"), result(0.001, "block")], 10)
    assert [one.p_holm for one in found] == pytest.approx([0.36, 0.01])
    # Alone it is multiplied by all.
    assert with_holm([result(0.004, "learned")], 10)[0].p_holm == pytest.approx(0.04)


def test_drift_to_one_class_by_both_directions_does_not_cancel() -> None:
    """Q52."""
    results = list(evaluated(connected=True).results)
    plain = next(one for one in results if one.arm.role == "baseline")
    assert plain.run.neutral_scores is not None
    still = np.full_like(plain.run.neutral_scores, -1.0)
    moved = still.copy()
    moved[: len(moved) // 2] = 1.0  # half of the texts become positive, whichever way is steered
    for one in results:
        if one.arm.role in ("baseline", "learned"):
            scores = still if one is plain else moved
            changed = replace(one, run=replace(one.run, neutral_scores=scores))
            results[results.index(one)] = changed
    criteria = {one.name: one for one in verdict(results, Thresholds(), {}, {}).criteria}
    drift = criteria["drift on neutral prompts"]
    assert drift.holds is False
    assert drift.found == "+50.0 points towards +1, -50.0 towards -1"


def test_a_source_at_another_block_is_measured() -> None:
    """Row Q50. Its displacement was looked up among the learned one's blocks."""
    model = backend(connected=True)
    elsewhere = learned(states(connected=True), "additive", 0)
    neutral = NeutralTexts(model, suite().calibration_texts, (2,))
    known = NeutralTexts(model, suite().calibration_texts, (0,)).displacement(elsewhere)
    # Of float32 states on either path.
    assert neutral.displacement(elsewhere) == pytest.approx(known, rel=1e-3)
    other = replace(elsewhere.identity, d_model=elsewhere.identity.d_model + 1)
    stranger = Intervention({0: Additive(np.ones(other.d_model))}, other)
    with pytest.raises(ValueError, match="expected"):
        Subject(subject(connected=True).learned, source=(stranger, None))


def test_logits_that_differ_by_a_shift_are_not_the_same() -> None:
    """A divergence of exactly 0 does not prove that nothing changed."""
    model = backend(connected=True)
    neutral = NeutralTexts(model, suite().neutral_texts, (2,))
    assert neutral.cost().same
    neutral._plain = [rows + np.float32(1.0) for rows in neutral._plain]
    shifted = neutral.cost()
    assert not shifted.same
    assert shifted.kl < 1e-9


def test_both_instructions_must_fit() -> None:
    """The one that is longer in characters may be shorter in tokens."""
    short_words = " ".join(["a"] * 58)
    one_word = "b" * 200
    with pytest.raises(ValueError, match="context"):
        Engine(
            backend(connected=True),
            suite(instructions={1: short_words, -1: one_word}),
            JUDGE,
            settings(),
        )


def test_a_judge_that_never_decides_finds_no_effect() -> None:
    silent = FunctionJudge("silent", lambda _: 0.0)
    few = settings(seeds=(42,), doses=(), n_same_subspace=1, n_shuffled=1, n_prompts=2)
    found = evaluate(
        backend(connected=True), subject(connected=True), suite(), silent, few, show=False
    )
    assert found.verdict.word == "no effect"
    assert found.of("learned")[0].p == 1.0


def test_settings_are_checked_before_a_model_is_loaded(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cogit.cli.main import app

    call: list[Any] = ["evaluate", "--intervention", str(tmp_path / "none"), "--seeds", "42,42"]
    outcome = CliRunner().invoke(app, call)
    assert outcome.exit_code != 0
    assert "distinct seeds" in str(outcome.exception) + outcome.output


def arm_of(role: str) -> Arm:
    return next(one.arm for one in evaluated(connected=True).results if one.arm.role == role)


def test_the_unchanged_arms_are_still_exact() -> None:
    for role in ("identity", "strength_zero"):
        assert arm_of(role).control
    for one in evaluated(connected=True).results:
        if one.arm.control:
            assert one.run.same_logits is True
            assert one.run.changed is False
