"""Subspaces by other methods, with protected directions and weights; their lineage."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from _models import planted
from _states import METHODS, unit
from cogit.extractors import eigenvalue_weights, extract
from cogit.operators import fit_operator
from cogit.subspace import fit_subspace

KEEPS_MEAN_DIFFERENCE = ("contrastive_pca", "mean_difference")


@pytest.mark.parametrize("method", METHODS)
def test_first_column_and_half_separation(method: str) -> None:
    """Rows P7 and P8: the mean difference, or the method's own direction; oriented; its scale."""
    activations = planted()
    found = fit_subspace(activations, 0, k=3, method=method)
    positive, negative = (x.astype(np.float64) for x in activations.at(0))
    own = "mean_difference" if method in KEEPS_MEAN_DIFFERENCE else method
    np.testing.assert_allclose(
        found.direction, extract(positive, negative, own).direction, atol=1e-12
    )
    difference = positive.mean(axis=0) - negative.mean(axis=0)
    assert found.half_separation == pytest.approx(difference @ found.direction / 2)
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(6), atol=1e-12)
    # The classes lie half a separation to either side, in coordinates too.
    assert found.positive[:, 0].mean() == pytest.approx(found.half_separation)
    assert found.negative[:, 0].mean() == pytest.approx(-found.half_separation)
    assert (np.diff(found.spectrum) <= 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["additive", "ablation", "unitary"])
def test_operators_are_fitted_to_any(method: str, kind: str) -> None:
    """A full additive step carries the negative class to the positive one along the direction."""
    found = fit_subspace(planted(), 0, k=3, method=method)
    operator = fit_operator(found, kind)
    assert not operator.fold(1.0).is_zero()
    if kind == "additive":
        pushed = found.negative[:, 0].mean() + 2 * operator.fold(1.0).c @ found.direction
        assert pushed == pytest.approx(found.half_separation, rel=1e-5)  # float32


def test_pca_columns_are_the_next_components() -> None:
    """Row P8: with nothing as background, the whole basis is that of the paired differences."""
    activations = planted()
    positive, negative = (x.astype(np.float64) for x in activations.at(0))
    found = fit_subspace(activations, 0, k=2, method="pca")
    whole = extract(positive, negative, "pca", n_components=4)
    np.testing.assert_allclose(np.abs((whole.directions @ found.basis).diagonal()), 1.0, atol=1e-9)
    np.testing.assert_allclose(found.spectrum, whole.spectrum[1:], rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 4.0])
def test_alpha_weighs_the_common_variation(alpha: float) -> None:
    """Row P6: in the complement of the mean difference, against a dense contrast."""
    activations = planted()
    found = fit_subspace(activations, 0, k=3, alpha=alpha)
    positive, negative = (x.astype(np.float64) for x in activations.at(0))
    rest = np.linalg.svd(found.direction[None])[2][1:].T
    differences, means = (positive - negative) @ rest, (positive + negative) / 2 @ rest
    contrast = differences.T @ differences / 40 - alpha * np.cov(means.T, bias=True)
    np.testing.assert_allclose(found.spectrum, np.linalg.eigvalsh(contrast)[::-1][:5], rtol=1e-8)


# ---- protected directions ----


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_protected", [1, 4])
def test_every_column_keeps_clear(method: str, n_protected: int) -> None:
    """Row P9: and the contrast is that of what is left."""
    activations = planted()
    drawn = np.random.default_rng(1).standard_normal((n_protected, 32))
    protected = np.concatenate([drawn, drawn[:1] * 3])  # one of them twice
    found = fit_subspace(activations, 0, k=3, method=method, protected=protected)
    assert np.abs(unit(protected) @ found.basis).max() < 1e-6
    np.testing.assert_allclose(found.basis.T @ found.basis, np.eye(6), atol=1e-12)
    assert found.lineage["n_protected"] == n_protected
    assert found.lineage["angle_to_mean_difference"] > 1
    taken = np.concatenate([found.direction[None], drawn])
    rest = np.linalg.svd(taken)[2][len(taken) :].T
    positive, negative = (x.astype(np.float64) for x in activations.at(0))
    differences, means = (positive - negative) @ rest, (positive + negative) / 2 @ rest
    alpha = found.lineage["alpha"]
    contrast = differences.T @ differences / 40 - alpha * np.cov(means.T, bias=True)
    np.testing.assert_allclose(found.spectrum, np.linalg.eigvalsh(contrast)[::-1][:5], rtol=1e-7)


