"""Contrastive PCA against dense eigendecompositions; the fitted basis; what has no subspace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from _models import planted
from cogit.subspace import contrastive_pca, fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def samples(n: int, d_model: int, seed: int) -> Array:
    """Rows with a falling spectrum, so that the leading eigenvalues stand apart."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal((n, d_model)) * np.linspace(2.0, 0.1, d_model))


# ---- contrastive PCA ----


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(
    ("n_fore", "n_back", "d_model"), [(5, 7, 64), (40, 40, 64), (100, 30, 20), (1, 1, 8)]
)
def test_equals_dense_eigenpairs(n_fore: int, n_back: int, d_model: int, alpha: float) -> None:
    fore, back = samples(n_fore, d_model, 1), samples(n_back, d_model, 2)[:, ::-1]
    values, vectors = contrastive_pca(fore, back, alpha)
    dense = fore.T @ fore / n_fore - alpha * back.T @ back / n_back
    expected, directions = (x[..., ::-1] for x in np.linalg.eigh(dense))
    scale = np.abs(expected).max()

    kept = min(d_model, n_fore + n_back)
    assert values.shape == (kept,)
    assert vectors.shape == (d_model, kept)
    assert (np.diff(values) <= 0).all()
    # All non-zero eigenvalues are found: with zeros filled in, the two spectra are one.
    filled = np.sort(np.concatenate([values, np.zeros(d_model - kept)]))[::-1]
    np.testing.assert_allclose(filled, expected, rtol=1e-8, atol=1e-8 * scale)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(kept), atol=1e-12)
    np.testing.assert_allclose(dense @ vectors, vectors * values, atol=1e-8 * scale)

    gap = np.abs(np.diff(expected)) > 0.02 * scale
    clear = np.concatenate([[True], gap]) & np.concatenate([gap, [True]])
    clear &= np.abs(expected) > 0.02 * scale
    for index in np.flatnonzero(clear):
        found = np.argmin(np.abs(values - expected[index]))
        assert abs(vectors[:, found] @ directions[:, index]) > 0.999


def test_finds_what_varies_in_the_foreground_only() -> None:
    """Abid et al.'s picture: a loud axis common to both, a quiet one in the foreground alone."""
    rng = np.random.default_rng(0)
    fore, back = 0.1 * rng.standard_normal((2, 400, 16))
    fore[:, 0] += 10 * rng.standard_normal(400)
    back[:, 0] += 14 * rng.standard_normal(400)
    fore[:, 1] += 2 * rng.standard_normal(400)
    values, vectors = contrastive_pca(fore, back)
    assert abs(vectors[1, 0]) > 0.999
    assert values[0] == pytest.approx(4.0, rel=0.2)
    plain = contrastive_pca(fore, back, alpha=0.0)[1]
    assert abs(plain[0, 0]) > 0.999


# ---- the fitted subspace ----


@pytest.mark.parametrize(
    ("n_pairs", "d_model", "k"), [(40, 32, 4), (3, 32, 3), (2, 4, 2), (9, 4, 2)]
)
def test_basis(n_pairs: int, d_model: int, k: int) -> None:
    activations = planted(n_pairs, d_model)
    subspace = fit_subspace(activations, 0, k=k)
    positive, negative = (x.astype(np.float64) for x in activations.at(0))
    difference = positive.mean(axis=0) - negative.mean(axis=0)

    assert subspace.basis.shape == (d_model, 2 * k)
    np.testing.assert_allclose(subspace.basis.T @ subspace.basis, np.eye(2 * k), atol=1e-12)
    np.testing.assert_allclose(subspace.direction, difference / np.linalg.norm(difference))
    np.testing.assert_allclose(subspace.steering_vector, difference / 2)
    assert subspace.half_separation == pytest.approx(np.linalg.norm(difference) / 2)
    np.testing.assert_allclose(
        subspace.mean, (positive.mean(axis=0) + negative.mean(axis=0)) / 2, atol=1e-12
    )
    assert subspace.spectrum.shape == (2 * k - 1,)
    assert (np.diff(subspace.spectrum) <= 0).all()


