"""Splits without common texts, the automatic choice, transport, and the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from _planted import FACTS, PLANTED_LAYER, Run, learned, run, texts
from _planted import pairs as planted_pairs
from cogit import autofit
from cogit.activations import Activations, record
from cogit.autofit import Recipe
from cogit.demo import grammar
from cogit.evaluation.flip import Apart, Share
from cogit.evaluation.teacher_forced import Budget, Score, TeacherForced
from cogit.identity import ModelIdentity
from cogit.intervention import Intervention
from cogit.operators import Additive, Unitary
from cogit.pairs import ContrastPair
from cogit.subspace import fit_subspace
from cogit.training.flips import FlipReport, flip_report, split_activations


@pytest.fixture(scope="module")
def planted() -> Run:
    return run(connected=True)


def texts_of(part: tuple[ContrastPair, ...]) -> set[str]:
    return {text for pair in part for text in (pair.positive, pair.negative)}


# ---- splits ----


@pytest.mark.parametrize("seed", range(4))
def test_no_text_is_in_two_parts(seed: int) -> None:
    """Chains of pairs that share a text stay together, and nothing is lost."""
    pairs = grammar.contrast_pairs(40, 0)
    pairs += [ContrastPair(pairs[i].positive, pairs[i + 1].negative) for i in range(0, 12, 2)]
    pairs += [pairs[3], pairs[3]]
    split = autofit.split_pairs(pairs, seed)
    parts = [texts_of(part) for part in (split.fit, split.calibration, split.held_out)]
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
    whole = [*split.fit, *split.calibration, *split.held_out]
    assert len(whole) == len(set(whole)) == len(set(pairs))
    assert abs(len(split.fit) - len(whole) / 2) <= 2


def test_splits_repeat_by_seed() -> None:
    pairs = grammar.contrast_pairs(40, 0)
    assert autofit.split_pairs(pairs, 1) == autofit.split_pairs(pairs, 1)
    assert autofit.split_pairs(pairs, 1) != autofit.split_pairs(pairs, 2)


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[split\] expected at least 4/2/2 pairs .* got 3/2/1"):
        autofit.split_pairs(grammar.contrast_pairs(6, 0), 0)
    one = [ContrastPair("the same text", f"another {i}") for i in range(20)]
    with pytest.raises(ValueError, match=r"without common texts"):
        autofit.split_pairs(one, 0)


# ---- neutral texts ----


def test_packaged_neutral_texts_are_there_and_said_to_be() -> None:
    found, origin = autofit.neutral_texts(None)
    assert len(found) >= 40
    assert "packaged" in origin
    parts = autofit.thirds(found, 0)
    assert sorted(text for part in parts for text in part) == sorted(found)
    assert parts != autofit.thirds(found, 1)


def test_a_users_neutral_texts(tmp_path: Path) -> None:
    file = tmp_path / "neutral.txt"
    file.write_text("one\n\n two \none\nthree\n", encoding="utf-8")
    assert autofit.neutral_texts(file) == (["one", "two", "three"], str(file))
    file.write_text("one\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^\[neutral\] expected 3 to"):
        autofit.neutral_texts(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"^\[neutral\] expected UTF-8"):
        autofit.neutral_texts(file)
    with pytest.raises(ValueError, match=r"^\[neutral\] expected at least 3"):
        autofit.thirds(["one", "two"], 0)


# ---- recipes and the choice ----


def test_candidates_cover_what_decides_the_strength(planted: Run) -> None:
    subspaces = [fit_subspace(planted.activations, layer) for layer in (1, 2)]
    made = autofit.candidates(subspaces, Recipe(), angles=(60.0, 90.0), gains=(1.0, 2.0, 3.0))
    assert len(made) == 2 * 2 * 3
    settings = [(c.settings["layer"], c.settings["angle"], c.settings["gain"]) for c in made]
    assert len(set(settings)) == len(made)
    direct = autofit.candidates(subspaces, Recipe(method="direct"), gains=(1.0, 2.0))
    assert len(direct) == 2 * 2
    assert "angle" not in direct[0].settings
    additive = autofit.candidates(subspaces, Recipe("additive"), strengths=(1.0, 2.0))
    assert [c.intervention.strength for c in additive] == [1.0, 2.0] * 2
    with pytest.raises(ValueError, match=r"^\[fit\] expected an operator with two directions"):
        autofit.candidates(subspaces, Recipe("ablation"))


@pytest.mark.parametrize("recipe", [Recipe(k=2), Recipe("additive", k=2)], ids=str)
def test_the_planted_block_is_chosen_within_the_budget(planted: Run, recipe: Recipe) -> None:
    """The layer and strength of a user's pairs, by forward passes alone."""
    backend = planted.backend
    split = autofit.split_pairs(planted_pairs(48, 71, n_plain=4, n_class=1), 0)
    states = record(backend, split.fit, show_progress=False)
    check = TeacherForced(backend, split.calibration, texts(6, 72, FACTS, 8))
    budget = Budget(0.05, 0.02)
    grid = {"gains": (0.5, 1.5, 4.0), "strengths": (0.5, 1.0, 3.0), "angles": (60.0, 90.0)}
    choice = autofit.choose(check, states, recipe, budget, show=False, **grid)
    assert choice.chosen.settings["layer"] == PLANTED_LAYER
    assert choice.score.within(budget)
    assert choice.chosen.intervention.lineage["fit"]["k"] == 2


