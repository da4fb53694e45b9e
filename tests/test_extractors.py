"""Every extractor: finds what is planted, turns it, measures it, and says when it could not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from _models import planted
from _states import METHODS, states
from cogit import extractors
from cogit.extractors import Extraction, angle, contrastive_pca, extract

# |cos| with the planted axis from 200 pairs in 32 dimensions, the classes 3 apart; the least of 12
# seeds was .992 for the mean difference, .981, .973, .962 and .891 for these. Two axes vary within
# pairs, which components mix in; the probe sees single states, which share a spread of 1 in every
# direction.
FOUND = {"ensemble": 0.97, "contrastive_pca": 0.96, "pca": 0.95, "probe": 0.87}


# ---- every extractor ----


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", METHODS)
def test_finds_the_planted_direction(method: str, seed: int) -> None:
    """Rows P7 and P8: the same interface finds and orients it."""
    positive, negative = states(seed=seed)
    found = extract(positive, negative, method)
    assert found.direction[0] > FOUND.get(method, 0.99)
    difference = positive.mean(axis=0) - negative.mean(axis=0)
    assert found.oriented
    assert found.direction @ difference > 0
    cosine = found.direction @ difference / np.linalg.norm(difference)
    degrees = np.degrees(np.arccos(min(cosine, 1.0)))
    # Near 0 arccos keeps half the digits of its cosine.
    assert found.angle_to_mean_difference == pytest.approx(degrees, abs=1e-5)
    assert not found.fallback
    assert found.reason == ""


@pytest.mark.parametrize("method", METHODS)
def test_the_interface(method: str) -> None:
    """Row P8: unit rows, one value each, JSON details, the same twice, states left alone."""
    positive, negative = states(30)
    kept = positive.copy(), negative.copy()
    found = extract(positive, negative, method)
    assert found.method == method
    assert found.directions.shape == (len(found.spectrum), 32)
    gram = found.directions @ found.directions.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)
    np.testing.assert_allclose(found.mean, (positive + negative).mean(axis=0) / 2, atol=1e-12)
    json.dumps(found.details, allow_nan=False)
    again = extract(positive, negative, method)
    np.testing.assert_array_equal(again.directions, found.directions)
    np.testing.assert_array_equal(positive, kept[0])
    np.testing.assert_array_equal(negative, kept[1])


@pytest.mark.parametrize("method", METHODS)
def test_exchanging_the_classes_turns_the_direction(method: str) -> None:
    """Row P7."""
    positive, negative = states(60)
    forward, backward = extract(positive, negative, method), extract(negative, positive, method)
    # The probe's optimiser stops at a gradient of 1e-8; all others are exact to rounding.
    np.testing.assert_allclose(forward.direction, -backward.direction, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_more_dimensions_than_states(method: str) -> None:
    positive, negative = states(20, d_model=200, separation=8.0)
    assert extract(positive, negative, method).direction[0] > 0.8


@pytest.mark.parametrize("method", METHODS)
def test_float32_is_computed_in_float64(method: str) -> None:
    """Row P1: upcast, not computed in what was recorded."""
    activations = planted(30)
    single = extract(activations.positive[0], activations.negative[0], method)
    double = extract(*states(30), method)
    assert single.directions.dtype == np.float64
    np.testing.assert_array_equal(single.directions, double.directions)


@pytest.mark.parametrize("method", METHODS)
def test_scale_does_not_matter(method: str) -> None:
    positive, negative = states(40)
    small = extract(positive, negative, method)
    large = extract(1e3 * positive, 1e3 * negative, method)
    np.testing.assert_allclose(large.direction, small.direction, atol=1e-5)  # the probe's optimiser


# ---- single methods ----


def test_mean_difference_is_its_formula() -> None:
    positive, negative = states(30)
    found = extract(positive, negative, "mean_difference")
    difference = positive.mean(axis=0) - negative.mean(axis=0)
    np.testing.assert_allclose(found.direction, difference / np.linalg.norm(difference))
    assert found.angle_to_mean_difference == pytest.approx(0.0, abs=1e-6)


def test_pca_is_an_eigenvector_of_the_second_moment() -> None:
    positive, negative = states(50)
    found = extract(positive, negative, "pca", n_components=3)
    difference = positive - negative
    values, vectors = np.linalg.eigh(difference.T @ difference / 50)
    np.testing.assert_allclose(found.spectrum, values[::-1][:3], rtol=1e-10)
    cosines = np.abs((found.directions * vectors[:, ::-1][:, :3].T).sum(axis=1))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-10)


def test_pca_is_the_components_of_both_texts_about_their_midpoint() -> None:
    """repeng's ``pca_center``: 2n rows of mean zero, half the differences, either way."""
    positive, negative = states(50)
    midpoint = (positive + negative) / 2
    rows = np.concatenate([positive - midpoint, negative - midpoint])
    _, singular, vectors = np.linalg.svd(rows - rows.mean(axis=0))
    found = extract(positive, negative, "pca")
    assert abs(found.direction @ vectors[0]) == pytest.approx(1.0, abs=1e-12)
    assert found.spectrum[0] == pytest.approx(4 * singular[0] ** 2 / 100)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 2.0])
