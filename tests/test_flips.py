"""The held-out flip rate: what it counts, and that fits pass it where their controls do not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from _planted import PLANTED_LAYER, planted_backend
from _planted import pairs as planted_pairs
from _planted_layers import layered_states, planted_layer
from _plants import PLANTS, Plant, planted_states
from cogit.activations import Activations, record
from cogit.autofit import Recipe
from cogit.demo import grammar
from cogit.demo.assets import demo_model
from cogit.evaluation.flip import Boundary, Share, held_out_flip_rate
from cogit.intervals import wilson_interval
from cogit.operators import Additive
from cogit.subspace import fit_subspace
from cogit.training.flips import (
    FlipReport,
    compare_flips,
    flip_report,
    in_sample,
    shuffle_classes,
    split_activations,
)

if TYPE_CHECKING:
    from cogit.backends.transformers import TransformersBackend

UNITARY, MARGIN = Recipe(), Recipe(method="margin")
DEMO_LAYER = 2  # what `cogit demo` and `cogit fit --auto` choose between is 2 and 3


def judged(
    activations: Activations, layer: int, recipe: Recipe, seed: int = 0, draws: int = 20
) -> FlipReport:
    training, held_out = split_activations(activations, seed)
    operator = recipe.fit_states(training, layer)
    return flip_report(
        operator,
        lambda copy: recipe.fit_states(copy, layer),
        training,
        held_out,
        layer,
        draws=draws,
        seed=seed,
    )


# ---- what fits reach and shuffled fits do not ----


@pytest.mark.parametrize("plant", PLANTS, ids=lambda p: f"d{p.d_model}-sep{p.separation}")
def test_fitted_unitary_flips_held_out_states_of_planted_models(plant: Plant) -> None:
    """Q13: held-out flip rate >= 0.9, shuffled-label fits <= 0.3, on every planted model."""
    report = judged(planted_states(plant), 1, UNITARY, plant.seed)
    assert report.fitted.rate >= 0.9
    assert report.kept.rate >= 0.9
    assert report.shuffled.rate <= 0.3
    assert report.identity.rate <= 0.2


@pytest.mark.parametrize("plant", PLANTS[::4], ids=lambda p: f"d{p.d_model}-sep{p.separation}")
def test_contrast_margin_flips_held_out_states_of_planted_models(plant: Plant) -> None:
    """Q13: the same for the unitary trained on the contrast-margin objective."""
    report = judged(planted_states(plant), 1, MARGIN, plant.seed, draws=2)
    assert report.fitted.rate >= 0.9
    assert report.kept.rate >= 0.9
    assert report.shuffled.rate <= 0.3


def test_fitted_unitary_flips_held_out_states_of_a_planted_transformer() -> None:
    """Q13: recorded through a transformer whose last block writes the class."""
    backend = planted_backend()
    states = record(backend, planted_pairs(48, 5, n_plain=4, n_class=2), show_progress=False)
    report = judged(states, PLANTED_LAYER, UNITARY)
    assert report.fitted.rate >= 0.9
    assert report.shuffled.rate <= 0.3


@pytest.mark.parametrize("seed", range(10))
def test_fitted_unitary_flips_held_out_states_of_ten_planted_transformers(seed: int) -> None:
    """Q13: recorded through ten random transformers, each with its plant at a block of its own."""
    report = judged(layered_states(seed, planted=True), planted_layer(seed), UNITARY, seed)
    assert report.fitted.rate >= 0.9
    assert report.kept.rate >= 0.9
    assert report.shuffled.rate <= 0.3


@pytest.fixture(scope="module")
def demo_states() -> Activations:
    from cogit.backends.transformers import TransformersBackend

    backend: TransformersBackend = TransformersBackend.load(demo_model("transformers"))
    with backend:
        return record(backend, grammar.contrast_pairs(64, 0, "train"), show_progress=False)


@pytest.mark.parametrize("layer", [DEMO_LAYER, DEMO_LAYER + 1])
def test_fitted_unitary_flips_held_out_states_of_the_demo_model(
    demo_states: Activations, layer: int
) -> None:
    """Q13: the default unitary on the demo model's own states."""
    report = judged(demo_states, layer, UNITARY)
    assert report.fitted.rate >= 0.9
    assert report.kept.rate >= 0.9
    assert report.shuffled.rate <= 0.3


