"""Separation statistics: none on noise, some where classes differ, and the biased variant."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cogit.separation import (
    Overlaps,
    biased_separation_statistics,
    rate_gap,
    separation_statistics,
    statistics_of,
    swap_form,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEYS = {
    "centroid_fidelity",
    "centroid_cosine_similarity",
    "pos_class_consistency",
    "pos_class_std",
    "neg_class_consistency",
    "neg_class_std",
    "cross_class_fidelity",
    "cross_class_std",
    "separation_gap",
}
SEEDS = range(8)
# Of row Q17: what a gap of classes without a difference may be.
NOISE = 0.005


def noise(rng: np.random.Generator, n: int, width: int, *, imaginary: bool) -> NDArray[Any]:
    rows = rng.standard_normal((n, width))
    return rows + 1j * rng.standard_normal((n, width)) if imaginary else rows


def classes(
    seed: int, separation: float, *, n: int = 400, width: int = 64, imaginary: bool = False
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Matched pairs that share half of their variation; a common mean makes fidelities large."""
    rng = np.random.default_rng(seed)
    shared = noise(rng, n, width, imaginary=imaginary) + 1.0
    own = [noise(rng, n, width, imaginary=imaginary) for _ in range(2)]
    own[0][:, 0] += separation / 2
    own[1][:, 0] -= separation / 2
    return shared + own[0], shared + own[1]


def by_loops(positive: NDArray[Any], negative: NDArray[Any]) -> dict[str, float]:
    """The definition, one pair of states at a time."""
    plus, minus = ([row / np.linalg.norm(row) for row in rows] for rows in (positive, negative))
    n = range(len(plus))

    def fidelities(a: list[Any], b: list[Any]) -> NDArray[np.float64]:
        return np.array([abs(np.vdot(a[i], b[j])) ** 2 for i, j in product(n, n) if i != j])

    within, other, cross = fidelities(plus, plus), fidelities(minus, minus), fidelities(plus, minus)
    centres = [np.mean(rows, axis=0) for rows in (plus, minus)]
    overlap = np.vdot(*(c / np.linalg.norm(c) for c in centres))
    return {
        "centroid_fidelity": abs(overlap) ** 2,
        "centroid_cosine_similarity": overlap.real,
        "pos_class_consistency": within.mean(),
        "pos_class_std": within.std(),
        "neg_class_consistency": other.mean(),
        "neg_class_std": other.std(),
        "cross_class_fidelity": cross.mean(),
        "cross_class_std": cross.std(),
        "separation_gap": (within.mean() + other.mean()) / 2 - cross.mean(),
    }


@pytest.mark.parametrize("imaginary", [False, True])
def test_nine_statistics_by_their_definition(imaginary: bool) -> None:
    """Row Q17."""
    states = classes(0, 2.0, n=9, width=5, imaginary=imaginary)
    found = separation_statistics(*states).to_json()
    assert found.keys() == KEYS
    assert found == pytest.approx(by_loops(*states), rel=1e-12)
    assert biased_separation_statistics(*states).to_json().keys() == KEYS


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("imaginary", [False, True])
def test_gap_is_positive_on_planted_classes(seed: int, imaginary: bool) -> None:
    """Row Q17."""
    assert separation_statistics(*classes(seed, 6.0, imaginary=imaginary)).separation_gap > 0.02


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("imaginary", [False, True])
def test_gap_is_zero_for_one_distribution(seed: int, imaginary: bool) -> None:
    """Row Q17: ±.005, where pairs share much of what they are, and unmatched."""
    for separation in (
        separation_statistics(*classes(seed, 0.0, imaginary=imaginary)),
        separation_statistics(
            classes(seed, 0.0, imaginary=imaginary)[0],
            classes(seed + 100, 0.0, n=300, imaginary=imaginary)[1],
            matched=False,
        ),
    ):
        assert abs(separation.separation_gap) < NOISE


@pytest.mark.parametrize("seed", SEEDS)
def test_gap_is_zero_for_shuffled_labels(seed: int) -> None:
    """Row Q17: labels of planted classes swapped within pairs."""
    plus, minus = classes(seed, 6.0)
    swap = np.random.default_rng(seed).random(len(plus)) < 0.5
    mixed = np.where(swap[:, None], minus, plus), np.where(swap[:, None], plus, minus)
    assert abs(separation_statistics(*mixed).separation_gap) < NOISE


