"""Weights from eigenvalues: three formulas, and none of them saturates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from cogit.extractors import WEIGHT_METHODS, eigenvalue_weights

VALUES = [1e6, 3.0, 2.0, 0.5]


def test_proportional_is_the_explained_variance_ratio() -> None:
    """Row P10."""
    np.testing.assert_allclose(eigenvalue_weights([6.0, 3.0, 1.0]), [0.6, 0.3, 0.1])
    np.testing.assert_allclose(eigenvalue_weights([3.0, 1.0, -8.0]), [0.75, 0.25, 0.0])
    tiny = eigenvalue_weights([6e-320, 3e-320])
    assert np.isfinite(tiny).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_softmax_is_that_of_standardised_eigenvalues(temperature: float) -> None:
    """Row P10: (4, 2, 0) has mean 2 and population deviation sqrt(8/3)."""
    z = 2 / math.sqrt(8 / 3)
    terms = [math.exp(x / temperature) for x in (z, 0.0, -z)]
    expected = [term / sum(terms) for term in terms]
    found = eigenvalue_weights([4.0, 2.0, 0.0], "softmax", temperature=temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_rank_is_the_reciprocal() -> None:
    """Row P10: 1, 1/2, 1/3 over their sum; ties share their mean rank."""
    found = eigenvalue_weights([2.0, 9.0, -1.0], "rank")
    np.testing.assert_allclose(found, np.array([1 / 2, 1.0, 1 / 3]) / (11 / 6))
    tied = eigenvalue_weights([5.0, 5.0, 1.0], "rank")
    np.testing.assert_allclose(tied, np.array([1 / 1.5, 1 / 1.5, 1 / 3]) / (5 / 3))


@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_weights_sum_to_one_and_keep_the_order(method: Any) -> None:
    rng = np.random.default_rng(0)
    for m in (1, 2, 7, 60):
        values = rng.standard_normal(m) * 10.0 ** rng.integers(-3, 4, m)
        values[0] = np.abs(values).max() + 1
        weights = eigenvalue_weights(values, method)
        assert weights.sum() == pytest.approx(1.0)
        assert (weights >= 0).all()
        assert (np.diff(weights[np.argsort(values)]) >= 0).all()


@pytest.mark.parametrize("unit", [1e-150, 1e-6, 1.0, 1e6, 1e150])
@pytest.mark.parametrize("method", WEIGHT_METHODS)
def test_the_unit_of_the_eigenvalues_does_not_matter(method: Any, unit: float) -> None:
    values = np.array([4.0, 1.0, 0.5])
    np.testing.assert_allclose(
        eigenvalue_weights(unit * values, method), eigenvalue_weights(values, method), rtol=1e-12
    )


def test_softmax_does_not_saturate() -> None:
    """Row P10: on raw eigenvalues it is 1, 0, 0, 0 exactly; here every column counts."""
    raw = np.exp(np.array(VALUES) - max(VALUES))
    assert (raw[1:] == 0).all()
    for m in (4, 7, 15):
        values = [1e6, *np.linspace(3, 0.5, m - 1)]
        weights = eigenvalue_weights(values, "softmax")
        bound = 1 / (1 + (m - 1) * math.exp(-m / math.sqrt(m - 1)))
        assert weights.max() <= bound + 1e-12
        assert weights.min() > 1e-3
    assert eigenvalue_weights(VALUES, "softmax").max() < 0.8


def test_temperature_goes_from_one_to_all() -> None:
    """Row P10."""
    cold = eigenvalue_weights([3.0, 2.0, 1.0], "softmax", temperature=1e-3)
    hot = eigenvalue_weights([3.0, 2.0, 1.0], "softmax", temperature=1e6)
    np.testing.assert_allclose(cold, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(hot, 1 / 3, atol=1e-5)


@pytest.mark.parametrize("method", WEIGHT_METHODS)
@pytest.mark.parametrize("value", [2.0, 0.1, 7e-200])
def test_equal_eigenvalues_count_equally(method: Any, value: float) -> None:
    np.testing.assert_allclose(eigenvalue_weights([value] * 6, method), 1 / 6)


@pytest.mark.parametrize(
    ("values", "method", "options", "message"),
    [
        ([], "rank", {}, "finite eigenvalues"),
        ([[1.0]], "rank", {}, r"got shape \(1, 1\)"),
        ([1.0, np.nan], "rank", {}, "finite eigenvalues"),
        ([1.0], "softmax", {"temperature": 0.0}, "temperature above zero, got 0"),
        ([1.0], "softmax", {"temperature": np.inf}, "finite temperature"),
        ([1.0], "rank", {"temperature": 2.0}, "temperature with softmax only, got one with 'rank'"),
        ([-1.0, 0.0], "proportional", {}, "an eigenvalue above zero"),
        ([1.0], "equal", {}, "a method among proportional, softmax, rank, got 'equal'"),
    ],
)
def test_what_gives_no_weights_is_refused(
    values: Any, method: Any, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"^\[weights\] expected .*{message}"):
        eigenvalue_weights(values, method, **options)