def test_contrast_margin_flips_held_out_states_of_the_demo_model(
    demo_states: Activations,
) -> None:
    """Q13: the trained unitary on the demo model's own states."""
    report = judged(demo_states, DEMO_LAYER, MARGIN, draws=2)
    assert report.fitted.rate >= 0.9
    assert report.kept.rate >= 0.9
    assert report.shuffled.rate <= 0.3


def test_what_the_rate_cannot_tell(demo_states: Activations) -> None:
    """A clamp's shuffled control is chance on the demo model; a half turn flips and does not keep.

    The docstring of the module says so: where it holds no more, that has to go.
    """
    clamp = judged(demo_states, DEMO_LAYER, Recipe(angle=90.0))
    assert clamp.fitted.rate == 1.0
    assert 0.3 < clamp.shuffled.rate < 0.8
    training, held_out = split_activations(demo_states, 0)
    fit = Recipe(method="procrustes")
    turned = fit.fit_states(shuffle_classes(training, 0), DEMO_LAYER)
    report = flip_report(
        turned, lambda copy: turned, training, held_out, DEMO_LAYER, draws=1, seed=0
    )
    assert report.fitted.rate > 0.8
    assert report.kept.rate < 0.2


def test_without_a_contrast_nothing_is_found() -> None:
    """Where both classes are drawn alike, a fit flips no more than fits to shuffled classes do."""
    report = judged(planted_states(PLANTS[4]), 0, UNITARY)
    assert report.identity.interval[0] < 0.5 < report.identity.interval[1]
    assert report.fitted.interval[0] <= report.shuffled_worst.rate


# ---- definition ----


def test_flips_by_hand() -> None:
    """One state in each class crosses, one does not; the midpoint itself is no flip."""
    direction, mean = np.array([1.0, 0.0]), np.array([5.0, 7.0])
    negative = mean + np.array([[-1.0, 3.0], [-3.0, 0.0]])
    positive = mean + np.array([[1.0, -9.0], [2.0, 4.0]])
    boundary = Boundary(mean, direction)
    push = Additive(2.0 * direction)

    def flipped(strength: float = 1.0, towards: Boundary = boundary) -> tuple[Share, Share, Share]:
        found = held_out_flip_rate(push, positive, negative, towards, strength=strength)
        return found.both, found.kept, found.before

    assert flipped() == (Share(2, 4), Share(4, 4), Share(0, 4))
    assert flipped(2.0)[0] == Share(4, 4)
    assert flipped(-2.0)[0] == Share(0, 4)
    assert flipped(-2.0)[1] == Share(0, 4)
    assert flipped(0.0, Boundary(mean, -direction)) == (Share(4, 4), Share(0, 4), Share(4, 4))


def test_the_way_back_may_be_an_operator_of_its_own() -> None:
    states = planted_states(PLANTS[4])
    training, held_out = split_activations(states, 0)
    steer = Additive(fit_subspace(training, 1).steering_vector * 2)
    back = Additive(-steer.vector)
    ways = compare_flips((steer, back), [(back, steer)], training, held_out, 1)
    assert ways == compare_flips((steer, None), [(back, None)], training, held_out, 1)
    assert ways.fitted.rate >= 0.9
    assert ways.shuffled.rate <= 0.1


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Known answers: Newcombe (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)],
)
def test_wilson_intervals(successes: int, n: int, low: float, high: float) -> None:
    # The table has four decimals.
    assert wilson_interval(successes / n, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("share", "n"), [(-0.1, 3), (1.1, 3), (0.5, 0), (float("nan"), 3)])
def test_wilson_refuses_what_is_no_share(share: float, n: int) -> None:
    with pytest.raises(ValueError, match=r"^\[wilson\] expected"):
        wilson_interval(share, n)