def test_gap_is_zero_on_average_over_all_swaps() -> None:
    """Exactly, whatever the states are: the diagonal of the form is left out."""
    plus, minus = classes(0, 8.0, n=6, width=4, imaginary=True)
    overlaps = Overlaps.of_states(plus, minus)
    (form, comparisons), gaps = swap_form(overlaps), []
    assert comparisons == 30
    for signs in product((1, -1), repeat=6):
        kept = (np.array(signs) > 0)[:, None]
        swapped = np.where(kept, plus, minus), np.where(kept, minus, plus)
        gaps.append(separation_statistics(*swapped).separation_gap)
        assert gaps[-1] == pytest.approx(np.array(signs) @ form @ np.array(signs) / 30, abs=1e-14)
    assert abs(np.mean(gaps)) < 1e-15
    assert max(gaps) > 0.05


@pytest.mark.parametrize("seed", SEEDS)
def test_biased_gap_is_positive_on_noise(seed: int) -> None:
    """Which is why it is no evidence: 50 + 50 states of one distribution, no pairs."""
    rng = np.random.default_rng(seed)
    noise_rows = rng.standard_normal((2, 50, 64))
    assert biased_separation_statistics(*noise_rows).separation_gap > 0.01
    assert abs(separation_statistics(*noise_rows).separation_gap) < NOISE


def test_matched_pairs_do_not_lower_the_gap() -> None:
    """With the cross pairs (i, i) left in, shared variation would make it negative."""
    states = classes(0, 0.0, n=20)
    left_in = separation_statistics(*states, matched=False).separation_gap
    assert left_in < separation_statistics(*states).separation_gap - 0.005


def test_length_and_phase_of_a_state_do_not_count() -> None:
    states = classes(3, 3.0, n=20, imaginary=True)
    turned = [(2.0 + i) * np.exp(1j * i) * rows for i, rows in enumerate(states)]
    found = separation_statistics(*turned).to_json()
    expected = separation_statistics(*states).to_json()
    # The real part of the centroids' overlap is the one number that a common phase turns.
    for values in (found, expected):
        del values["centroid_cosine_similarity"]
    assert found == pytest.approx(expected, rel=1e-12)


def test_overlaps_of_a_gram_matrix() -> None:
    states = classes(4, 3.0, n=12)
    rows = np.concatenate(states)
    found = statistics_of(Overlaps.of_gram(rows @ rows.T))
    assert found.to_json() == pytest.approx(separation_statistics(*states).to_json(), rel=1e-10)


def test_opposite_states_have_no_centroid() -> None:
    """Their mean is zero: its overlap with anything is 0, not a quotient of rounding."""
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    for statistics in (separation_statistics, biased_separation_statistics):
        found = statistics(rows, np.eye(2))
        assert found.centroid_fidelity == 0.0
        assert all(np.isfinite(list(found.to_json().values())))


def test_ratings_are_those_of_the_source() -> None:
    """Row Q18: >5 % excellent, >2 good, >1 moderate, else poor."""
    gaps = [-1.0, 0.0, 0.01, 0.0101, 0.02, 0.0201, 0.05, 0.0501]
    words = ["poor"] * 3 + ["moderate"] * 2 + ["good"] * 2 + ["excellent"]
    assert [rate_gap(gap) for gap in gaps] == words


GOOD = np.eye(3)


@pytest.mark.parametrize(
    ("positive", "negative", "part"),
    [
        (GOOD[:1], GOOD, "at least 2 positive"),
        (GOOD, GOOD[0], "at least 2 negative"),
        (GOOD, np.eye(4), "one width"),
        (GOOD, GOOD[:2], "matched=False"),
        (GOOD * [[1], [0], [1]], GOOD, "with a direction"),
        (GOOD, np.where(GOOD == 1, np.nan, 0), "finite negative"),
        (GOOD, np.where(GOOD == 1, np.inf, 0), "finite negative"),
        (np.empty((3, 0)), GOOD, "at least 2 positive"),
    ],
)
def test_bad_states_are_refused(positive: Any, negative: Any, part: str) -> None:
    check: Callable[..., Any] = separation_statistics
    with pytest.raises(ValueError, match=part):
        check(positive, negative)


def test_a_gram_matrix_with_an_empty_row_is_refused() -> None:
    with pytest.raises(ValueError, match="zero norm"):
        Overlaps.of_gram(np.diag([1.0, 0.0]))
