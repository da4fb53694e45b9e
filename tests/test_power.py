"""Power of McNemar's test: published sizes, simulation, and replicates that are worth less."""

from __future__ import annotations

import numpy as np
import pytest

from cogit.evaluation.power import (
    PowerReport,
    detectable_difference,
    mcnemar_exact_power,
    mcnemar_power,
    pairs_needed,
    power_report,
)
from cogit.evaluation.tests_of_difference import mcnemar

# p10, p01, power, and the pairs that two public calculators of Connor 1987, p. 209 print:
# powerandsamplesize.com (first) and its two-sided example; clinicaltrials-tools (second).
PUBLISHED = [(0.45, 0.05, 0.8, 23), (0.30, 0.15, 0.8, 155)]


@pytest.mark.parametrize(("one", "other", "power", "n"), PUBLISHED)
def test_published_sizes(one: float, other: float, power: float, n: int) -> None:
    """Q51: Connor's formula."""
    discordance, difference = one + other, one - other
    assert pairs_needed(discordance, difference, power=power) == n
    assert pairs_needed(discordance, -difference, power=power) == n
    found = mcnemar_power(n, discordance, difference)
    assert power <= found < power + 0.02
    assert mcnemar_power(n - 1, discordance, difference) < power
    if n == 155:
        assert found == pytest.approx(0.801, abs=5e-4)  # printed with it


def test_the_size_by_hand() -> None:
    """Q51: ψ = .3, δ = .1: (1.959964·√.3 + .841621·√.29)² / .01 = 233.09, so 234 pairs."""
    assert pairs_needed(0.3, 0.1) == 234


def simulated(n: int, discordance: float, difference: float, trials: int) -> float:
    rng = np.random.default_rng(0)
    p = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    counts = rng.multinomial(n, p, trials)
    found = {}
    for better, worse, _ in {tuple(row) for row in counts.tolist()}:
        test = mcnemar([1] * better + [0] * worse + [0], [0] * better + [1] * worse + [0])
        found[better, worse] = test.p <= 0.05 and better > worse
    return float(np.mean([found[better, worse] for better, worse, _ in counts.tolist()]))


@pytest.mark.parametrize(("n", "discordance", "difference"), [(40, 0.4, 0.25), (120, 0.3, 0.15)])
def test_exact_power_is_that_of_the_exact_test(
    n: int, discordance: float, difference: float
) -> None:
    """Q51: 4000 trials know a power to .008 at most; four of these."""
    exact = mcnemar_exact_power(n, discordance, difference)
    assert simulated(n, discordance, difference, 4000) == pytest.approx(exact, abs=0.032)
    # The approximation has no step and so promises more, by less than a tenth here.
    assert exact < mcnemar_power(n, discordance, difference) < exact + 0.1


def test_exact_power_by_hand() -> None:
    """Six pairs, all discordant, δ = .8: rejects only at 6 of 6 in favour, with chance .9^6."""
    assert mcnemar_exact_power(6, 1.0, 0.8) == pytest.approx(0.9**6)
    assert mcnemar_exact_power(5, 1.0, 0.8) == 0.0  # 2/2^5 is above .05


