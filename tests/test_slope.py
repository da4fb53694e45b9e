"""Dose-response: slopes against SciPy's, monotonicity, intervals that cover, bad inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from cogit.evaluation.slope import dose_response
from cogit.evaluation.statistics import bootstrap_mean

DOSES = np.array([0.25, 0.5, 1.0, 1.5, 2.0])


def table(slope: float, n: int = 40, seed: int = 0, noise: float = 1.0) -> Any:
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 3, (n, 1))
    own = rng.normal(slope, 0.5, (n, 1))
    return level + own * DOSES + noise * rng.standard_normal((n, len(DOSES)))


def test_a_straight_line_by_hand() -> None:
    """Q57: 10 points per unit for every prompt, whatever its level."""
    values = np.array([[1.0], [5.0], [-3.0]]) + 10 * DOSES
    found = dose_response(DOSES, values)
    assert (found.slope.mean, found.slope.low, found.slope.high) == pytest.approx((10, 10, 10))
    assert found.unit == "points per unit of strength"
    assert found.spearman == 1.0
    assert dose_response(DOSES, -values).spearman == -1.0
    assert found.to_json()["slope"]["unit"] == found.unit
    assert found.to_json()["spearman_ci"] == [1.0, 1.0]


def test_slope_and_rank_correlation_are_scipys() -> None:
    values = table(0.5, noise=4.0)
    found = dose_response(DOSES, values)
    curve = values.mean(axis=0)
    assert found.slope.mean == pytest.approx(stats.linregress(DOSES, curve).slope)
    assert found.spearman == pytest.approx(stats.spearmanr(DOSES, curve).statistic)
    own = [stats.linregress(DOSES, row).slope for row in values]
    expected = bootstrap_mean(own, seed=(42, 43, 44, 45))
    assert found.slope.low == pytest.approx(expected.low)
    assert found.slope.high == pytest.approx(expected.high)


def test_ties_share_their_rank() -> None:
    """Doses 1 2 3 4 and effects 0 0 1 1: ranks 1.5 1.5 3.5 3.5, ρ = 4/√(5·4) by hand."""
    found = dose_response([1, 2, 3, 4], [[0.0, 0.0, 1.0, 1.0]])
    assert found.spearman == pytest.approx(4 / np.sqrt(20))


def test_a_flat_curve_has_no_order() -> None:
    found = dose_response(DOSES, np.full((4, 5), 0.1) + np.arange(4)[:, None])
    assert found.spearman is None
    assert found.spearman_interval is None
    assert found.slope.mean == pytest.approx(0.0, abs=1e-12)


def test_per_decade() -> None:
    """Q57: doses spaced by their logarithm; 3 points for each tenfold dose."""
    doses = np.geomspace(0.01, 5, 7)
    found = dose_response(doses, [3 * np.log10(doses), 3 * np.log10(doses) + 1], scale="log10")
    assert found.slope.mean == pytest.approx(3.0)
    assert found.unit == "points per decade of strength"


def test_replicates_stay_with_their_prompt() -> None:
    values = table(1.0)
    repeated = np.repeat(values[:, :, None], 3, axis=2)
    assert dose_response(DOSES, repeated).slope.high == pytest.approx(
        dose_response(DOSES, values).slope.high
    )


def test_small_effects_have_an_order_too() -> None:
    assert dose_response(DOSES, [1e-12 * DOSES, 2e-12 * DOSES]).spearman == 1.0


def test_interval_covers_the_slope_as_often_as_it_says() -> None:
    covered = [
        dose_response(DOSES, table(0.7, seed=seed), seed=42, resamples=500).slope.contains(0.7)
        for seed in range(200)
    ]
    # As for means: about 94 % of 200 trials, known to 1.7 %; three to four of these either side.
    assert 0.87 <= np.mean(covered) <= 0.99


def test_rank_interval_tells_noise_from_order() -> None:
    clear = dose_response(DOSES, table(3.0)).spearman_interval
    noise = dose_response(DOSES, table(0.0, noise=8.0)).spearman_interval
    assert clear is not None
    assert clear.low > 0
    assert noise is not None
    assert noise.low < 0 < noise.high


GOOD = np.zeros((3, 5))
REFUSED: dict[str, tuple[Any, Any, Any]] = {
    "one dose": ([1.0], np.zeros((3, 1)), "linear"),
    "equal doses": ([1.0, 1.0], np.zeros((3, 2)), "linear"),
    "nan dose": ([1.0, float("nan")], np.zeros((3, 2)), "linear"),
    "transposed": (DOSES, GOOD.T, "linear"),
    "one curve": (DOSES, GOOD[0], "linear"),
    "no prompts": (DOSES, np.zeros((0, 5)), "linear"),
    "no replicates": (DOSES, np.zeros((3, 5, 0)), "linear"),
    "nan": (DOSES, np.full((3, 5), np.nan), "linear"),
    "dose 0": ([0.0, 1.0], np.zeros((3, 2)), "log10"),
    "scale": (DOSES, GOOD, "cubic"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_inputs_are_refused(name: str) -> None:
    doses, values, scale = REFUSED[name]
    with pytest.raises(ValueError, match=r"^\[dose\]"):
        dose_response(doses, values, scale=scale)


def test_one_prompt_has_a_slope_without_width() -> None:
    found = dose_response(DOSES, table(1.0, n=1))
    assert found.slope.low == found.slope.mean == found.slope.high
