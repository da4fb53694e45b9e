"""A stack of layers: what fails is flagged and left alone, and memory is one layer's."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _states import METHODS, states
from cogit.extractors import extract, extract_layers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

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
    whole = np.linalg.eigh
    calls: list[Any] = []

    def fail_in_the_second_layer(matrix: Array) -> Any:
        calls.append(matrix.shape)
        if len(calls) == 3:  # two a layer
            message = "Eigenvalues did not converge"
            raise np.linalg.LinAlgError(message)
        return whole(matrix)

    monkeypatch.setattr(np.linalg, "eigh", fail_in_the_second_layer)
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


@pytest.mark.parametrize("method", METHODS)
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
    assert peak < kept + 100 * n_pairs * d_model
    # All layers at once in float64 would be more than the bound by themselves.
    assert 100 * n_pairs * d_model < 16 * n_layers * n_pairs * d_model


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
        extract_layers(positive[:2], negative[:1])