def test_one_protected_direction_may_be_a_vector() -> None:
    protected = np.random.default_rng(1).standard_normal(32)
    found = fit_subspace(planted(), 0, protected=protected)
    assert np.abs(protected @ found.basis).max() < 1e-12


def test_protecting_the_mean_difference_is_an_error() -> None:
    """Row P9."""
    activations = planted()
    protected = fit_subspace(activations, 0).direction
    with pytest.raises(ValueError, match=r"^\[protect\] expected directions outside the span"):
        fit_subspace(activations, 0, protected=2 * protected)


def test_protected_directions_take_room() -> None:
    protected = np.eye(32)[5:30]
    assert fit_subspace(planted(), 0, k=3, protected=protected).basis.shape == (32, 6)
    with pytest.raises(ValueError, match=r"1 <= k <= 3 .*and 25 protected dimensions, got 4$"):
        fit_subspace(planted(), 0, k=4, protected=protected)


# ---- weights ----


@pytest.mark.parametrize("method", ["proportional", "softmax", "rank"])
def test_columns_are_weighed_by_what_they_explain(method: Any) -> None:
    """Row P10: the first column by its own contrast, the others by their eigenvalues."""
    activations = planted()
    found = fit_subspace(activations, 0, k=3, weights=method)
    positive, negative = (x.astype(np.float64) for x in activations.at(0))
    common = (positive + negative) / 2
    contrast = (positive - negative).T @ (positive - negative) / 40 - np.cov(common.T, bias=True)
    explained = np.diag(found.basis.T @ contrast @ found.basis)
    np.testing.assert_allclose(explained[1:], found.spectrum, rtol=1e-8)
    assert found.weights is not None
    np.testing.assert_allclose(found.weights, eigenvalue_weights(explained, method), rtol=1e-8)
    np.testing.assert_array_equal(found.basis, fit_subspace(activations, 0, k=3).basis)


def test_temperature_is_that_of_the_weights() -> None:
    cold, warm = (
        fit_subspace(planted(), 0, weights="softmax", temperature=t).weights for t in (0.2, 5.0)
    )
    assert cold is not None
    assert warm is not None
    assert cold.max() > 0.9 > 0.3 > warm.max()


# ---- lineage and fallback ----


def test_lineage_says_how_it_was_made() -> None:
    """Row P7: the angle to the mean difference is part of it."""
    activations = planted()
    found = fit_subspace(activations, 0, k=2, method="probe", alpha=0.5, weights="rank")
    lineage = found.lineage
    assert lineage["method"] == "probe"
    assert (lineage["alpha"], lineage["weights"], lineage["n_pairs"]) == (0.5, "rank", 40)
    assert (lineage["fallback"], lineage["reason"], lineage["oriented"]) == (False, "", True)
    assert lineage["hook_point"] == "resid_post"
    assert 1 < lineage["angle_to_mean_difference"] < 45
    assert lineage["extractor"]["accuracy"] > 0.8
    assert fit_subspace(activations, 0).lineage["angle_to_mean_difference"] < 1e-5


def test_the_hash_of_the_states_sees_the_states() -> None:
    activations = planted()
    base = fit_subspace(activations, 0).lineage["activations"]
    assert fit_subspace(activations, 0, k=2).lineage["activations"] == base
    changed = activations.positive.copy()
    changed[0, 0, 0] += 1e-3
    other = fit_subspace(replace(activations, positive=changed), 0).lineage["activations"]
    assert len(base) == len(other) == 64
    assert other != base


