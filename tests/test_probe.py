"""The supervised probe: its optimum, its held-out accuracy, and chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.special import expit

from _states import shuffled, states
from cogit.extractors import extract

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def gradient(
    weights: Array, offset: float, x: Array, labels: Array, penalty: float
) -> tuple[Array, float]:
    """Of Σ log(1 + exp(-y (x w + b))) + penalty |w|²/2, in the full space."""
    slope = -labels * expit(-labels * (x @ weights + offset))
    return x.T @ slope + penalty * weights, float(slope.sum())


@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("d_model", [8, 32, 300])
def test_the_direction_is_the_optimums(d_model: int, penalty: float) -> None:
    """Row P8: where the gradient of the penalised loss vanishes, wide states or narrow.

    The optimum is unique, so a line search along the found direction must reach it: the gradient
    has no part outside that direction, and a length and offset exist at which it vanishes whole.
    """
    from scipy.optimize import minimize

    positive, negative = states(20, d_model=d_model)
    found = extract(positive, negative, "probe", penalty=penalty)
    x = np.concatenate([positive, negative])
    x -= x.mean(axis=0)
    x /= np.sqrt((x**2).mean())
    labels = np.repeat([1.0, -1.0], 20)

    def loss(parameters: Array) -> float:
        length, offset = parameters
        margin = labels * (length * (x @ found.direction) + offset)
        return float(np.logaddexp(0, -margin).sum() + penalty * length**2 / 2)

    length, offset = minimize(loss, np.ones(2), method="Nelder-Mead", options={"xatol": 1e-10}).x
    slope, intercept = gradient(length * found.direction, offset, x, labels, penalty)
    # Nelder-Mead finds length and offset to about 1e-6; sums run over 40 states.
    assert np.abs(slope).max() < 1e-3
    assert abs(intercept) < 1e-3


def test_a_strong_penalty_gives_the_mean_difference() -> None:
    """With weights near zero the gradient is the mean difference itself."""
    found = extract(*states(40), "probe", penalty=1e6)
    assert found.angle_to_mean_difference < 0.1


def test_separable_classes_are_held_out_rightly() -> None:
    details = extract(*states(60, separation=12.0), "probe").details
    assert details["accuracy"] == 1.0
    assert (details["chance"], details["folds"]) == (0.5, 5)
    assert 0.55 < details["chance_95"] < 0.65


def test_shuffled_labels_are_at_chance() -> None:
    """Row P8: over 20 shuffles, the mean is .5 and guessing's bound is seldom passed."""
    positive, negative = states(60)
    drawn = [extract(*shuffled(positive, negative, seed), "probe").details for seed in range(20)]
    accuracies = np.array([details["accuracy"] for details in drawn])
    # 20 draws over 60 pairs: a standard error of about .013.
    assert abs(accuracies.mean() - 0.5) < 0.04
    assert sum(d["accuracy"] > d["chance_95"] for d in drawn) <= 3
    assert extract(positive, negative, "probe").details["accuracy"] > 0.85


def test_both_texts_of_a_pair_are_held_out_together() -> None:
    """Pairs of two almost equal texts, a pair far from others: with one text of a pair in training,
    the other's class would be read off as the opposite one, or its own; held out together, guessed.
    """
    rng = np.random.default_rng(0)
    shared = 10 * rng.standard_normal((40, 60))
    positive, negative = shared + 0.1 * rng.standard_normal((2, 40, 60))
    accuracy = extract(positive, negative, "probe", penalty=1e-3).details["accuracy"]
    assert 0.3 < accuracy < 0.7


def test_folds_are_drawn_from_the_seed() -> None:
    positive, negative = states(30, separation=1.0)
    accuracies = {
        extract(positive, negative, "probe", seed=seed).details["accuracy"] for seed in range(6)
    }
    assert len(accuracies) > 1
    first, second = (extract(positive, negative, "probe", seed=3) for _ in range(2))
    assert first.details == second.details
    np.testing.assert_array_equal(first.directions, second.directions)


def test_two_pairs_are_enough() -> None:
    found = extract(*states(2, separation=20.0), "probe")
    assert found.details["folds"] == 2


def test_one_pair_is_not() -> None:
    with pytest.raises(
        ValueError, match=r"^\[probe\] expected at least 2 pairs and 2 folds, got 1"
    ):
        extract(*states(1), "probe")