def test_the_split_is_seeded_and_disjoint() -> None:
    states = planted_states(PLANTS[0])
    training, held_out = split_activations(states, 3)
    again = split_activations(states, 3)
    np.testing.assert_array_equal(training.positive, again[0].positive)
    assert training.positive.shape[1] == 45
    rows = {row.tobytes() for row in training.positive[1]}
    others = {row.tobytes() for row in held_out.positive[1]}
    assert len(rows) + len(others) == 60
    assert not rows & others
    assert {row.tobytes() for row in split_activations(states, 4)[1].positive[1]} != others


def test_too_few_pairs_to_split_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^\[split\] expected at least 4 pairs to fit and 2"):
        split_activations(planted_states(Plant(8, 2.0, 0, n_pairs=5)), 0)


def test_shuffling_exchanges_half_of_the_pairs() -> None:
    states = planted_states(PLANTS[0])
    shuffled = shuffle_classes(states, 1)
    swapped = (shuffled.positive[0] == states.negative[0]).all(axis=1)
    kept = (shuffled.positive[0] == states.positive[0]).all(axis=1)
    assert swapped.sum() == kept.sum() == 30
    assert (swapped ^ kept).all()
    # The same pairs at every block.
    np.testing.assert_array_equal(shuffled.positive[1][swapped], states.negative[1][swapped])
    np.testing.assert_array_equal(shuffled.negative[1][swapped], states.positive[1][swapped])


def test_the_reading_is_of_the_training_classes() -> None:
    states = planted_states(PLANTS[3])
    boundary, subspace = Boundary.between(*states.at(1)), fit_subspace(states, 1)
    unit = boundary.direction / np.linalg.norm(boundary.direction)
    np.testing.assert_allclose(boundary.middle, subspace.mean, atol=1e-12)
    np.testing.assert_allclose(unit, subspace.direction, atol=1e-12)
    equal = Activations(states.positive, states.positive, (0, 1), 4, states.identity)
    with pytest.raises(ValueError, match=r"^\[flip\] expected a direction, got zero"):
        flip_report(Additive(unit), lambda copy: Additive(unit), equal, states, 1)


def test_flips_of_a_subspace_are_those_of_its_states() -> None:
    """Coordinates alone: what lies outside the basis does not decide the side."""
    states = planted_states(PLANTS[4])
    subspace = fit_subspace(states, 1)
    operator = UNITARY.fit(subspace)
    positive, negative = states.at(1)
    whole = held_out_flip_rate(operator, positive, negative, Boundary.of_subspace(subspace))
    assert in_sample(operator, subspace) == whole.both


def test_no_text_is_in_both_parts_of_a_split() -> None:
    """Each negative in two pairs: both go to one part, and the intervals count them once."""
    states = planted_states(Plant(8, 2.0, 0, n_pairs=40))
    shared = replace(states, negative=states.negative[:, np.arange(40) // 2 * 2])
    training, held_out = split_activations(shared, 0)
    assert held_out.positive.shape[1] == 10
    kept = [{row.tobytes() for row in part.negative[0]} for part in (training, held_out)]
    assert not kept[0] & kept[1]
    assert len(kept[1]) == 5
    swapped = (shuffle_classes(shared, 1).negative[0] != shared.negative[0]).any(axis=1)
    np.testing.assert_array_equal(swapped[0::2], swapped[1::2])
    assert swapped.sum() == 20
    layer = states.layers[0]
    still = Additive(np.ones(states.identity.d_model))
    report = compare_flips((still, None), [(still, None)], training, held_out, layer)
    assert report.n_groups == report.to_json()["held_out_groups"] == 5
    assert report.fitted.n == 20
    assert report.fitted.interval == wilson_interval(report.fitted.rate, 10)


def test_too_few_groups_for_a_split_are_refused_by_number() -> None:
    states = planted_states(Plant(8, 2.0, 0, n_pairs=40))
    shared = replace(states, negative=states.negative[:, np.arange(40) // 10 * 10])
    with pytest.raises(ValueError, match="got 4 groups in 40 pairs"):
        split_activations(shared, 0)
