"""The parts of an evaluation by themselves: material, settings, matching, verdict, measures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from _evaluated import JUDGE, backend, settings, states, subject, suite
from _planted import judge, learned
from cogit.errors import InterventionError
from cogit.evaluation.arms import Arm, both_ways
from cogit.evaluation.continuations import batches, likelihoods, perplexity, relevance
from cogit.evaluation.control_arms import all_arms, has_subspace
from cogit.evaluation.engine import Engine
from cogit.evaluation.evaluation import evaluate, finite
from cogit.evaluation.judges import FunctionJudge
from cogit.evaluation.matching import find_factor, turn_limit
from cogit.evaluation.neutral import NeutralTexts
from cogit.evaluation.strengths import matched_arms
from cogit.evaluation.subject import Subject
from cogit.evaluation.suite import Suite
from cogit.evaluation.thresholds import SIZES, Settings, Thresholds
from cogit.evaluation.token_view import pieces
from cogit.intervention import Intervention
from cogit.operators import Additive, Composed, Diagonal, Rotation, Unitary
from cogit.operators.base import random_basis
from cogit.sampling import Sample

# ---- material and settings ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ("only one",)}, "at least 2 prompts, got 1"),
        ({"prompts": ("a", "  ")}, "not empty, got '  ' in prompts"),
        ({"prompts": ("a b", "a  B")}, "every text once, got 'a  B' twice in prompts"),
        ({"neutral_texts": ()}, "at least 1 neutral texts, got 0"),
        ({"calibration_texts": ()}, "at least 1 calibration texts, got 0"),
        ({"instructions": {1: "be glad"}}, r"instructions for both signs, 1 and -1, .*got \[1\]"),
        ({"instructions": {1: "be glad", -1: ""}}, r"for both signs, .*got \[1\]"),
        ({"opposite": {1: ("a",), -1: ("b", "c")}}, "as many opposite prompts"),
        ({"opposite": {1: ("a",), 2: ("b",)}}, "for both signs"),
    ],
)
def test_material_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        suite(**changes)


def test_parts_that_share_a_text_are_refused() -> None:
    """Q53: test, calibration, neutral and training texts are apart."""
    made = suite()
    names = ("prompts", "neutral_prompts", "neutral_texts", "calibration_prompts")
    for one, other in itertools.permutations((*names, "calibration_texts"), 2):
        shared = {one: (*getattr(made, one), getattr(made, other)[0].upper())}
        with pytest.raises(ValueError, match=r"^\[overlap\]"):
            replace(made, **shared)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="in prompts and in training"):
        made.require_unseen([made.prompts[3]])
    made.require_unseen(["a text of its own", "a text of its own"])


def test_a_limited_suite_keeps_the_first() -> None:
    few = suite().limited(5)
    assert few.prompts == suite().prompts[:5]
    assert len(few.opposite[1]) == len(few.neutral_prompts) == 5
    assert few.neutral_texts == suite().neutral_texts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"match": "cost"}, "expected a match among"),
        ({"seeds": ()}, "expected distinct seeds"),
        ({"seeds": (1, 1)}, "expected distinct seeds"),
        ({"seeds": (-1,)}, "expected distinct seeds"),
        ({"doses": (0.0, math.nan)}, "expected distinct finite doses"),
        ({"n_random": -1}, "n_random of at least 0"),
        ({"resamples": 10}, "resamples of at least 100"),
        ({"n_prompts": 1}, "n_prompts of at least 2"),
        ({"n_tests": 0}, "n_tests of at least 1"),
    ],
)
def test_settings_that_cannot_be_run(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


def test_thresholds_are_those_of_the_row() -> None:
    """Q52, with n = 1000 as a size to choose."""
    limits = Thresholds()
    assert (limits.lift_pp, limits.drift_pp, limits.separation, limits.fidelity) == (
        10,
        3,
        0.05,
        0.95,
    )
    assert (limits.perplexity_ratio, limits.relevance, limits.capability) == (1.5, 0.7, 0.95)
    assert SIZES["n1000"] == 1000
    assert Settings.of_size("n1000").n_prompts == 1000
    assert Settings().seeds == (42, 43, 44, 45)
    assert Settings().resamples == 2000
    assert Settings.quick().n_random == 20
    with pytest.raises(ValueError, match="size among"):
        Settings.of_size("huge")
    with pytest.raises(ValueError, match="lift_pp above zero"):
        Thresholds(lift_pp=math.nan)
    with pytest.raises(ValueError, match="level below 1"):
        Thresholds(level=1.0)


# ---- judges ----


class Judged:
    """A judge that gives what it was told to."""

    name = "made up"

    def __init__(self, give: Callable[[int], Any]) -> None:
        self.give = give
        self.asked = 0

    def scores(self, samples: Sequence[Sample]) -> Any:
        self.asked += len(samples)
        return self.give(len(samples))

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda n: np.full(n, np.nan), r"scores in \[-1, 1\] from made up, got nan"),
        (lambda n: np.full(n, 1.5), r"got 1.5"),
        (lambda n: np.zeros(n + 1), "one score for each of"),
        (lambda n: np.zeros((n, 2)), "one score for each of"),
        (lambda n: 0.0, "one score for each of"),
    ],
)
def test_a_judge_without_proper_scores_is_refused(give: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(
            backend(connected=True),
            subject(connected=True),
            suite(4),
            Judged(give),
            settings(),
            show=False,
        )
    assert backend(connected=True).intervention is None


def test_the_same_text_is_judged_once() -> None:
    asking = Judged(np.zeros)
    engine = Engine(backend(connected=True), suite(4), asking, settings())
    samples = [Sample("p", (1,), (2,), text, "length") for text in ("a", "b", "a")]
    assert engine.judge(samples).tolist() == [0.0, 0.0, 0.0]
    engine.judge(samples)
    assert asking.asked == 2


def test_texts_that_do_not_fit_are_refused_before_any_work() -> None:
    long = " ".join(["word1"] * 60)
    for changes in ({"prompts": ("word1", long)}, {"neutral_texts": (f"{long} {long}",)}):
        with pytest.raises(ValueError, match="context"):
            Engine(backend(connected=True), suite(**changes), JUDGE, settings())


# ---- subject and arms ----


def test_an_intervention_that_changes_nothing_is_an_error() -> None:
    """Q23."""
    one = subject(connected=True).learned
    with pytest.raises(InterventionError, match="learned intervention that changes something"):
        Subject(one.at_strength(0.0))
    with pytest.raises(InterventionError, match="reverse intervention that changes something"):
        Subject(one, reverse=one.at_strength(0.0))
    elsewhere = learned(states(connected=True), "additive", 0)
    with pytest.raises(ValueError, match="interventions on the blocks"):
        Subject(one, additive=elsewhere)


def test_an_additive_operator_has_no_other_in_its_line() -> None:
    """Its random members of the same subspace are drawn in the contrastive one, where known."""
    found = states(connected=True)
    alone = Subject(learned(found, "additive"))
    assert not has_subspace(alone)
    with_pairs = Subject.from_activations(alone.learned, found)
    assert has_subspace(with_pairs)
    arms = all_arms(with_pairs, settings(), instructed=False)
    draws = [one for one in arms if one.role == "random_same_subspace"]
    vector = operator_of(arms[1])
    _, basis = with_pairs.frames[2]
    for draw in draws:
        other = operator_of(draw)
        assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(vector))
        assert np.linalg.norm(basis.T @ other) == pytest.approx(np.linalg.norm(other))
        assert abs(float(other @ vector)) < 0.99 * float(vector @ vector)
    assert with_pairs.notes["shuffled"] == "how the operator was fitted is not known"


def operator_of(arm: Arm) -> Any:
    assert arm.towards is not None
    (operator,) = arm.towards[1].operators.values()
    assert isinstance(operator, Additive)
    return operator.vector


def test_controls_are_of_the_learned_ones_family() -> None:
    """N1: rank, angles and norm."""
    arms = all_arms(subject(connected=True), settings(), instructed=False)
    (mine,) = (arms[1].towards or {})[1].operators.values()
    assert isinstance(mine, Unitary)
    for arm in arms:
        if arm.role not in ("random", "random_same_subspace", "shuffled"):
            continue
        (other,) = (arm.towards or {})[1].operators.values()
        assert isinstance(other, Unitary)
        assert other.amplitude == mine.amplitude
        ranks = [
            np.linalg.matrix_rank(one.matrix - np.eye(len(one.matrix))) for one in (mine, other)
        ]
        assert ranks[0] == ranks[1]
        angles = [np.sort(np.angle(np.linalg.eigvals(one.matrix))) for one in (mine, other)]
        # Eigenvalues of a conjugated matrix in float64.
        np.testing.assert_allclose(*angles, atol=1e-9)


# ---- matching ----


@pytest.mark.parametrize("scale", [1e-4, 0.3, 1.0, 40.0, 1e3])
def test_the_search_finds_a_square_law_at_once(scale: float) -> None:
    found = find_factor(lambda factor: (scale * factor) ** 2, 1.0, "kl")
    assert found.exact
    assert found.factor == pytest.approx(1 / scale, rel=0.03)
    assert found.evaluations <= 7


def test_the_search_survives_a_cliff() -> None:
    """The model breaks down above 3; the target lies below, behind a steep rise."""
    found = find_factor(lambda f: math.inf if f > 3 else f**6 / 300, 1.0, "kl", start=20.0)
    assert found.exact
    assert found.factor == pytest.approx(300 ** (1 / 6), rel=0.01)


def test_a_control_that_cannot_get_there_says_so() -> None:
    found = find_factor(lambda factor: 0.01 * factor, 1.0, "displacement", limit=3.0)
    assert not found.exact
    assert (found.factor, found.reached) == (3.0, 0.03)
    assert found.to_json() == {"by": "displacement", "target": 1.0, "reached": 0.03, "exact": False}
    broken = find_factor(lambda _: math.nan, 1.0, "kl")
    assert not broken.exact
    assert broken.to_json()["reached"] is None
    still = find_factor(lambda _: 0.0, 0.0, "kl")
    assert (still.factor, still.evaluations) == (1.0, 1)
    with pytest.raises(ValueError, match="finite target"):
        find_factor(lambda _: 0.0, math.inf, "kl")


def test_angles_stop_at_the_half_turn() -> None:
    identity = states(connected=True).identity
    d = identity.d_model
    basis = random_basis(d, 2, 0)
    turn = Rotation(basis, 60.0, np.zeros(d), restore=False)
    phases = Diagonal(np.zeros(d), random_basis(d, 4, 1), np.array([0.5, -1.5]))
    cases = {
        3.0: turn,
        math.pi / 1.5: phases,
        1e4: Additive(np.ones(d)),
        1.5: Composed((Additive(np.ones(d)), turn), (1.0, -2.0)),
    }
    for limit, operator in cases.items():
        one = Intervention({0: operator}, identity)
        assert turn_limit(both_ways(one)) == pytest.approx(limit)
        assert turn_limit(both_ways(one.at_strength(0.5))) == pytest.approx(min(1e4, 2 * limit))


def test_matching_by_displacement() -> None:
    few = settings(n_random=2, n_same_subspace=1)
    arms = all_arms(subject(connected=True), few, instructed=False)
    model, texts = backend(connected=True), suite().calibration_texts
    found = matched_arms(model, arms, texts, "displacement", show=False)
    neutral = NeutralTexts(model, texts, (2,))
    target = np.mean([neutral.displacement(one) for one in (arms[1].towards or {}).values()])
    for arm in found:
        if arm.match is not None and arm.match.exact:
            moved = [neutral.displacement(one) for one in (arm.towards or {}).values()]
            assert np.mean(moved) == pytest.approx(target, rel=0.1)
    assert matched_arms(model, arms, texts, "none", show=False) == arms


def test_the_displacement_is_what_a_probe_sees() -> None:
    """Computed from unsteered states where one block is steered; measured elsewhere."""
    model, texts = backend(connected=True), suite().neutral_texts
    neutral = NeutralTexts(model, texts, (2,))
    one = subject(connected=True).learned
    # The float32 hook against the float64 reference, over a mean of positions.
    assert neutral.displacement(one) == pytest.approx(neutral._measured(one), rel=1e-4)
    assert neutral.displacement(one.at_strength(0.0)) == 0.0


# ---- measures ----


def test_likelihoods_in_batches_and_one_by_one() -> None:
    model = backend(connected=True)
    prompts = [model.tokenize(text) for text in suite().prompts[:5]]
    continuations = [[20, 21], [22], [], [23, 24, 25], [26]]
    together = likelihoods(model, prompts, continuations)
    assert [len(one) for one in together] == [2, 1, 0, 3, 1]
    for prompt, ids, found in zip(prompts, continuations, together, strict=True):
        (alone,) = likelihoods(model, [prompt], [ids])
        # Padded batches round float32 logits otherwise.
        np.testing.assert_allclose(found, alone, atol=1e-4)
    assert perplexity([np.log([0.5, 0.125])]) == pytest.approx(4.0)
    assert perplexity([np.zeros(0)]) is None


def test_batches_are_bounded_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backend(connected=True)
    monkeypatch.setattr("cogit.evaluation.continuations._MOST", 10 * model.identity.vocab_size)
    sequences = [[1] * n for n in (4, 4, 3, 20, 5, 5)]
    assert list(batches(model, sequences)) == [(0, 2), (2, 3), (3, 4), (4, 6)]


def test_relevance_of_texts_that_follow_their_prompts() -> None:
    """Texts of the class that the context has, and the other way round."""
    model = backend(connected=True)
    classes = [("good1 good2 good3", "good4 good5"), ("bad1 bad2 bad3", "bad4 bad5")]
    prompts = [model.tokenize(prompt) for prompt, _ in classes]
    texts = [model.tokenize(text)[1:] for _, text in classes]
    own = likelihoods(model, prompts, texts)
    assert relevance(model, prompts, texts, own, 0) == 1.0
    crossed = texts[::-1]
    assert relevance(model, prompts, crossed, likelihoods(model, prompts, crossed), 0) == 0.0
    assert relevance(model, prompts, [[], []], [np.zeros(0)] * 2, 0) is None
    assert relevance(model, prompts[:1], texts[:1], own[:1], 0) is None


def test_token_pieces_join_to_the_text() -> None:
    model = backend(connected=True)
    ids = model.tokenize("word1 good2 bad3")
    assert pieces(model, ids) == ["", "word1", " good2", " bad3"]


def test_finite_turns_other_numbers_to_null() -> None:
    made = finite({"a": (np.float64(np.nan), np.int64(3), True, math.inf), 1: np.bool_(False)})
    assert made == {"a": [None, 3, True, None], "1": False}
    assert [type(one) for one in made["a"][1:3]] == [int, bool]


def test_a_function_is_a_judge() -> None:
    found = FunctionJudge("words", judge).scores([Sample("", (), (), "good1 bad1 good2", "stop")])
    assert found.tolist() == [1.0]


def test_suites_are_frozen_values() -> None:
    assert isinstance(suite(), Suite)
    assert suite() == suite()