def test_contrastive_pca_is_an_eigenvector_of_the_dense_contrast(alpha: float) -> None:
    """Row P1 on matched states: 1e-4 of the eigenvalues, |cos| > .999 where gaps are clear."""
    positive, negative = states(50)
    found = extract(positive, negative, "contrastive_pca", alpha=alpha, n_components=3)
    difference, common = positive - negative, (positive + negative) / 2
    dense = difference.T @ difference / 50 - alpha * np.cov(common.T, bias=True)
    values, vectors = np.linalg.eigh(dense)
    np.testing.assert_allclose(found.spectrum, values[::-1][:3], rtol=1e-10)
    assert abs(found.direction @ vectors[:, -1]) > 1 - 1e-10
    assert found.details == {"alpha": alpha}


def test_alpha_zero_is_pca() -> None:
    """Row P6: without the background, nothing but the paired differences is left."""
    positive, negative = states(50)
    plain = extract(positive, negative, "pca", n_components=3)
    none = extract(positive, negative, "contrastive_pca", alpha=0.0, n_components=3)
    np.testing.assert_allclose(none.spectrum, plain.spectrum, rtol=1e-10)
    np.testing.assert_allclose(none.directions, plain.directions, atol=1e-7)


def test_alpha_turns_away_from_what_pairs_share() -> None:
    """Row P6: an axis loud within pairs and louder among them leads until alpha is large enough."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((400, 8)) * np.array([6.0, *[0.1] * 7])
    own = rng.standard_normal((2, 400, 8)) * np.array([2.0, *[0.1] * 7])
    own[0, :, 1] += 1.0
    own[1, :, 1] -= 1.0
    positive, negative = shared + own
    small = extract(positive, negative, "contrastive_pca", alpha=0.0)
    large = extract(positive, negative, "contrastive_pca", alpha=1.0)
    assert abs(small.direction[0]) > 0.99
    assert large.direction[1] > 0.99
    assert large.spectrum[0] == pytest.approx(4.0, rel=0.05)


# ---- orientation and angles ----


def test_a_direction_without_a_sign_says_so() -> None:
    """Row P7: perpendicular to the mean difference, neither sign is right."""
    positive = np.array([[5.0, 1.0], [-5.0, 1.0]])
    negative = np.array([[-5.0, -1.0], [5.0, -1.0]])
    found = extract(positive, negative, "pca", n_components=2)
    assert abs(found.direction[0]) == pytest.approx(1.0)
    assert not found.oriented
    assert found.angle_to_mean_difference == pytest.approx(90.0)
    assert found.directions[1][1] == pytest.approx(1.0)  # the other one is turned all the same


def test_coinciding_classes_have_no_angle() -> None:
    positive = np.array([[5.0, 0.0], [-5.0, 0.0]])
    found = extract(positive, -positive, "pca")
    assert not found.oriented
    assert np.isnan(found.angle_to_mean_difference)


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.01, 30.0, 89.999, 90.0])
def test_angles_are_exact(degrees: float) -> None:
    turned = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0.0])
    axis = np.array([3.0, 0.0, 0.0])
    for sign in (1, -1):
        assert angle(axis, sign * turned) == pytest.approx(degrees, rel=1e-9, abs=1e-12)


def test_combined_weighs_the_directions() -> None:
    found = extract(*states(30), "pca", n_components=2)
    np.testing.assert_allclose(found.combined([1.0, 0.0]), found.direction, atol=1e-12)
    total = 3 * found.directions[0] + found.directions[1]
    np.testing.assert_allclose(found.combined([3, 1]), total / np.linalg.norm(total), atol=1e-12)
    for wrong in ([1.0], [0.0, 0.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match=r"^\[extract\] expected .*weight"):
            found.combined(wrong)


# ---- refusals ----


@pytest.mark.parametrize("method", METHODS)
def test_options_that_a_method_lacks_are_refused(method: str) -> None:
    with pytest.raises(
        TypeError, match=rf"^\[extract\] expected options of {method} among .*bogus"
    ):
        extract(*states(5), method, bogus=1)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("pca", {"n_components": 0}, r"\[pca\] expected 1 <= n_components <= 5, got 0"),
        ("pca", {"n_components": 6}, r"\[pca\] expected 1 <= n_components <= 5, got 6"),
        ("contrastive_pca", {"n_components": 11}, r"n_components <= 10, got 11"),
        ("contrastive_pca", {"alpha": -1.0}, r"alpha of zero or more, got -1\.0"),
        ("probe", {"penalty": 0.0}, r"a finite penalty above zero, got 0\.0"),
        ("probe", {"folds": 1}, r"at least 2 pairs and 2 folds, got 5 and 1"),
        ("nonsense", {}, r"\[extract\] expected a method among contrastive_pca, ensemble, mean_d"),
    ],
)
def test_options_that_fit_no_states_are_refused(method: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract(*states(5), method, **options)


@pytest.mark.parametrize(
    "shapes", [((5, 8), (4, 8)), ((5, 8), (5, 7)), ((8,), (8,)), ((0, 8),) * 2]
)
def test_states_that_do_not_match_are_refused(shapes: Any) -> None:
    with pytest.raises(ValueError, match=r"^\[extract\] expected two arrays \(pair, d_model\)"):
        extract(*map(np.ones, shapes))


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match=r"^\[extract\] expected a new name, got 'pca' twice$"):
        extractors.register("pca")(lambda *_: Extraction("", *[np.zeros(0)] * 3, 0.0, False))


def test_contrastive_pca_is_one_function() -> None:
    from cogit import subspace

    assert subspace.contrastive_pca is contrastive_pca
