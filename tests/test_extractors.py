"""Every extractor: finds what is planted, turns it, measures it, and says when it could not."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _models import planted
from cogit import extractors
from cogit.extractors import Extraction, angle, contrastive_pca, extract, extract_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

METHODS = sorted(extractors.registered())
# |cos| with the planted axis from 200 pairs in 32 dimensions, where a pair's own noise is 0.2 and
# the classes are 3 apart. The probe is not told what is noise: on single states, which share a
# spread of 1 in every direction, it has the least to go by.
FOUND = {"probe": 0.95, "ensemble": 0.98}


def states(n_pairs: int = 200, **options: Any) -> tuple[Array, Array]:
    activations = planted(n_pairs, **options)
    return activations.positive[0].astype(np.float64), activations.negative[0].astype(np.float64)


def shuffled(positive: Array, negative: Array, seed: int) -> tuple[Array, Array]:
    """The two texts of each pair exchanged by a coin."""
    swap = np.random.default_rng(seed).random(len(positive)) < 0.5
    return np.where(swap[:, None], negative, positive), np.where(swap[:, None], positive, negative)


def exchanged(run: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return run()


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
    assert found.angle_to_mean_difference == pytest.approx(np.degrees(np.arccos(cosine)), abs=1e-5)
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
    """repeng's ``pca_center``: 2n rows of mean zero, of half the differences and their negatives."""
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


# ---- the ensemble ----


@pytest.mark.parametrize("combine", ["mean", "svd"])
def test_an_ensemble_of_agreeing_members_is_them(combine: str) -> None:
    """Row P8: on states that differ along one axis alone all members agree."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((30, 8))
    push = np.eye(8)[2]
    found = extract(
        shared + push,
        shared - push,
        "ensemble",
        members=("mean_difference", "pca"),
        combine=combine,
    )
    np.testing.assert_allclose(found.direction, push, atol=1e-7)
    assert found.spectrum == pytest.approx([1.0])
    assert found.details["angles"] == {"mean_difference, pca": pytest.approx(0.0, abs=1e-5)}


def test_ensemble_mean_is_its_formula() -> None:
    """Row P8: shares .7 and .3 of the sign-aligned members."""
    positive, negative = states(15)
    one, other = (extract(positive, negative, m) for m in ("mean_difference", "probe"))
    found = extract(
        positive, negative, "ensemble", members=("mean_difference", "probe"), weights=(7, 3)
    )
    total = 0.7 * one.direction + 0.3 * other.direction
    np.testing.assert_allclose(found.direction, total / np.linalg.norm(total), atol=1e-12)
    assert found.spectrum == pytest.approx([np.linalg.norm(total)])
    assert found.details["shares"] == pytest.approx({"mean_difference": 0.7, "probe": 0.3})
    between = angle(one.direction, other.direction)
    assert found.details["angles"] == {"mean_difference, probe": pytest.approx(between)}
    assert between > 1


def test_ensemble_svd_is_the_eigenvector_of_the_weighted_projections() -> None:
    positive, negative = states(15)
    members = ("mean_difference", "probe", "pca")
    rows = [extract(positive, negative, m).direction for m in members]
    shares = np.array([0.5, 0.3, 0.2])
    found = extract(positive, negative, "ensemble", members=members, weights=shares, combine="svd")
    values, vectors = np.linalg.eigh(
        sum(w * np.outer(d, d) for w, d in zip(shares, rows, strict=True))
    )
    assert found.spectrum == pytest.approx(values[-1:])
    assert abs(found.direction @ vectors[:, -1]) == pytest.approx(1.0, abs=1e-12)
    assert len(found.details["angles"]) == 3


def test_ensemble_passes_options_on() -> None:
    positive, negative = states(15)
    found = extract(positive, negative, "ensemble", options={"contrastive_pca": {"alpha": 0.25}})
    assert found.details["members"]["contrastive_pca"] == {"alpha": 0.25}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"members": ("pca",)}, r"two or more different members, none of them ensemble, got pca"),
        ({"members": ("pca", "pca")}, "two or more different members"),
        ({"members": ("pca", "ensemble")}, "two or more different members"),
        ({"members": ("pca", "other")}, r"a method among contrastive_pca, .* got 'other'"),
        ({"weights": (1.0, 2.0)}, "expected 3 weights"),
        ({"weights": (1.0, 2.0, -1.0)}, "none negative"),
        ({"weights": (0.0, 0.0, 0.0)}, "not all zero"),
        ({"weights": (1.0, 2.0, np.nan)}, "none negative"),
        ({"combine": "vote"}, "expected combine mean or svd, got 'vote'"),
        ({"options": {"pca": {}}}, "got some of pca"),
    ],
)
def test_ensembles_that_are_none_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[(ensemble|extract)\] .*{message}"):
        extract(*states(10), "ensemble", **options)


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


# ---- fallback ----


def stack() -> tuple[Array, Array]:
    """Four layers, of which the third holds a NaN and an infinity."""
    layers = [states(40, seed=seed) for seed in range(4)]
    positive, negative = (np.stack([layer[i] for layer in layers]) for i in range(2))
    positive[2, 5, 3], negative[2, 9, 0] = np.nan, np.inf
    return positive, negative


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_with_nan_is_flagged_and_others_are_what_they_are_alone(method: str) -> None:
    """Row P5."""
    positive, negative = stack()
    with pytest.warns(RuntimeWarning, match=r"NaN or infinity in 2 of 40 pairs at block 7; .*used"):
        found = extract_layers(positive, negative, method, layers=(1, 3, 7, 9))
    assert [one.fallback for one in found] == [False, False, True, False]
    for index in (0, 1, 3):
        alone = extract(positive[index], negative[index], method)
        np.testing.assert_array_equal(found[index].directions, alone.directions)
        np.testing.assert_array_equal(found[index].spectrum, alone.spectrum)
        assert found[index].reason == ""
    fallen = found[2]
    assert fallen.method == method
    assert fallen.reason == "[extract] expected finite states, got NaN or infinity in 2 of 40 pairs"
    rows = np.setdiff1d(np.arange(40), [5, 9])
    expected = extract(positive[2, rows], negative[2, rows], "mean_difference")
    np.testing.assert_array_equal(fallen.direction, expected.direction)
    assert fallen.oriented


@pytest.mark.parametrize("method", METHODS)
def test_strict_raises_instead(method: str) -> None:
    """Row P5."""
    with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 40 pairs at block 2$"):
        extract_layers(*stack(), method, strict=True)


def test_an_eigenproblem_that_fails_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row P5: one layer's failure is that layer's alone."""
    layers = [states(10, seed=seed) for seed in range(3)]
    positive, negative = (np.stack([layer[i] for layer in layers]) for i in range(2))
    alone = [extract(p, n) for p, n in zip(positive, negative, strict=True)]
    whole, calls = np.linalg.eigh, []

    def fail_in_the_second_layer(matrix: Array) -> Any:
        calls.append(matrix.shape)
        if len(calls) == len(calls_a_layer) + 1:
            message = "Eigenvalues did not converge"
            raise np.linalg.LinAlgError(message)
        return whole(matrix)

    calls_a_layer: list[Any] = [None] * 10**6
    monkeypatch.setattr(np.linalg, "eigh", fail_in_the_second_layer)
    extract(positive[0], negative[0])
    calls_a_layer = calls.copy()
    calls.clear()
    with pytest.warns(RuntimeWarning, match=r"'Eigenvalues did not converge'.* at block 1; "):
        found = extract_layers(positive, negative)
    assert [one.fallback for one in found] == [False, True, False]
    for index in (0, 2):
        np.testing.assert_array_equal(found[index].directions, alone[index].directions)
    assert found[1].angle_to_mean_difference == pytest.approx(0.0, abs=1e-6)


