"""Running moments: equal to those of all rows at once, merged in any order."""

from __future__ import annotations

import numpy as np
import pytest

from cogit.running import RunningMoments


def rows(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Far from the origin, and with directions of very different spread."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((n, width)) @ rng.standard_normal((width, width))
    return mixed * np.geomspace(1e-2, 1e2, width) + 1e3 * rng.standard_normal(width)


def pieces(data: np.ndarray, seed: int) -> list[np.ndarray]:
    """Cut at random places; some pieces are empty, some of one row."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, len(data) + 1, rng.integers(1, 9)))
    return np.split(data, cuts)


def check(found: RunningMoments, data: np.ndarray) -> None:
    """Row P24: 1e-6, here of the spread of each direction."""
    spread = data.std(axis=0, ddof=1)
    assert found.count == len(data)
    assert np.abs((found.mean - data.mean(axis=0)) / spread).max() <= 1e-6
    expected = np.cov(data.T)
    if not found.diagonal:
        error = np.abs(found.covariance() - expected) / np.outer(spread, spread)
        assert error.max() <= 1e-6
    np.testing.assert_allclose(found.variance(), np.diag(expected), rtol=1e-6)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_any_cut_and_any_order_of_merging(seed: int, diagonal: bool) -> None:
    """Row P24: batches of any size, parts merged in any order and shape of tree."""
    rng = np.random.default_rng(seed)
    data = rows(int(rng.integers(2, 300)), int(rng.integers(1, 12)), seed)
    data = data if data.shape[1] > 1 else np.hstack([data, -2 * data])
    one = RunningMoments(data.shape[1], diagonal=diagonal)
    parts = []
    for piece in pieces(data, seed):
        one.update(piece)
        part = RunningMoments(data.shape[1], diagonal=diagonal)
        part.update(piece)
        parts.append(part)
    check(one, data)
    while len(parts) > 1:
        first, second = rng.choice(len(parts), 2, replace=False)
        parts[first].merge(parts[second])
        del parts[second]
    check(parts[0], data)


def test_one_row_at_a_time_is_welford() -> None:
    data = rows(200, 5)
    found = RunningMoments(5)
    for row in data:
        found.update(row)
    check(found, data)


def test_float32_rows_far_from_the_origin() -> None:
    """Squares minus the squared mean would lose all digits here."""
    data = (1e4 + np.random.default_rng(0).standard_normal((5000, 3))).astype(np.float32)
    found = RunningMoments(3)
    for batch in np.array_split(data, 50):
        found.update(batch)
    check(found, data.astype(np.float64))
    naive = (data**2).mean(axis=0) - data.mean(axis=0) ** 2
    assert np.abs(naive - 1).max() > 1e-2


def test_a_part_merges_what_it_is_given_and_leaves_it() -> None:
    data = rows(50, 4)
    first, second = RunningMoments(4), RunningMoments(4)
    first.update(data[:20])
    second.update(data[20:])
    before = second.covariance()
    first.merge(second)
    np.testing.assert_array_equal(second.covariance(), before)
    first.update(data)
    np.testing.assert_array_equal(second.covariance(), before)


def test_stored_moments_go_on() -> None:
    data = rows(90, 4)
    found = RunningMoments(4)
    found.update(data[:40])
    again = RunningMoments.of(found.count, found.mean, found.covariance())
    again.update(data[40:])
    check(again, data)


def test_refusals() -> None:
    moments = RunningMoments(3)
    moments.update(np.empty((0, 3)))
    moments.update([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"^\[statistics\] expected at least 2 rows, got 1$"):
        moments.covariance()
    with pytest.raises(ValueError, match=r"expected rows of width 3, got \(2, 4\)$"):
        moments.update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="expected rows of width 3"):
        moments.update(np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="expected finite rows"):
        moments.update([1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match=r"expected moments of shape \(3, 3\), got \(3,\)$"):
        moments.merge(RunningMoments(3, diagonal=True))
    with pytest.raises(ValueError, match="expected a width of at least 1"):
        RunningMoments(0)
    with pytest.raises(ValueError, match="expected a count of at least 2, a mean"):
        RunningMoments.of(5, np.zeros(3), np.zeros((3, 4)))
    flat = RunningMoments(2, diagonal=True)
    flat.update(np.eye(2))
    with pytest.raises(ValueError, match="expected full covariances"):
        flat.covariance()
    assert moments.count == 1
