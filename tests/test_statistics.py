"""Bootstrap intervals: known answers, theory, and replicates that stay with their prompt."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cogit.evaluation.statistics import SEEDS, Interval, bootstrap_difference, bootstrap_mean


def normal(n: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal(n)


def half_width(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


@pytest.mark.parametrize("value", [0.0, 1.0, -37.5])
def test_constant_values_have_no_width(value: float) -> None:
    assert bootstrap_mean(np.full(20, value)) == Interval(value, value, value)


def test_mean_is_the_sample_mean_and_lies_inside() -> None:
    values = normal(60)
    interval = bootstrap_mean(values)
    assert interval.mean == values.mean()
    assert interval.low < interval.mean < interval.high


@pytest.mark.parametrize("n", [100, 400])
def test_half_width_is_that_of_the_normal_theory(n: int) -> None:
    values = normal(n)
    expected = 1.96 * values.std() / np.sqrt(n)
    # An end is a quantile of 2000 resamples, known to 3 % (sqrt(.025·.975/2000) over the density
    # there); 10 % is more than four of its errors for the mean of the two ends.
    assert half_width(bootstrap_mean(values)) == pytest.approx(expected, rel=0.1)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = [bootstrap_mean(normal(40, seed)).contains(0.0) for seed in range(200)]
    # A percentile interval of 40 values covers 94 %; 200 trials know that to 1.7 %, and 0.87 to
    # 0.99 is three to four such errors wide on either side.
    assert 0.87 <= np.mean(covered) <= 0.99


def test_replicates_of_a_prompt_stay_together() -> None:
    prompts = normal(50)
    clustered = np.repeat(prompts[:, None], 4, axis=1)  # (prompt, replicate), all the same
    together = bootstrap_mean(clustered)
    # Four copies hold no more than one: the interval is that of the prompts alone, bit for bit.
    assert together == bootstrap_mean(prompts)
    apart = bootstrap_mean(clustered.reshape(-1))
    # sqrt(4) narrower in theory; both widths are known to about 2 %.
    assert half_width(together) / half_width(apart) == pytest.approx(2.0, rel=0.1)


def test_replicates_are_averaged_within_their_prompt() -> None:
    values = normal(60).reshape(20, 3)
    assert bootstrap_mean(values) == bootstrap_mean(values.mean(axis=1))


def test_a_seed_gives_one_result() -> None:
    values = normal(30)
    assert bootstrap_mean(values, seed=7) == bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values, seed=7) != bootstrap_mean(values, seed=8)


def test_paired_differences_are_narrower_than_unpaired_ones() -> None:
    shared, noise = normal(80), 0.1 * normal(80, seed=1)
    paired = bootstrap_mean(shared + noise - shared)
    assert half_width(paired) < 0.2 * half_width(bootstrap_mean(shared))


@pytest.mark.parametrize(
    "values",
    [[], np.empty((0, 2)), np.empty((3, 0)), 5.0, [1.0, float("nan")], [1.0, float("inf")]],
    ids=["empty", "no prompts", "no replicates", "scalar", "nan", "inf"],
)
def test_values_without_a_mean_are_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"^\[bootstrap\] expected finite values"):
        bootstrap_mean(values)  # type: ignore[arg-type]


def test_interval_scales_and_contains() -> None:
    interval = Interval(0.1, -0.2, 0.4)
    assert interval.scaled(100.0) == Interval(10.0, -20.0, 40.0)
    assert interval.contains(-0.2)
    assert interval.contains(0.4)
    assert not interval.contains(0.41)


def test_resampling_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = normal(37)
    whole = bootstrap_mean(values)
    monkeypatch.setattr("cogit.evaluation.statistics._CHUNK", 37 * 101)
    assert bootstrap_mean(values) == whole


def test_interval_is_scipys_percentile_interval() -> None:
    """Q51: 2.5 and 97.5 %; ends are known to 3 % of the half width each, and agree within 10 %."""
    values = normal(60)
    scipys = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=0
    ).confidence_interval
    ours = bootstrap_mean(values, seed=SEEDS)
    assert [ours.low, ours.high] == pytest.approx(list(scipys), abs=0.1 * half_width(ours))


def test_seeds_are_pooled() -> None:
    """Q51: seeds 42-45. Their interval is that of all resamples, and steadier than one seed's."""
    values = normal(50)
    assert bootstrap_mean(values, seed=[42]) == bootstrap_mean(values, seed=42)
    draws = np.concatenate(
        [values[np.random.default_rng(s).integers(0, 50, (2000, 50))].mean(axis=1) for s in SEEDS]
    )
    pooled = bootstrap_mean(values, seed=SEEDS)
    assert [pooled.low, pooled.high] == np.quantile(draws, [0.025, 0.975]).tolist()


def test_paired_difference() -> None:
    """Q51: paired by prompt and replicate; the mean by hand."""
    one, other = normal(40).reshape(20, 2), normal(40, seed=1).reshape(20, 2)
    found = bootstrap_difference(one, other)
    assert found == bootstrap_mean((one - other).mean(axis=1), seed=SEEDS)
    assert found.mean == pytest.approx((one - other).mean())
    assert bootstrap_difference(other, one, seed=1).mean == pytest.approx(-found.mean)


@pytest.mark.parametrize("other", [[1.0], [[1.0, 2.0]], [[1.0], [2.0]], []], ids=str)
def test_values_without_a_partner_are_refused(other: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^\[bootstrap\] expected"):
        bootstrap_difference([1.0, 2.0], other)


@pytest.mark.parametrize(("seed", "resamples"), [([], 10), (1, 0)])
def test_resampling_needs_a_seed_and_a_number(seed: list[int] | int, resamples: int) -> None:
    with pytest.raises(ValueError, match=r"^\[bootstrap\] expected resamples"):
        bootstrap_mean([1.0], seed=seed, resamples=resamples)
