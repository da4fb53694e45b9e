"""Protected directions: exact against the whole set, refused where nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _states import METHODS, states, unit
from cogit.extractors import extract, orthogonalise, span_basis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@pytest.mark.parametrize("n_protected", [1, 3, 30])
def test_planted_dots_vanish(n_protected: int) -> None:
    """Row P9: below 1e-6, here at rounding."""
    rng = np.random.default_rng(n_protected)
    protected, directions = rng.standard_normal((n_protected, 64)), rng.standard_normal((4, 64))
    kept = directions.copy(), protected.copy()
    found = orthogonalise(directions, protected)
    assert np.abs(found @ unit(protected).T).max() < 1e-14
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-14)
    np.testing.assert_array_equal(directions, kept[0])
    np.testing.assert_array_equal(protected, kept[1])
    # The nearest there is: what was taken lies in the span of the protected ones.
    basis = span_basis(protected)
    projected = directions - (directions @ basis.T) @ basis
    np.testing.assert_allclose(found, unit(projected), atol=1e-12)


def test_it_is_exact_where_one_after_another_is_not() -> None:
    """Row P9: protected directions at 20 degrees to each other."""
    a = np.array([1.0, 0.0, 0.0])
    b = np.array([np.cos(np.radians(20)), np.sin(np.radians(20)), 0.0])
    v = unit(np.array([1.0, 1.0, 1.0]))
    sequential = v.copy()
    for one in (a, b):
        sequential = unit(sequential - (sequential @ one) * one)
    assert abs(sequential @ a) > 0.1
    found = orthogonalise(v, np.stack([a, b]))
    np.testing.assert_allclose(found, [0, 0, 1], atol=1e-15)


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e-5])
def test_almost_parallel_is_refused(noise: float) -> None:
    """Row P9."""
    rng = np.random.default_rng(0)
    protected = rng.standard_normal((3, 40))
    inside = unit(np.array([0.3, -2.0, 1.0]) @ protected) + noise * unit(rng.standard_normal(40))
    with pytest.raises(
        ValueError, match=r"^\[protect\] expected directions outside .*number 1.*is"
    ):
        orthogonalise(np.stack([rng.standard_normal(40), inside]), protected)


def test_a_short_residue_is_as_exact() -> None:
    """Row P9: a thousandth is left, at 1e-3 of a degree from being refused; the dot stays small."""
    rng = np.random.default_rng(0)
    protected = rng.standard_normal((3, 40))
    near = unit(protected[0]) + 1e-3 * unit(rng.standard_normal(40))
    found = orthogonalise(near, protected)
    assert np.abs(unit(protected) @ found).max() < 1e-14


@pytest.mark.parametrize("copies", [2, 50])
def test_dependent_protected_directions(copies: int) -> None:
    """Row P9: repeated, scaled and combined ones count once."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((2, 20))
    mixed = rng.standard_normal((copies, 2)) @ base * 10.0 ** rng.integers(-9, 9, (copies, 1))
    protected = np.concatenate([base, mixed, -base])
    assert span_basis(protected).shape == (2, 20)
    v = rng.standard_normal(20)
    np.testing.assert_allclose(orthogonalise(v, protected), orthogonalise(v, base), atol=1e-12)


def test_one_direction_stays_one() -> None:
    assert orthogonalise(np.ones(5), np.eye(5)[0]).shape == (5,)
    assert orthogonalise(np.ones((1, 5)), np.eye(5)[0]).shape == (1, 5)


@pytest.mark.parametrize(
    ("directions", "protected", "message"),
    [
        (np.ones(5), np.ones(4), "protected directions of width 5, got 4"),
        (np.ones(5), np.zeros(5), "protected directions of a length above zero"),
        (np.zeros(5), np.ones(5), "finite directions of a length above zero"),
        (np.ones(5), np.full(5, np.nan), "finite protected directions"),
        (np.ones((2, 2, 5)), np.ones(5), r"got \(2, 2, 5\)"),
        (np.ones((0, 5)), np.ones(5), r"got \(0, 5\)"),
        (np.ones(5), np.eye(5), "outside the span"),
    ],
)
def test_what_cannot_be_protected_is_refused(
    directions: Array, protected: Array, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^\[protect\] .*{message}"):
        orthogonalise(directions, protected)


@pytest.mark.parametrize("method", METHODS)
def test_every_extractor_keeps_clear(method: str) -> None:
    """Row P9: and what it finds is measured again."""
    positive, negative = states(40)
    protected = np.random.default_rng(1).standard_normal((3, 32))
    options: dict[str, Any] = {"n_components": 3} if "pca" in method else {}
    found = extract(positive, negative, method, protected=protected, **options)
    assert np.abs(found.directions @ unit(protected).T).max() < 1e-6
    np.testing.assert_allclose(
        found.directions @ found.directions.T, np.eye(len(found.directions)), atol=1e-12
    )
    plain = extract(positive, negative, method, **options)
    np.testing.assert_allclose(
        found.direction, orthogonalise(plain.direction, protected), atol=1e-12
    )
    assert found.angle_to_mean_difference > 1
    assert found.oriented
    assert (found.directions @ (positive - negative).mean(axis=0) > 0).all()


def test_protecting_what_is_sought_is_an_error() -> None:
    positive, negative = states(40)
    difference = positive.mean(axis=0) - negative.mean(axis=0)
    with pytest.raises(ValueError, match=r"^\[protect\] expected directions outside the span"):
        extract(positive, negative, "mean_difference", protected=difference)