def failing(matrix: Any, full_matrices: bool = True) -> Any:
    message = "SVD did not converge"
    raise np.linalg.LinAlgError(message)


def test_a_failed_method_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row P5: the mean difference, a warning, and the lineage says so; strict raises."""
    activations = planted()
    expected = fit_subspace(activations, 0).direction
    monkeypatch.setattr(np.linalg, "svd", failing)
    with pytest.warns(RuntimeWarning, match="SVD did not converge; the mean difference .* pca$"):
        found = fit_subspace(activations, 0, method="pca")
    np.testing.assert_array_equal(found.direction, expected)
    assert found.lineage["fallback"] is True
    assert found.lineage["reason"] == "SVD did not converge"
    with pytest.raises(ValueError, match="SVD did not converge"):
        fit_subspace(activations, 0, method="pca", strict=True)


# ---- refusals ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "nonsense"}, r"\[subspace\] expected a method among .*, got 'nonsense'"),
        ({"method": "pca", "alpha": 0.5}, r"\[subspace\] expected no alpha with pca"),
        ({"method": "mean_difference", "alpha": 2.0}, r"expected no alpha with mean_difference"),
        ({"alpha": -1.0}, r"a finite alpha of zero or more"),
        ({"weights": "equal"}, r"\[weights\] expected a method among"),
        ({"temperature": 2.0}, r"\[subspace\] expected a temperature with weights only"),
        ({"weights": "rank", "temperature": 2.0}, r"a temperature with softmax only"),
        ({"protected": np.ones(31)}, r"\[protect\] expected protected directions of width 32"),
        ({"protected": np.zeros(32)}, r"\[protect\] expected finite protected directions"),
    ],
)
def test_what_makes_no_subspace_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_subspace(planted(), 0, **options)


def test_a_direction_along_which_the_classes_do_not_differ_is_refused() -> None:
    """Pairs may differ most where their classes do not; pushing along it would do nothing."""
    activations = planted(4, 8)
    loud = np.zeros((1, 4, 8), np.float32)
    loud[0, :, 3] = [50, -50, 50, -50]
    base = np.random.default_rng(0).standard_normal((1, 4, 8)).astype(np.float32)
    base[0, :, 3] = 0
    push = np.zeros(8, np.float32)
    push[5] = 0.1
    spoilt = replace(activations, positive=base + loud + push, negative=base - loud)
    with pytest.raises(ValueError, match=r"^\[subspace\] expected two classes that differ along"):
        fit_subspace(spoilt, 0, k=2, method="pca")
    assert fit_subspace(spoilt, 0, k=2).direction[5] == pytest.approx(1.0)


def test_options_of_the_method() -> None:
    activations = planted()
    weak, strong = (
        fit_subspace(activations, 0, method="probe", options={"penalty": p}).lineage
        for p in (0.01, 1e5)
    )
    assert strong["angle_to_mean_difference"] < 1 < weak["angle_to_mean_difference"]
    with pytest.raises(TypeError, match=r"^\[extract\] expected options of pca among n_components"):
        fit_subspace(activations, 0, method="pca", options={"bogus": 1})


def test_alpha_reaches_the_ensembles_contrastive_member() -> None:
    activations = planted()
    given: Any = {"options": {"contrastive_pca": {"n_components": 2}, "probe": {"penalty": 2.0}}}
    members = fit_subspace(activations, 0, method="ensemble", alpha=0.25, options=given).lineage[
        "extractor"
    ]["members"]
    assert members["contrastive_pca"]["alpha"] == 0.25
    assert members["probe"]["penalty"] == 2.0
    assert given["options"]["contrastive_pca"] == {"n_components": 2}
    lone = {"members": ("mean_difference", "pca")}
    assert fit_subspace(activations, 0, method="ensemble", options=lone).half_separation > 0