def test_recipes_fit_what_they_say(planted: Run) -> None:
    subspace = fit_subspace(planted.activations, PLANTED_LAYER)
    for method in ("plane", "procrustes", "direct", "born"):
        made = Recipe(method=method, angle=50.0, gain=2.0).fit(subspace)
        wanted = Unitary.fit(subspace, method=method, angle=50.0, gain=2.0)
        assert isinstance(made, Unitary)
        np.testing.assert_array_equal(made.matrix, wanted.matrix)
    assert Recipe("ablation").fit(subspace).kind == "ablation"
    assert Recipe(method="margin", restore=True).fit(subspace).restore  # type: ignore[attr-defined]
    for wrong in ({"operator": "sideways"}, {"method": "magic"}):
        with pytest.raises(ValueError, match=r"^\[fit\] expected"):
            Recipe(**wrong)  # type: ignore[arg-type]


# ---- transport ----


def test_transport_by_hand(planted: Run) -> None:
    """An additive s·u carries 1/2 everywhere; a plane by θ carries g·sin θ / 2."""
    subspace = fit_subspace(planted.activations, PLANTED_LAYER)
    prompts = texts(4, 81, FACTS, 5)

    def carried(operator: Additive | Unitary, strength: float = 1.0) -> float:
        made = Intervention({PLANTED_LAYER: operator}, planted.backend.identity, strength)
        return autofit.transport(planted.backend, made, [subspace], prompts)[PLANTED_LAYER].mean

    # Folds are float32.
    assert carried(Additive(subspace.steering_vector)) == pytest.approx(0.5, abs=1e-5)
    assert carried(Additive(subspace.steering_vector), -2.0) == pytest.approx(-1.0, abs=1e-5)
    turned = Unitary.fit(subspace, angle=60.0, gain=2.0)
    assert carried(turned) == pytest.approx(np.sin(np.pi / 3), abs=1e-5)
    across = Additive(subspace.half_separation * subspace.basis[:, 1])
    assert carried(across) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match=r"^\[transport\] expected prompts of at least two"):
        autofit.transport(
            planted.backend, learned(planted.activations, "additive"), [subspace], [""]
        )


def test_open_prompts_are_what_pairs_begin_with(planted: Run) -> None:
    pairs = [
        ContrastPair("word1 word2 good1 word3", "word1 word2 bad1 word3"),
        ContrastPair("word4 word5 word6 good1", "word4 word5 word6 bad1"),
        ContrastPair("good1 word1", "bad1 word1"),
    ]
    assert autofit.open_prompts(planted.backend, pairs) == ["word1 word2", "word4 word5 word6"]


# ---- verdict ----

ALL, NONE = Share(40, 40), Share(0, 40)
GOOD = FlipReport(
    fitted=ALL,
    kept=ALL,
    identity=NONE,
    shuffled=NONE,
    shuffled_kept=ALL,
    shuffled_worst=NONE,
    apart=Apart(0.001, 20),
)
SCORE = Score(np.linspace(1, 2, 20), -0.01, 0.01)