def test_an_ensemble_falls_back_with_its_member(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(matrix: Array) -> Any:
        message = "no"
        raise np.linalg.LinAlgError(message)

    monkeypatch.setattr(np.linalg, "eigh", fail)
    with pytest.warns(RuntimeWarning, match=r"instead of ensemble$"):
        assert extract(*states(10), "ensemble").fallback


@pytest.mark.parametrize("method", METHODS)
def test_where_nothing_is_left_nothing_is_returned(method: str) -> None:
    """Row P5: no finite pair, or no difference: flagged, and empty rather than made up."""
    positive, negative = states(6)
    spoilt = np.full_like(positive, np.nan)
    for first, second in (
        (spoilt, negative),
        (negative, np.where(np.eye(6, 32) > 0, np.inf, negative)),
    ):
        with pytest.warns(RuntimeWarning, match=f"; nothing is used instead of {method}$"):
            found = extract(first, second, method)
        assert found.fallback
        assert found.directions.shape == (0, 32)
        with pytest.raises(ValueError, match=r"^\[extract\] expected a direction .* got none: "):
            _ = found.direction


def test_the_same_states_twice_are_flagged() -> None:
    positive, _ = states(6)
    for method in ("mean_difference", "pca", "probe"):
        with pytest.warns(RuntimeWarning, match="nothing is used"):
            assert extract(positive, positive, method).fallback


# ---- memory ----


@pytest.mark.parametrize("method", ["mean_difference", "pca", "contrastive_pca"])
def test_peak_memory_is_one_layers(method: str) -> None:
    """Row P4: the stated bound, whatever the number of layers."""
    n_layers, n_pairs, d_model = 12, 20, 3000
    rng = np.random.default_rng(0)
    positive, negative = (
        rng.standard_normal((n_layers, n_pairs, d_model)).astype(np.float32) for _ in range(2)
    )
    positive[:, :, 0] += 3
    tracemalloc.start()
    found = extract_layers(positive, negative, method)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kept = sum(one.directions.nbytes + one.mean.nbytes for one in found)
    assert peak < kept + 160 * n_pairs * d_model
    # All layers at once in float64 would be more than the bound by themselves.
    assert 160 * n_pairs * d_model < 16 * n_layers * n_pairs * d_model


def test_layers_may_come_one_at_a_time() -> None:
    """Row P4: a store need not be read whole."""
    read: list[int] = []

    def layer(index: int, side: int) -> Array:
        read.append(index)
        return states(10, seed=index)[side]

    found = extract_layers((layer(i, 0) for i in range(3)), (layer(i, 1) for i in range(3)))
    assert read == [0, 0, 1, 1, 2, 2]
    for index, one in enumerate(found):
        np.testing.assert_array_equal(one.directions, extract(*states(10, seed=index)).directions)


def test_stacks_of_different_depth_are_refused() -> None:
    positive, negative = stack()
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        exchanged(lambda: extract_layers(positive, negative[:3]))


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