@pytest.mark.parametrize("discordance", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("n", [20, 72, 1000])
def test_detectable_differences_are_found(n: int, discordance: float) -> None:
    difference = detectable_difference(n, discordance)
    assert difference is not None
    assumed = max(discordance, difference)
    assert mcnemar_power(n, assumed, difference) == pytest.approx(0.8, abs=1e-6)
    assert pairs_needed(assumed, difference) in (n, n + 1)  # n to rounding


def test_too_few_pairs_detect_nothing() -> None:
    assert detectable_difference(3, 0.5) is None
    assert detectable_difference(4, 0.5) is not None


def test_power_of_certain_outcomes() -> None:
    """Every pair discordant and in favour: z = √n."""
    assert mcnemar_power(4, 1.0, 1.0) == 1.0
    assert mcnemar_power(3, 1.0, 1.0) == 0.0
    assert mcnemar_power(100, 0.3, 0.0) == pytest.approx(0.025)


def outcomes(n: int, replicates: int, own: float) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Paired successes, +20 points; ``own`` is the share of prompts whose replicates are copies."""
    rng = np.random.default_rng(7)
    draws = rng.uniform(size=(n, replicates))
    copies = rng.uniform(size=(n, 1)) < own
    draws = np.where(copies, draws[:, :1], draws)
    one = (draws < 0.5).astype(float)
    other = ((draws > 0.2) & (draws < 0.5) | (draws > 0.95)).astype(float)
    return one, other


def test_replicates_count_as_much_as_their_variance_says() -> None:
    n, replicates = 500, 4
    alone = power_report(*(v[:, 0] for v in outcomes(n, replicates, 0.0)))
    copied = power_report(*outcomes(n, replicates, 1.0))
    free = power_report(*outcomes(n, replicates, 0.0))
    half = power_report(*outcomes(n, replicates, 0.5))
    assert alone.effective_pairs == n
    assert copied.effective_pairs == pytest.approx(n)
    # Correlation 1/2: 4 / (1 + 3/2) pairs for each prompt. The variance of 500 is known to 10 %.
    assert half.effective_pairs == pytest.approx(n * 1.6, rel=0.2)
    assert free.effective_pairs == pytest.approx(n * replicates, rel=0.15)
    assert alone.detectable_pp is not None
    assert free.detectable_pp is not None
    assert free.detectable_pp < alone.detectable_pp
    assert free.n_for_80 < copied.n_for_80


def test_report_by_hand() -> None:
    """Q51: 3 of 10 prompts better, 1 worse: ψ = .4; and 10 points take 312 (311.6)."""
    report = power_report([1, 1, 1, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0, 0, 0])
    assert (report.n_prompts, report.effective_pairs, report.discordance) == (10, 10.0, 0.4)
    assert report.n_for_80 == pairs_needed(0.4, 0.1) == 312
    assert report.threshold_pp == 10.0
    assert report.power_at_threshold == mcnemar_power(10, 0.4, 0.1)
    assert report.detectable_pp == pytest.approx(100 * (detectable_difference(10, 0.4) or 0))
    assert report.to_json()["n_for_80"] == 312


@pytest.mark.parametrize("value", [0, 1])
def test_report_where_nothing_differs(value: int) -> None:
    """No discordance: the difference looked for would bring its own."""
    report = power_report([value] * 72, [value] * 72)
    assert report.discordance == 0.0
    assert report.n_for_80 == pairs_needed(0.1, 0.1)
    assert report.detectable_pp is not None
    assert isinstance(report, PowerReport)
    one = power_report([1], [0])
    assert (one.effective_pairs, one.detectable_pp) == (1.0, None)


REFUSED = {
    "no pairs": lambda: mcnemar_power(0, 0.3, 0.1),
    "nan": lambda: mcnemar_power(10, float("nan"), 0.1),
    "infinite": lambda: mcnemar_power(float("inf"), 0.3, 0.1),
    "no discordance": lambda: mcnemar_power(10, 0.0, 0.0),
    "difference": lambda: mcnemar_power(10, 0.3, 0.31),
    "alpha": lambda: mcnemar_power(10, 0.3, 0.1, alpha=0.0),
    "no difference": lambda: pairs_needed(0.3, 0.0),
    "power": lambda: pairs_needed(0.3, 0.1, power=1.0),
    "low power": lambda: detectable_difference(10, 0.3, power=0.01),
    "many": lambda: mcnemar_exact_power(10**7, 0.3, 0.1),
    "threshold": lambda: power_report([1], [0], 0.0),
    "scores": lambda: power_report([0.4], [0.2]),
    "shapes": lambda: power_report([1, 0], [1]),
    "empty": lambda: power_report([], []),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_inputs_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^\[power\]"):
        REFUSED[name]()