def test_the_verdict_may_be_no_effect() -> None:
    budget = Budget()
    assert autofit.verdict([GOOD], SCORE, [0.1, 0.2], budget)[0] == "effect"
    assert autofit.verdict([GOOD], None, [], budget)[0] == "effect"
    assert autofit.verdict([], None, [], budget) == ("not judged: nothing was held out", {})
    for flips in (
        replace(GOOD, fitted=Share(20, 40), identity=Share(18, 40)),
        replace(GOOD, kept=Share(4, 40)),
    ):
        assert autofit.verdict([GOOD, flips], SCORE, [0.1], budget)[0] == "no effect"
    weak = replace(SCORE, per_pair=np.linspace(-1, 1, 20))
    assert autofit.verdict([GOOD], weak, [0.0], budget)[0] == "no effect"
    broken = replace(SCORE, per_pair=np.array([np.nan, 1.0]))
    assert autofit.verdict([GOOD], broken, [0.0], budget)[0] == "no effect"
    assert autofit.verdict([GOOD], SCORE, [0.1, 1.6], budget)[0] == "no effect"


def test_shuffled_flips_count_where_there_is_no_model() -> None:
    turning = replace(GOOD, shuffled=ALL)
    assert autofit.verdict([turning], None, [], Budget())[0] == "no effect"
    assert autofit.verdict([turning], SCORE, [0.1], Budget())[0] == "effect"
    # Half turns flip every state and keep none: no match for a fit that tells the classes apart.
    round_about = replace(turning, shuffled_kept=NONE)
    assert autofit.verdict([round_about], None, [], Budget())[0] == "effect"


def test_an_effect_that_costs_too_much_is_called_so() -> None:
    dear = replace(SCORE, neutral_kl=0.03)
    found, criteria = autofit.verdict([GOOD], dear, [0.1], Budget())
    assert found == "effect beyond the budget"
    assert criteria["within the budget on held-out texts"] is False


# ---- the verdict without a model ----


def judged(positive: np.ndarray, negative: np.ndarray, recipe: Recipe, seed: int) -> str:
    """As ``cogit fit --activations`` does, with fewer shuffled fits."""
    identity = ModelIdentity("noise", "gaussian", 1, positive.shape[1], 0)
    rows = (x[None].astype(np.float32) for x in (positive, negative))
    training, unseen = split_activations(Activations(*rows, (0,), 4, identity), seed)
    report = flip_report(
        recipe.fit_states(training, 0),
        lambda copy: recipe.fit_states(copy, 0),
        training,
        unseen,
        0,
        draws=2,
        seed=seed,
    )
    return autofit.verdict([report], None, [], Budget())[0]


@pytest.mark.parametrize("recipe", [Recipe(), Recipe("additive")], ids=lambda one: one.operator)
@pytest.mark.parametrize("d_model", [64, 128])
def test_noise_has_no_effect(recipe: Recipe, d_model: int) -> None:
    """An operator crosses its own boundary whatever the states are; noise is no effect for it."""
    found = []
    for seed in range(100):
        rng = np.random.default_rng([seed, d_model])
        plus, minus = rng.standard_normal((2, 60, d_model))
        found.append(judged(plus, minus, recipe, seed))
    # The level is 5 % (2 to 6 % over 400 other seeds); above 10 of 100 has a chance of 1 % then.
    assert found.count("effect") <= 10
    assert set(found) <= {"effect", "no effect"}


@pytest.mark.parametrize("d_model", [64, 128])
def test_planted_classes_have_an_effect(d_model: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng([seed, d_model])
        plus, minus = rng.standard_normal((2, 60, d_model))
        plus[:, 0] += 8.0
        assert judged(plus, minus, Recipe(), seed) == "effect"


def test_too_few_held_out_pairs_are_not_judged() -> None:
    few = replace(GOOD, apart=Apart(1 / 16, 4))
    found, criteria = autofit.verdict([GOOD, few], None, [], Budget())
    assert found == "not judged: 4 held-out pairs are too few to tell classes apart"
    assert criteria
    assert autofit.verdict([few], SCORE, [0.1], Budget())[0] == "effect"


def test_flips_of_equal_classes_are_no_effect() -> None:
    same = replace(GOOD, apart=Apart(0.05, 20))
    found, criteria = autofit.verdict([GOOD, same], None, [], Budget())
    assert found == "no effect"
    assert criteria["unsteered held-out pairs told apart (p < 0.05)"] is False


def test_recipes_have_finite_numbers() -> None:
    for wrong in ({"angle": float("nan")}, {"gain": float("inf")}):
        with pytest.raises(ValueError, match=r"^\[fit\] expected finite angle and gain"):
            Recipe(**wrong)
