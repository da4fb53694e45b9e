"""p-values of paired differences: textbook numbers, enumeration, calibration under no effect."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cogit.evaluation.anti_steered import anti_steered
from cogit.evaluation.tests_of_difference import (
    McNemar,
    cohen_h,
    holm,
    mcnemar,
    rank_p,
    sign_flip_p,
)
from cogit.intervals import wilson_interval


def enumerated(values: list[float], keep: Callable[[float, float], bool]) -> float:
    """The share of all patterns of signs whose sum is as extreme as the one seen."""
    patterns = list(itertools.product((1, -1), repeat=len(values)))
    sums = [float(np.dot(pattern, values)) for pattern in patterns]
    return sum(keep(s, sum(values)) for s in sums) / len(patterns)


def test_fishers_darwin_data() -> None:
    """Fisher 1935, section 21: Darwin's 15 pairs of plants, in eighths of an inch.

    Of the 2^15 patterns of signs 835 have a sum above 314, and 28 just that.
    """
    darwin = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sum(darwin) == 314
    everything = 2**15
    assert sign_flip_p(darwin, alternative="greater", permutations=everything) == 863 / everything
    assert sign_flip_p(darwin, permutations=everything) == 2 * 863 / everything
    # Counted in part: the error of 9999 patterns is sqrt(.026·.974/9999) = .0016; four of them.
    assert sign_flip_p(darwin, alternative="greater") == pytest.approx(863 / everything, abs=0.0064)


def test_few_prompts_are_enumerated() -> None:
    values = [3.0, -1.0, 2.0, 2.0, 0.0, 5.0, -0.5]
    assert sign_flip_p(values, alternative="greater") == enumerated(values, lambda s, t: s >= t)
    assert sign_flip_p(values, alternative="less") == enumerated(values, lambda s, t: s <= t)
    assert sign_flip_p(values) == enumerated(values, lambda s, t: abs(s) >= abs(t))
    assert sign_flip_p([1.0] * 5, alternative="greater") == 1 / 32


def test_many_prompts_are_never_certain() -> None:
    """(1 + b) / (1 + n): no draw is as extreme, and p is 1 in 1000 all the same."""
    assert sign_flip_p(np.ones(60), alternative="greater", permutations=999) == 1 / 1000
    assert sign_flip_p(np.ones(60), permutations=999) == 2 / 1000


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_nothing_moved_is_no_evidence(alternative: Any) -> None:
    assert sign_flip_p(np.zeros(30), alternative=alternative, permutations=99) == 1.0
    assert sign_flip_p([0.0], alternative=alternative) == 1.0


def test_one_prompt_is_next_to_no_evidence() -> None:
    assert sign_flip_p([5.0]) == 1.0
    assert sign_flip_p([5.0], alternative="greater") == 0.5
    assert sign_flip_p([5.0], alternative="less") == 1.0
    assert sign_flip_p([[5.0, 4.0]], alternative="greater") == 0.5


def test_replicates_of_a_prompt_flip_together() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 12)
    repeated = np.repeat(values[:, None], 8, axis=1)
    assert sign_flip_p(repeated) == sign_flip_p(values)
    assert sign_flip_p(repeated.ravel()) < 0.1 * sign_flip_p(values)


def test_p_is_uniform_without_an_effect() -> None:
    """N1: p below 5 % in 5 % of trials; prompts that differ in size, replicates that are alike."""
    rng = np.random.default_rng(5)
    found = []
    for seed in range(400):
        size = rng.exponential(1, (24, 1))
        values = size * (rng.standard_normal((24, 1)) + 0.3 * rng.standard_normal((24, 4)))
        found.append(sign_flip_p(values, permutations=199, seed=seed))
    # 400 trials know a share of .05 to .011; four of these. Kolmogorov-Smirnov at 1 in 1000.
    assert 0.006 <= np.mean(np.array(found) <= 0.05) <= 0.094
    assert stats.kstest(found, "uniform").pvalue > 0.001


def test_a_seed_gives_one_p() -> None:
    values = np.random.default_rng(1).normal(0.2, 1, 40)
    assert sign_flip_p(values, seed=3) == sign_flip_p(values, seed=3)
    assert sign_flip_p(values, seed=3) != sign_flip_p(values, seed=4)


def test_rank_among_controls() -> None:
    """N1: an effect above all of 20 controls has p = 1/21, and no smaller one."""
    controls = np.arange(20.0)
    assert rank_p(25.0, controls) == 1 / 21
    assert rank_p(17.0, controls) == 4 / 21  # 17, 18 and 19 are as large; a tie counts against
    assert rank_p(17.0 + 1e-13, controls) == 4 / 21
    assert rank_p(-1.0, controls) == 1.0
    assert rank_p(-1.0, controls, alternative="less") == 1 / 21
    assert rank_p(-1.0, controls, alternative="two-sided") == 2 / 21
    assert rank_p(9.5, controls, alternative="two-sided") == 1.0


def test_rank_is_valid_without_an_effect() -> None:
    draws = np.random.default_rng(2).standard_normal((2000, 20))
    found = np.array([rank_p(row[0], row[1:]) for row in draws])
    # One of 20 equal draws is the largest in 5 % of trials: known to .0049, four of these.
    assert np.mean(found <= 0.05) == pytest.approx(0.05, abs=0.02)


def test_holms_adjustment() -> None:
    """Four p-values by hand: 4·.005, 3·.01, 2·.03 and, below the one before it, 1·.04."""
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert list(found) == ["a", "b", "c", "d"]
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.02}) == {"a": 0.02}
    assert holm({}) == {}


def test_holm_keeps_any_false_finding_rare() -> None:
    """N1: ten layers without an effect; one of them below 5 % in 5 % of trials at most."""
    rng = np.random.default_rng(4)
    any_found = [
        min(holm({str(i): p for i, p in enumerate(rng.uniform(size=10))}).values()) <= 0.05
        for _ in range(2000)
    ]
    # .05 known to .0049; four of these. Without Holm it would be 1 - .95^10 = .40.
    assert np.mean(any_found) == pytest.approx(0.049, abs=0.02)


def table(better: int, worse: int, alike: int) -> tuple[list[int], list[int]]:
    return [1] * better + [0] * worse + [1] * alike, [0] * better + [1] * worse + [1] * alike


def test_mcnemar_by_hand() -> None:
    """Q51: 9 against 1: 2·(1 + 10)/2^10. 6 against 16: 2·110056/2^22."""
    assert mcnemar(*table(9, 1, 4)) == McNemar(9, 1, 4, pytest.approx(22 / 1024))
    assert mcnemar(*table(6, 16, 80)).p == pytest.approx(2 * 110056 / 2**22)
    assert mcnemar(*table(9, 1, 4), alternative="greater").p == pytest.approx(11 / 1024)
    assert mcnemar(*table(0, 0, 5)) == McNemar(0, 0, 5, 1.0)
    assert mcnemar([1], [0]).p == 1.0


def test_mcnemar_takes_a_prompt_once() -> None:
    """Q51: five alike replicates are one pair; a prompt that gains one and loses one is alike."""
    one, other = (np.repeat(np.array(t)[:, None], 5, axis=1) for t in table(9, 1, 4))
    assert mcnemar(one, other) == mcnemar(*table(9, 1, 4))
    assert mcnemar([[1, 0, 1], [1, 1, 0]], [[0, 1, 1], [0, 1, 0]]) == McNemar(1, 0, 1, 1.0)


def test_mcnemar_is_careful_without_an_effect() -> None:
    rng = np.random.default_rng(6)
    lean = rng.uniform(0.1, 0.9, (400, 40, 1))
    one, other = (rng.uniform(size=(400, 40, 4)) < lean for _ in range(2))
    found = [mcnemar(a, b).p for a, b in zip(one, other, strict=True)]
    # An exact test errs on the safe side: at most .05, known to .011, and four of these.
    assert np.mean(np.array(found) <= 0.05) <= 0.094


def test_cohens_table() -> None:
    """Q51: Cohen 1988, table 6.2.2: φ of .05, .25, .50 and .75 is .451, 1.047, 1.571 and 2.094."""
    assert cohen_h(0.25, 0.05) == pytest.approx(1.047 - 0.451, abs=1e-3)
    assert cohen_h(0.75, 0.5) == pytest.approx(2.094 - 1.571, abs=1e-3)
    assert cohen_h(0.5, 0.75) == -cohen_h(0.75, 0.5)
    assert cohen_h(1.0, 0.0) == pytest.approx(np.pi)
    assert cohen_h(0.3, 0.3) == 0.0


def test_anti_steered_prompts() -> None:
    """N1: two of five prompts moved the wrong way, one not at all; the mean looks well."""
    plain = np.array([[0.0, 0.0], [0.1, 0.1], [0.2, 0.2], [0.0, 0.0], [0.5, 0.5]])
    steered = np.array([[0.9, 0.9], [0.0, 0.1], [0.2, 0.2], [1.0, -0.2], [0.9, -0.9]])
    found = anti_steered(steered, plain)
    assert (found.against, found.towards, found.unmoved) == (2, 2, 1)
    assert (found.share, (found.low, found.high)) == (0.4, wilson_interval(0.4, 5))
    assert anti_steered(steered, plain, -1).against == 2
    assert anti_steered(-steered, -plain, -1) == found
    # Each replicate with a target of its own.
    assert anti_steered(steered * [1, -1], plain * [1, -1], [1, -1]) == found
    assert set(found.to_json()) == {"against", "towards", "unmoved", "share", "low", "high"}


NAN = float("nan")
REFUSED = {
    "no prompts": (lambda: sign_flip_p([]), r"^\[permutation\]"),
    "nan": (lambda: sign_flip_p([1.0, NAN]), r"^\[permutation\]"),
    "scalar": (lambda: sign_flip_p(3.0), r"^\[permutation\]"),
    "no permutation": (lambda: sign_flip_p([1.0, 2.0], permutations=0), r"^\[permutation\]"),
    "alternative": (lambda: sign_flip_p([1.0], alternative="both"), r"^\[p\]"),  # type: ignore[arg-type]
    "no controls": (lambda: rank_p(1.0, []), r"^\[rank\]"),
    "nan effect": (lambda: rank_p(NAN, [1.0]), r"^\[rank\]"),
    "nan control": (lambda: rank_p(1.0, [NAN]), r"^\[rank\]"),
    "table of controls": (lambda: rank_p(1.0, [[1.0]]), r"^\[rank\]"),
    "nan p": (lambda: holm({"a": NAN}), r"^\[holm\]"),
    "large p": (lambda: holm({"a": 1.01}), r"^\[holm\]"),
    "not binary": (lambda: mcnemar([0.5], [1.0]), r"^\[mcnemar\]"),
    "nan outcome": (lambda: mcnemar([NAN], [1.0]), r"^\[mcnemar\]"),
    "shapes": (lambda: mcnemar([1, 0], [1]), r"^\[mcnemar\] .*one shape"),
    "transposed": (lambda: mcnemar(np.ones((2, 3)), np.ones((3, 2))), r"^\[mcnemar\]"),
    "no pairs": (lambda: mcnemar([], []), r"^\[mcnemar\]"),
    "share": (lambda: cohen_h(1.1, 0.5), r"^\[cohen h\]"),
    "nan share": (lambda: cohen_h(0.5, NAN), r"^\[cohen h\]"),
    "unpaired scores": (lambda: anti_steered([0.1, 0.2], [0.1]), r"^\[anti-steered\]"),
    "target 0": (lambda: anti_steered([0.1], [0.2], 0), r"^\[anti-steered\]"),
    "targets": (lambda: anti_steered([0.1], [0.2], [1, 1, 1]), r"^\[anti-steered\]"),
    "no scores": (lambda: anti_steered([], []), r"^\[anti-steered\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_inputs_are_refused(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
