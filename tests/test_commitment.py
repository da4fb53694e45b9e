"""Commitments, and the random numbers that any language can repeat."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from _models import D_MODEL
from cogit.operators import (
    Commitment,
    portable_random,
)
from cogit.operators.base import load_operator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STRENGTHS = (-2.0, -1.0, -0.3, 0.0, 0.37, 1.0, 1.7)


# ---- commitments ----


def test_commitment_draws_have_unit_norm_on_average() -> None:
    squares = [float(np.sum(portable_random.normal(seed, 1, 64) ** 2)) / 64 for seed in range(300)]
    assert np.mean(squares) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("d_model", "k"), [(64, 8), (256, 64), (512, 64), (64, 256)])
def test_commitment_length(d_model: int, k: int) -> None:
    lengths = [
        float(np.linalg.norm(Commitment.draw(d_model, k=k, seed=seed).vector)) for seed in range(40)
    ]
    assert np.mean(lengths) == pytest.approx(math.sqrt(2 * d_model / (d_model + k)), rel=0.1)


def test_commitment_is_its_seed() -> None:
    first, again, other = (Commitment.draw(D_MODEL, seed=seed) for seed in (7, 7, 8))
    assert first.vector.tobytes() == again.vector.tobytes()
    assert abs(np.corrcoef(first.vector, other.vector)[0, 1]) < 0.5
    np.testing.assert_allclose(first.vector[:3], KNOWN_COMMITMENT, rtol=1e-12)


def test_commitment_logs_once_for_each_draw(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cogit"):
        operator = Commitment.draw(D_MODEL, k=8, seed=3)
        for strength in STRENGTHS:
            operator.fold(strength)
        load_operator("commitment", operator.tensors(), operator.parameters())
        assert len(caplog.records) == 1
        assert "seed 3, k 8" in caplog.text
        Commitment.draw(D_MODEL, k=8, seed=4)
        assert len(caplog.records) == 2


# ---- portable random numbers ----

# By (seed, stream). Any of these changing changes every commitment that was ever drawn.
KNOWN_UNIFORM = {
    (0, 0): [0.8944619583786888, 0.37143536846737196, 0.8036020840906841],
    (42, 1): [0.7289588135773628, 0.25287944221491904, 0.08238300110487057],
    (-1, 2): [0.4823260200122624, 0.18435865373128196, 0.11421012449007256],
}
KNOWN_NORMAL = [
    -0.014385266868057293,
    0.7950277702929179,
    -2.226036303641816,
    -0.19368710878243406,
    0.513236050786586,
]
KNOWN_COMMITMENT = [-0.09844448315289514, 0.1768258718629704, -0.12230358971087459]


def splitmix(state: int) -> int:
    """One output of Vigna's splitmix64.c for a state before its increment."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_splitmix_is_the_published_generator() -> None:
    """The first outputs for seed 1234567, as listed with the published C code's ports."""
    golden, state, outputs = 0x9E3779B97F4A7C15, 1234567, []
    for _ in range(3):
        outputs.append(splitmix(state))
        state += golden
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (42, 1), (-1, 2), (2**63, 3), (2**64 + 5, 9)])
def test_uniforms_are_splitmix_over_a_counter(seed: int, stream: int) -> None:
    mask = 2**64 - 1
    start = splitmix((seed & mask) ^ splitmix(stream))
    expected = []
    for index in range(50):
        counter = (start + index) & mask
        z = ((counter + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        expected.append(((z ^ (z >> 31)) // 2**11 + 0.5) / 2**53)
    assert portable_random.uniform(seed, stream, 50).tolist() == expected


def test_known_answers() -> None:
    for (seed, stream), values in KNOWN_UNIFORM.items():
        assert portable_random.uniform(seed, stream, 3).tolist() == values
    # Libraries of mathematics differ in the last bit of log, cos and sin.
    np.testing.assert_allclose(portable_random.normal(42, 1, 5), KNOWN_NORMAL, rtol=1e-14)


def test_streams_are_prefixes_and_independent() -> None:
    long, short = portable_random.uniform(5, 1, 1000), portable_random.uniform(5, 1, 10)
    assert long[:10].tolist() == short.tolist()
    assert portable_random.normal(5, 1, 7).tolist() == portable_random.normal(5, 1, 8)[:7].tolist()
    for seed, stream in ((5, 2), (6, 1)):
        other = portable_random.uniform(seed, stream, 1000)
        assert abs(np.corrcoef(long, other)[0, 1]) < 0.12  # 4 standard deviations of 1/sqrt(1000)
    assert portable_random.uniform(0, 0, 0).size == 0
    assert portable_random.normal(0, 0, 0).size == 0


def test_distributions() -> None:
    """Kolmogorov-Smirnov with fixed seeds: a p below .001 would be the generator's fault."""
    uniforms = portable_random.uniform(1, 1, 20_000)
    assert uniforms.min() > 0
    assert uniforms.max() <= 1
    assert stats.kstest(uniforms, "uniform").pvalue > 1e-3
    assert stats.kstest(portable_random.normal(1, 2, 20_000), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(uniforms[:-1], uniforms[1:])[0, 1]) < 0.03
