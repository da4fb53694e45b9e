"""Contrastive PCA against dense eigendecompositions; the fitted basis; what has no subspace."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

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
    """Rows P1 and P6: eigenvalues, shapes, unit vectors, |cos| > .999 where gaps are clear."""
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


@pytest.mark.parametrize("d_model", [256, 1024])
def test_equals_dense_eigenpairs_at_full_width(d_model: int) -> None:
    """Row P2: the dense result at d = 1024.

    Centred states with a power-law spectrum and three outlier axes, as residual streams have.
    """
    rng = np.random.default_rng(d_model)
    fore, back = rng.standard_normal((2, 50, d_model)) * 10 * np.arange(1, d_model + 1) ** -0.5
    fore[:, :3] += 20 * rng.standard_normal((50, 3))
    fore, back = (x - x.mean(axis=0) for x in (fore, back))
    values, vectors = contrastive_pca(fore, back, 0.7)
    expected, directions = np.linalg.eigh(fore.T @ fore / 50 - 0.7 * back.T @ back / 50)
    scale = np.abs(expected).max()
    # Dense eigh in float64 rounds at 1e-14.
    np.testing.assert_allclose(values[:49], expected[::-1][:49], rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(values[-49:], expected[::-1][-49:], rtol=0, atol=1e-11 * scale)
    np.testing.assert_allclose(values[49:51], 0, atol=1e-11 * scale)  # the two means' axes
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(100), atol=1e-12)
    gaps = -np.diff(expected[::-1][:9])
    clear = np.minimum(gaps, np.concatenate([[np.inf], gaps[:-1]])) > 1e-3 * scale
    cosines = np.abs((vectors[:, :8] * directions[:, ::-1][:, :8]).sum(axis=0))
    assert clear.sum() >= 5
    assert (cosines[clear] > 1 - 1e-12).all()


@pytest.mark.parametrize("decades", [3, 6, 9, 14])
def test_small_singular_values_cost_nothing_at_the_top(decades: int) -> None:
    """A Gram matrix squares the spread of the rows; the eigenvectors stay orthonormal."""
    rng = np.random.default_rng(decades)
    frames = [np.linalg.qr(rng.standard_normal((n, 30)))[0] for n in (30, 120)]
    rows = (frames[0] * np.logspace(0, -decades, 30)) @ frames[1].T
    values, vectors = contrastive_pca(rows[:20], rows[20:])
    dense = rows[:20].T @ rows[:20] / 20 - rows[20:].T @ rows[20:] / 10
    expected = np.linalg.eigvalsh(dense)[::-1]
    scale = np.abs(expected).max()
    # As many positive and negative eigenvalues as rows; all at the rounding of the largest.
    expected = np.concatenate([expected[:20], expected[-10:]])
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(30), atol=1e-12)
    np.testing.assert_allclose(dense @ vectors, vectors * values, atol=1e-13 * scale)


def test_a_loud_common_axis_hides_no_contrast() -> None:
    """What both classes share a million times louder cancels; small directions meet it, and count.

    Dropped as rounding from a Gram matrix, they would leave an eigenvalue wrong by a millionth.
    """
    fore, back = np.zeros((2, 1, 6))
    fore[0, 0] = back[0, 0] = 1.0
    back[0, 1] = 1e-7
    values, vectors = contrastive_pca(fore, back)
    expected = np.linalg.eigvalsh(fore.T @ fore - back.T @ back)[[-1, 0]]  # ±1e-7
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("d_model", [9, 64])
def test_rows_that_depend_on_each_other(rank: int, d_model: int) -> None:
    """Repeated, zero and centred rows: the missing vectors are orthonormal, their values zero."""
    rng = np.random.default_rng(rank)
    rows = rng.standard_normal((8, rank)) @ rng.standard_normal((rank, d_model))
    values, vectors = contrastive_pca(rows[:4], rows[4:])
    assert (np.abs(values) > 1e-12).sum() == rank
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=1e-12)
    dense = rows[:4].T @ rows[:4] / 4 - rows[4:].T @ rows[4:] / 4
    np.testing.assert_allclose(dense @ vectors, vectors * values, atol=1e-11)


@pytest.mark.parametrize(("n_fore", "n_back", "d_model"), [(6, 4, 40), (30, 20, 12)])
def test_a_stack_is_its_layers(n_fore: int, n_back: int, d_model: int) -> None:
    fore, back = (
        np.stack([samples(n, d_model, seed + layer) for layer in range(3)])
        for n, seed in ((n_fore, 0), (n_back, 10))
    )
    kept = min(n_fore + n_back, d_model)
    values, vectors = contrastive_pca(fore, back, 0.5)
    assert values.shape == (3, kept)
    assert vectors.shape == (3, d_model, kept)
    for layer in range(3):
        one = contrastive_pca(fore[layer], back[layer], 0.5)
        np.testing.assert_array_equal(values[layer], one[0])
        np.testing.assert_array_equal(vectors[layer], one[1])
    few = contrastive_pca(fore, back, 0.5, n_components=4)
    assert few[1].shape == (3, d_model, 4)
    np.testing.assert_array_equal(few[0], values[:, :4])
    # Products with fewer columns are summed in another order.
    np.testing.assert_allclose(few[1], vectors[..., :4], rtol=0, atol=1e-13)


def test_float32_states_are_computed_in_float64() -> None:
    """Row P1."""
    fore, back = (np.asarray(samples(5, 40, seed), np.float32) for seed in (1, 2))
    kept = fore.copy()
    found = contrastive_pca(fore, back)
    expected = contrastive_pca(fore.astype(np.float64), back.astype(np.float64))
    for ours, double in zip(found, expected, strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_array_equal(ours, double)
    np.testing.assert_array_equal(fore, kept)


def test_alpha_weighs_the_background() -> None:
    """Row P6: two axes, one louder in the background leads until alpha is large enough."""
    fore, back = np.diag([3.0, 2.0, 0.0, 0.0])[:2], np.diag([2.0, 0.0, 0.0, 0.0])[:1]
    for alpha, values in ((0.0, [4.5, 2.0, 0.0]), (1.0, [2.0, 0.5, 0.0]), (2.0, [2.0, 0.0, -3.5])):
        found, vectors = contrastive_pca(fore, back, alpha)
        np.testing.assert_allclose(found, values, atol=1e-12)
        assert abs(vectors[0 if alpha == 0 else 1, 0]) == pytest.approx(1.0, abs=1e-12)


def test_memory_beside_the_result_is_one_layers() -> None:
    """Row P4."""
    fore, back = (np.zeros((20, 10, 2000), np.float32) for _ in range(2))
    fore += np.random.default_rng(0).standard_normal(fore.shape)
    tracemalloc.start()
    values, vectors = contrastive_pca(fore, back + 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    layer = 8 * 20 * 2000
    # The stated four, the sum above (one layer in float64 is 1/10 of it) and small matrices.
    assert peak < values.nbytes + vectors.nbytes + back.nbytes + 4.5 * layer


@pytest.mark.slow
def test_64_layers_of_5120_take_seconds() -> None:
    """Row P2: 64 x 5120 x (50 + 50) in less than 10 s on 2 cores, every non-zero eigenpair.

    `bench/subspace.py` has the figures; the limit leaves room for a shared machine.
    """
    rng = np.random.default_rng(0)
    fore, back = (rng.standard_normal((64, 50, 5120), np.float32) for _ in range(2))
    began = time.perf_counter()
    values, vectors = contrastive_pca(fore, back)
    assert time.perf_counter() - began < 10
    assert values.shape == (64, 100)
    assert vectors.shape == (64, 5120, 100)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((3, 8), (3, 9)), {}, r"expected two arrays .* differ in n only, got \(3, 8\) and \(3, 9"),
        (((2, 3, 8), (3, 3, 8)), {}, r"got \(2, 3, 8\) and \(3, 3, 8\)$"),
        (((2, 3, 8), (3, 8)), {}, r"got \(2, 3, 8\) and \(3, 8\)$"),
        (((8,), (8,)), {}, r"got \(8,\) and \(8,\)$"),
        (((0, 8), (3, 8)), {}, r"got \(0, 8\) and \(3, 8\)$"),
        (((0, 3, 8), (0, 3, 8)), {}, r"got \(0, 3, 8\) and \(0, 3, 8\)$"),
        (((3, 8), (2, 8)), {"alpha": -1.0}, r"expected a finite alpha of zero or more, got -1\.0$"),
        (((3, 8), (2, 8)), {"alpha": np.nan}, r"alpha of zero or more, got nan$"),
        (((3, 8), (2, 8)), {"n_components": 0}, r"n_components <= 5 for 5 samples .*got 0$"),
        (((3, 4), (2, 4)), {"n_components": 5}, r"n_components <= 4 for 5 samples .*got 5$"),
    ],
)
def test_what_has_no_contrast_is_refused(shapes: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[contrastive_pca\] .*{message}"):
        contrastive_pca(*map(np.ones, shapes), **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(value: float) -> None:
    fore, back = np.ones((2, 3, 8)), np.ones((2, 3, 8))
    back[1, 2, 3] = value
    with pytest.raises(
        ValueError, match=r"^\[contrastive_pca\] expected finite states, got NaN or"
    ):
        contrastive_pca(fore, back)


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
