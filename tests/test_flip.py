"""Flip rates of held-out states on planted Gaussians, with their controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _models import planted
from cogit.activations import Activations
from cogit.evaluation.flip import Apart, Boundary, FlipRate, Share, held_out_flip_rate, split_rows
from cogit.operators import Additive, fit_operator
from cogit.subspace import fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEEDS = range(5)


def halves(states: Activations, seed: int) -> tuple[Activations, NDArray[Any], NDArray[Any]]:
    """Training pairs as activations, and the held-out states of both classes."""
    train, held = split_rows(states.positive.shape[1], seed=seed)
    kept = Activations(
        states.positive[:, train], states.negative[:, train], (0,), 4, states.identity
    )
    return kept, states.positive[0, held], states.negative[0, held]


def flips(seed: int, *, shuffled: bool = False, strength: float = 1.0) -> FlipRate:
    """The default unitary, fitted to one half and tried on the other."""
    states = planted(n_pairs=80, separation=6.0, seed=seed)
    train, plus, minus = halves(states, seed)
    fitted = train
    if shuffled:
        swap = np.random.default_rng([seed, 1]).random(train.positive.shape[1]) < 0.5
        mixed = [
            np.where(swap[None, :, None], a, b)
            for a, b in ((train.negative, train.positive), (train.positive, train.negative))
        ]
        fitted = Activations(*mixed, (0,), 4, train.identity)
    operator = fit_operator(fit_subspace(fitted, 0), "unitary")
    boundary = Boundary.between(train.positive[0], train.negative[0])
    return held_out_flip_rate(operator, plus, minus, boundary, strength=strength)


@pytest.mark.parametrize("seed", SEEDS)
def test_fitted_operator_flips_held_out_states_and_controls_do_not(seed: int) -> None:
    fitted = flips(seed)
    assert fitted.both.rate >= 0.9
    assert min(fitted.to_positive.rate, fitted.to_negative.rate) >= 0.9
    assert fitted.before.rate <= 0.1
    identity = flips(seed, strength=0.0)
    assert identity.both == identity.before == fitted.before
    assert flips(seed, shuffled=True).both.rate <= 0.3


def test_known_answers_on_a_line() -> None:
    """Boundary at 1; states 0.2 .. 1.0 below it are moved up by 0.5, the others down."""
    boundary = Boundary(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    minus = np.array([[0.8, 5.0], [0.6, -5.0], [0.4, 0.0], [1.2, 0.0]])
    plus = np.array([[1.2, 5.0], [1.6, 0.0]])
    found = held_out_flip_rate(Additive(np.array([0.5, 9.0])), plus, minus, boundary)
    counts = [(s.count, s.n) for s in (found.to_positive, found.to_negative, found.both)]
    assert counts == [(3, 4), (1, 2), (4, 6)]
    assert (found.before.count, found.before.n) == (1, 6)
    assert found.to_json()["both"]["rate"] == pytest.approx(4 / 6)


def test_functions_need_a_reverse_of_their_own() -> None:
    rows = np.array([[-1.0], [-2.0]])
    boundary = Boundary.between(-rows, rows)

    def up(states: NDArray[np.float64]) -> NDArray[np.float64]:
        return states + 1.5

    def stay(states: NDArray[np.float64]) -> NDArray[np.float64]:
        return states

    found = held_out_flip_rate(up, -rows, rows, boundary, reverse=stay)
    assert (found.to_positive.count, found.to_negative.count) == (1, 0)
    with pytest.raises(ValueError, match="give reverse="):
        held_out_flip_rate(up, -rows, rows, boundary)
    with pytest.raises(ValueError, match="finite moved states"):
        held_out_flip_rate(up, -rows, rows, boundary, reverse=lambda x: x * np.nan)
    with pytest.raises(ValueError, match="finite moved states"):
        held_out_flip_rate(lambda x: x[:1], -rows, rows, boundary, reverse=stay)


def test_a_state_on_the_plane_is_on_neither_side() -> None:
    """So that an operator which collapses everything to the middle flips nothing."""
    rows = np.array([[-1.0, 1.0], [-3.0, 1.0]])
    boundary = Boundary.between(-rows, rows)
    found = held_out_flip_rate(np.zeros_like, -rows, rows, boundary, reverse=np.zeros_like)
    assert found.both.count == 0


def test_nearest_centroid_is_the_sign_along_the_mean_difference() -> None:
    rng = np.random.default_rng(0)
    plus, minus = rng.standard_normal((30, 6)) + 0.5, rng.standard_normal((20, 6))
    states = rng.standard_normal((200, 6))
    nearer = np.linalg.norm(states - plus.mean(0), axis=1) < np.linalg.norm(
        states - minus.mean(0), axis=1
    )
    boundary = Boundary.between(plus, minus)
    np.testing.assert_array_equal(boundary.is_positive(states), nearer)
    np.testing.assert_array_equal(boundary.is_negative(states), ~nearer)


def test_boundary_of_a_subspace_is_that_of_its_states() -> None:
    states = planted()
    made = Boundary.of_subspace(fit_subspace(states, 0))
    direct = Boundary.between(states.positive[0], states.negative[0])
    np.testing.assert_allclose(made.middle, direct.middle, atol=1e-12)
    unit = direct.direction / np.linalg.norm(direct.direction)
    np.testing.assert_allclose(made.direction, unit, atol=1e-12)


def test_wilson_interval_by_its_formula() -> None:
    """Wilson (1927) at z = 1.959964, for 9 of 10 and at the ends."""
    z, n, p = 1.959963984540054, 10, 0.9
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    share = Share.of(np.arange(10) > 0)
    assert (share.rate, share.low, share.high) == pytest.approx((p, middle - half, middle + half))
    assert Share.of(np.ones(10, bool)).high == 1.0
    assert Share.of(np.zeros(10, bool)).low == 0.0


@pytest.mark.parametrize(("n", "share"), [(2, 0.5), (10, 0.2), (7, 0.99), (7, 0.01)])
def test_splits_are_disjoint_and_complete(n: int, share: float) -> None:
    train, held = split_rows(n, held_out=share, seed=3)
    assert sorted([*train, *held]) == list(range(n))
    assert min(len(train), len(held)) >= 1
    again = split_rows(n, held_out=share, seed=3)
    assert [list(part) for part in again] == [list(train), list(held)]


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: split_rows(1), "at least 2 rows"),
        (lambda: split_rows(5, held_out=1.0), "between 0 and 1"),
        (lambda: Boundary(np.zeros(2), np.zeros(2)), "one mean"),
        (lambda: Boundary(np.zeros(3), np.ones(2)), "middle and direction"),
        (lambda: Boundary(np.zeros(2), np.array([1.0, np.nan])), "finite"),
        (lambda: Boundary.between(np.ones(3), np.ones((2, 3))), "finite positive states"),
        (lambda: Boundary.between(np.ones((2, 3)), np.full((2, 3), np.inf)), "finite negative"),
    ],
)
def test_bad_arguments_are_refused(call: Any, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        call()


# ---- are the classes different at all ----


def test_swapped_pairs_by_hand() -> None:
    """Sign flips of three paired projections: 1 of 8 sums reaches the largest."""
    boundary = Boundary(np.zeros(2), np.array([1.0, 0.0]))
    positive = np.array([[1.0, 5.0], [2.0, -3.0], [4.0, 0.0]])
    found = Apart.along(boundary, positive, np.zeros((3, 2)))
    assert found.p == pytest.approx(1 / 8)
    assert not found.can_hold
    assert Apart.along(boundary, -positive, np.zeros((3, 2))).p == 1.0
    # Of -1, 2, 4 the sums 5, 7 reach 5.
    assert Apart.along(boundary, positive * [[-1], [1], [1]], np.zeros((3, 2))).p == 2 / 8
    assert Apart.along(boundary, np.zeros((6, 2)), np.zeros((6, 2))).p == 1.0
    drawn = Apart.along(boundary, np.ones((20, 2)), np.zeros((20, 2)))
    assert drawn.p <= 2 / 10_000
    assert drawn.holds
    assert Apart(0.03, 5).can_hold
    assert not Apart(0.06, 4).can_hold
    with pytest.raises(ValueError, match=r"^\[flip\] expected matched pairs"):
        Apart.along(boundary, np.ones((3, 2)), np.ones((4, 2)))


def test_exact_and_drawn_tests_agree() -> None:
    rng = np.random.default_rng(0)
    boundary = Boundary(np.zeros(1), np.ones(1))
    for _ in range(5):
        rows = rng.standard_normal((13, 1)) + 0.3
        exact = Apart.along(boundary, rows, np.zeros((13, 1))).p
        padded = np.concatenate([rows, np.zeros((1, 1))])  # one more pair that says nothing
        drawn = Apart.along(boundary, padded, np.zeros((14, 1))).p
        # Three standard errors of 9999 draws.
        assert drawn == pytest.approx(exact, abs=0.015)


def test_a_split_keeps_groups_together() -> None:
    """A text of the training part is in no held-out pair; the share is met by whole groups."""
    groups = np.repeat(np.arange(12), [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3])
    for seed in range(20):
        train, held = split_rows(24, held_out=0.25, seed=seed, groups=groups)
        assert not set(groups[train]) & set(groups[held])
        assert sorted([*train, *held]) == list(range(24))
        assert 4 <= len(held) <= 8
    big = np.array([0] * 9 + [1] * 11)
    assert len(split_rows(20, held_out=0.1, seed=0, groups=big)[1]) == 9
    with pytest.raises(ValueError, match=r"at least 2 groups .* got 1 in 4 rows"):
        split_rows(4, groups=np.zeros(4, np.int64))
    with pytest.raises(ValueError, match="a group number for each of 4 rows"):
        split_rows(4, groups=np.arange(3))


def test_groups_of_single_rows_change_no_split() -> None:
    for n, share in ((2, 0.5), (9, 0.25), (40, 0.9)):
        order = np.random.default_rng(5).permutation(n)
        n_held = min(max(round(n * share), 1), n - 1)
        for groups in (None, np.arange(n)):
            train, held = split_rows(n, held_out=share, seed=5, groups=groups)
            np.testing.assert_array_equal(held, np.sort(order[:n_held]))
            np.testing.assert_array_equal(train, np.sort(order[n_held:]))


def test_pairs_that_share_a_text_are_swapped_together() -> None:
    """Ten copies of one pair are one observation, whatever their number."""
    boundary = Boundary(np.zeros(1), np.ones(1))
    rows = np.ones((20, 1))
    groups = np.repeat([0, 1], 10)
    found = Apart.along(boundary, rows, np.zeros((20, 1)), groups=groups)
    assert (found.p, found.n_pairs) == (1 / 4, 2)
    assert not found.can_hold
    single = Apart.along(boundary, rows[:7], np.zeros((7, 1)), groups=np.arange(7))
    assert single == Apart.along(boundary, rows[:7], np.zeros((7, 1)))
