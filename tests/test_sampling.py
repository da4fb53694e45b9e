"""The shared sampler: common random numbers, the right distribution, filters, refusals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from cogit.sampling import Sampler, SamplingOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]


def draws(options: SamplingOptions, logits: Logits, n_steps: int, row: int = 0) -> list[int]:
    """Tokens of one row over steps that all see the same logits."""
    sampler = Sampler(options, [row])
    return [sampler.choose(logits[None], [row])[0] for _ in range(n_steps)]


def some_logits(n: int = 60, seed: int = 0) -> Logits:
    return (2 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


# ---- common random numbers ----


def test_the_same_seed_draws_the_same_tokens() -> None:
    logits = some_logits()
    first, again, other = (draws(SamplingOptions(seed=seed), logits, 50) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_row_does_not_depend_on_its_batch() -> None:
    logits = np.stack([some_logits(seed=seed) for seed in range(3)])
    options = SamplingOptions(seed=1)
    together = Sampler(options, range(3))
    alone = {row: Sampler(options, [row]) for row in range(3)}
    for step in range(20):
        rows = [0, 1, 2] if step < 8 else [2, 0]  # row 1 ends, and the order changes
        tokens = together.choose(logits[rows], rows)
        assert tokens == [alone[row].choose(logits[row][None], [row])[0] for row in rows]


def test_rows_are_independent() -> None:
    """With uniform logits two rows agree as often as chance says: 1 in 60."""
    flat = np.zeros(60, np.float32)
    first, second = (draws(SamplingOptions(top_k=0), flat, 3000, row) for row in (0, 1))
    agreements = sum(a == b for a, b in zip(first, second, strict=True))
    assert stats.binomtest(agreements, 3000, 1 / 60).pvalue > 1e-3


def test_nearby_logits_share_their_noise() -> None:
    """What pairs an arm with its control: tokens differ only where the logits force them to."""
    logits = some_logits()
    nudged = (logits + 0.02 * some_logits(seed=9)).astype(np.float32)
    options = SamplingOptions(temperature=1.0, top_k=0)
    same = [
        a == b
        for a, b in zip(draws(options, logits, 500), draws(options, nudged, 500), strict=True)
    ]
    assert np.mean(same) > 0.95
    independent = draws(SamplingOptions(temperature=1.0, top_k=0, seed=1), nudged, 500)
    assert (
        np.mean([a == b for a, b in zip(draws(options, logits, 500), independent, strict=True)])
        < 0.3
    )


# ---- the distribution ----


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_draws_follow_the_softmax(temperature: float, seed: int) -> None:
    """Chi-square with fixed seeds: a p below .001 would be the sampler's fault."""
    probabilities = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    weights = probabilities ** (1 / temperature)
    expected = 4000 * weights / weights.sum()
    options = SamplingOptions(temperature=temperature, top_k=0, seed=seed)
    tokens = draws(options, np.log(probabilities).astype(np.float32), 4000)
    observed = np.bincount(tokens, minlength=5)
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_greedy_takes_the_largest() -> None:
    logits = some_logits()
    options = SamplingOptions(temperature=0.0, top_k=1, top_p=0.1)
    assert draws(options, logits, 5) == [int(logits.argmax())] * 5
    assert draws(SamplingOptions(temperature=1e-6), logits, 5) == [int(logits.argmax())] * 5


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_top_k_keeps_the_k_most_likely(top_k: int) -> None:
    logits = some_logits()
    tokens = set(draws(SamplingOptions(temperature=5.0, top_k=top_k), logits, 400))
    assert tokens == set(np.argsort(-logits)[:top_k].tolist())