def test_coordinates_are_those_of_the_recorded_states() -> None:
    activations = planted()
    subspace = fit_subspace(activations, 0, k=3)
    for states, coordinates, sign in (
        (activations.positive[0], subspace.positive, 1.0),
        (activations.negative[0], subspace.negative, -1.0),
    ):
        expected = (states - subspace.mean) @ subspace.basis
        np.testing.assert_allclose(coordinates, expected, atol=1e-12)
        middle = coordinates.mean(axis=0)
        assert middle[0] == pytest.approx(sign * subspace.half_separation)
    norms = np.linalg.norm(
        np.concatenate([activations.positive[0], activations.negative[0]]), axis=1
    )
    assert subspace.residual_norm == pytest.approx(norms.mean(), rel=1e-6)


def test_further_columns_are_contrastive_components() -> None:
    """Of the paired differences against the covariance of the pairs' means, both without u."""
    activations = planted()
    subspace = fit_subspace(activations, 0, k=3)
    positive, negative = (x.astype(np.float64) for x in activations.at(0))
    complement = np.linalg.svd(subspace.direction[None])[2][1:].T  # (32, 31), orthonormal
    differences, means = (positive - negative) @ complement, (positive + negative) / 2 @ complement
    contrast = differences.T @ differences / 40 - np.cov(means.T, bias=True)
    values = np.linalg.eigvalsh(contrast)[::-1]
    assert values[2] > 0 > values[3]  # the mean difference's own zero must not come between
    np.testing.assert_allclose(subspace.spectrum, values[:5], rtol=1e-8)
    columns = complement.T @ subspace.basis[:, 1:]
    np.testing.assert_allclose(contrast @ columns, columns * values[:5], atol=1e-9)


def test_finds_the_planted_axes() -> None:
    """The first axis separates the classes; the second and third vary within pairs."""
    subspace = fit_subspace(planted(200), 0, k=2)
    assert subspace.direction[0] > 0.95
    assert subspace.half_separation == pytest.approx(1.5, rel=0.1)
    assert np.linalg.norm(subspace.basis[1:3, 1:3]) ** 2 > 1.8  # both of two dimensions


def test_it_is_repeatable() -> None:
    first, second = (fit_subspace(planted(), 0, k=4) for _ in range(2))
    np.testing.assert_array_equal(first.basis, second.basis)


# ---- no subspace ----


def test_zero_mean_difference_is_refused() -> None:
    activations = planted()
    same = replace(activations, negative=activations.positive)
    with pytest.raises(
        ValueError, match=r"^\[subspace\] expected two classes .* zero norm .*block$"
    ):
        fit_subspace(same, 0)


@pytest.mark.parametrize(("n_pairs", "k"), [(3, 4), (40, 0), (40, 17), (40, -1)])
def test_too_few_pairs_or_too_many_dimensions_are_refused(n_pairs: int, k: int) -> None:
    limit = min(n_pairs, 16)
    with pytest.raises(ValueError, match=rf"^\[subspace\] expected 1 <= k <= {limit} .*got {k}$"):
        fit_subspace(planted(n_pairs), 0, k=k)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_states_that_are_not_finite_are_refused(value: float) -> None:
    activations = planted()
    spoilt = activations.positive.copy()
    spoilt[0, 3, 5] = value
    with pytest.raises(ValueError, match=r"^\[activations\] expected finite states, got NaN"):
        replace(activations, positive=spoilt)


def test_an_absent_block_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^\[activations\] expected a recorded block \(0,\), got 1$"
    ):
        fit_subspace(planted(), 1)


@pytest.mark.parametrize("part", ["positive", "negative"])
def test_activations_of_other_shapes_are_refused(part: str) -> None:
    activations = planted()
    for wrong in (activations.positive[:, :5], activations.positive[0], np.zeros((2, 40, 32))):
        with pytest.raises(ValueError, match=r"^\[activations\] expected "):
            replace(activations, **{part: wrong})