@pytest.mark.parametrize("top_k", [0, 60, 500])
def test_top_k_of_nothing_or_everything_filters_nothing(top_k: int) -> None:
    logits = some_logits()
    unfiltered = draws(SamplingOptions(top_k=0, temperature=2.0), logits, 100)
    assert draws(SamplingOptions(top_k=top_k, temperature=2.0), logits, 100) == unfiltered


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.3, {0}), (0.5, {0}), (0.51, {0, 1}), (0.75, {0, 1}), (0.9, {0, 1, 2})]
)
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: set[int]) -> None:
    # Powers of two, so that the cumulated masses are exact.
    logits = np.log2(np.array([0.5, 0.25, 0.125, 0.125])).astype(np.float32) * np.float32(np.log(2))
    order = [2, 0, 3, 1]  # so that the most likely token does not come first
    options = SamplingOptions(temperature=1.0, top_k=0, top_p=top_p)
    tokens = draws(options, logits[order], 400)
    found = {order[token] for token in tokens}
    if kept == {0, 1, 2}:  # of the two equal tokens one is enough
        assert found in ({0, 1, 2}, {0, 1, 3}) or found == {0, 1, 2, 3}
    else:
        assert found == kept


def test_top_p_renormalises_within_top_k() -> None:
    """Of 0.5, 0.3, 0.2 the first two of top-k have .625 and .375: top-p .6 leaves the first."""
    logits = np.log(np.array([0.5, 0.3, 0.2])).astype(np.float32)
    options = SamplingOptions(temperature=1.0, top_k=2, top_p=0.6)
    assert set(draws(options, logits, 200)) == {0}


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = some_logits()
    logits[:50] = -np.inf
    for options in (
        SamplingOptions(top_k=0, temperature=3.0),
        SamplingOptions(top_k=20, temperature=3.0),
        SamplingOptions(top_k=0, top_p=0.99, temperature=3.0),
    ):
        assert min(draws(options, logits, 300)) >= 50


# ---- refusals ----


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_logits_are_refused(temperature: float, value: float) -> None:
    logits = np.stack([some_logits(), some_logits()])
    logits[1, 7] = value
    sampler = Sampler(SamplingOptions(temperature=temperature), range(2))
    with pytest.raises(ValueError, match=r"^\[sampling\] expected finite logits[^\n]+$"):
        sampler.choose(logits, [0, 1])


def test_a_row_without_any_allowed_token_is_refused() -> None:
    sampler = Sampler(SamplingOptions(), [0])
    with pytest.raises(ValueError, match=r"^\[sampling\] expected finite logits"):
        sampler.choose(np.full((1, 5), -np.inf, np.float32), [0])


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"max_tokens": 0}, "max_tokens >= 1, got 0"),
        ({"temperature": -0.1}, "temperature >= 0, got -0.1"),
        ({"temperature": math.nan}, "temperature >= 0, got nan"),
        ({"temperature": math.inf}, "temperature >= 0, got inf"),
        ({"top_k": -1}, "top_k >= 0, got -1"),
        ({"top_p": 0.0}, "0 < top_p <= 1, got 0.0"),
        ({"top_p": 1.5}, "0 < top_p <= 1, got 1.5"),
        ({"top_p": math.nan}, "0 < top_p <= 1, got nan"),
        ({"seed": -1}, "0 <= seed < 2^64, got -1"),
        ({"seed": 2**64}, f"0 <= seed < 2^64, got {2**64}"),
    ],
)
def test_options_are_checked(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=r"^\[sampling\] expected ") as caught:
        SamplingOptions(**options)
    assert str(caught.value) == f"[sampling] expected {rule}"


def test_the_largest_seed_works() -> None:
    assert draws(SamplingOptions(seed=2**64 - 1), some_logits(), 3)


def test_several_seeds_draw_what_each_draws_alone() -> None:
    """Row r of several replicates is row r % n under the seed r // n."""
    options = SamplingOptions(temperature=1.0, top_k=0, seed=9)
    logits = np.zeros((6, 50), np.float32)
    together = Sampler(options, range(6), (3, 4)).choose(logits, range(6))
    alone = [
        token
        for seed in (3, 4)
        for token in Sampler(SamplingOptions(temperature=1.0, top_k=0, seed=seed), range(3)).choose(
            logits[:3], range(3)
        )
    ]
    assert together == alone
