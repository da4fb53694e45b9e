"""bfloat16 and float16 rows: widened exactly, computed in float32, rounded once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from _kernels import make_affine, make_rows
from cogit import _core, kernels, reference
from cogit.affine import Affine

VARIANTS = _core.info()["variants"]
HALVES = [torch.bfloat16, torch.float16]
pytestmark = pytest.mark.usefixtures("restore_variant")


def every_value(dtype: torch.dtype) -> torch.Tensor:
    """All 2^16 bit patterns. (n, 77): not a multiple of any vector."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    padding = torch.zeros(-len(bits) % 77, dtype=torch.int16)
    return torch.cat([bits, padding]).view(dtype).reshape(-1, 77)


def rounding_cases(dtype: torch.dtype) -> torch.Tensor:
    """Every value, its neighbours in float32, and the ties between it and the next one."""
    values = every_value(dtype).float().reshape(-1)
    values = values[torch.isfinite(values)]
    following = values.sort().values
    ties = (following[:-1].double() + following[1:].double()) / 2
    large = torch.tensor([torch.inf, -torch.inf, 65519.0, 65520.0, 3.3961776e38, 1e-45])
    exact = torch.cat([values, ties.float(), large])
    up, down = (torch.nextafter(exact, torch.tensor(x)) for x in (torch.inf, -torch.inf))
    return torch.cat([exact, up, down])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", HALVES)
def test_every_value_comes_through(variant: str, dtype: torch.dtype) -> None:
    _core.set_cpu_variant(variant)
    h = every_value(dtype)
    # A shift of -0 changes no bit, where one of +0 would turn -0 into +0.
    still = Affine(*(np.zeros(s, np.float32) for s in ((0, 77), 0, (0, 77))), np.full(77, -0.0))
    got = kernels.affine_apply(still, h)
    nan = torch.isnan(h)
    assert torch.equal(torch.isnan(got), nan)
    assert torch.equal(got.view(torch.int16)[~nan], h.view(torch.int16)[~nan])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", HALVES)
def test_rounds_to_nearest_even(variant: str, dtype: torch.dtype) -> None:
    _core.set_cpu_variant(variant)
    cases = rounding_cases(dtype)
    width = 997
    cases = torch.cat([cases, cases.new_zeros(-len(cases) % width)]).reshape(-1, width)
    largest = torch.finfo(torch.float32).max  # weights must be finite
    cases = cases.clamp(-largest, largest)
    empty = np.zeros((0, width), np.float32)
    got = torch.cat(
        [
            kernels.affine_apply(
                Affine(empty, empty[:, 0], empty, row.numpy()), torch.zeros(1, width, dtype=dtype)
            )
            for row in cases
        ]
    )
    assert torch.equal(got.view(torch.int16), (cases + 0).to(dtype).view(torch.int16))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", HALVES)
def test_is_the_float32_result_rounded_once(variant: str, dtype: torch.dtype) -> None:
    """So the error is half a unit in the last place more than float32's, and that is the bound."""
    _core.set_cpu_variant(variant)
    rng = np.random.default_rng(0)
    for d, rank, n in ((1, 0, 1), (5, 2, 9), (100, 3, 4), (896, 16, 6)):
        for restore in (False, True):
            affine = make_affine(rng, d, rank, restore)
            h = torch.from_numpy(make_rows(rng, n, d)).to(dtype)
            strengths = torch.from_numpy(rng.choice(np.array([0, 1, -0.5], np.float32), size=n))
            got = kernels.affine_apply(affine, h, strengths)
            wide = kernels.affine_apply(affine, h.float(), strengths)
            assert torch.equal(got, wide.to(dtype))
            alone = [
                kernels.affine_apply(affine, h[i : i + 1], strengths[i : i + 1]) for i in range(n)
            ]
            assert torch.equal(got, torch.cat(alone))
            same = h.clone()
            kernels.affine_apply(affine, same, strengths, out=same)
            assert torch.equal(got, same)
            exact = torch.from_numpy(reference.affine_apply(affine, h.float(), strengths))
            step = torch.finfo(dtype).eps * exact.abs() + torch.finfo(dtype).smallest_normal
            # The 1e-5 is float32's own error on changes as long as the row.
            assert bool(((got.double() - exact).abs() <= 0.51 * step + 1e-5).all())


def test_fuzz() -> None:
    """Random dtypes, shapes, offsets, strides, places, strengths, threads and variants."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        _core.set_cpu_variant(str(rng.choice(VARIANTS)))
        dtype = [torch.float32, *HALVES][int(rng.integers(3))]
        d, rank, n = int(rng.integers(1, 300)), int(rng.integers(0, 40)), int(rng.integers(0, 12))
        affine = make_affine(rng, d, rank, bool(rng.integers(2)))
        store = torch.from_numpy(make_rows(rng, 3 * n + 1, d + 9)).to(dtype)
        h = store[:: int(rng.integers(1, 4)), int(rng.integers(9)) :][:n, :d]
        strengths = None
        if rng.integers(2):
            drawn = rng.normal(size=n) * rng.integers(0, 2, size=n)
            strengths = torch.from_numpy(drawn.astype(np.float32))
        kernel = _core.Affine(affine.A, affine.a0, affine.B, affine.c, affine.restore)
        want = torch.empty(n, d)
        kernel.apply(h.float().contiguous(), strengths, want, 1)
        target = torch.full((n, d + 5), torch.nan, dtype=dtype)
        out = h if rng.integers(2) else target[:, 2 : d + 2]
        kernel.apply(h, strengths, out, int(rng.integers(1, 4)))
        assert torch.equal(out, want.to(dtype))
        assert torch.isnan(target[:, [0, 1, d + 2, d + 3, d + 4]]).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_not_finite_stays_in_its_row_and_strength_zero_copies_bits(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(1)
    affine = make_affine(rng, 70, 5)
    h = torch.from_numpy(make_rows(rng, 7, 70)).to(dtype)
    clean = kernels.affine_apply(affine, h)
    h[2, 13], h[4, :3] = torch.nan, torch.tensor([-0.0, torch.nan, torch.inf])
    strengths = torch.tensor([1.0, 1, 1, 1, 0, 1, 1])
    got = kernels.affine_apply(affine, h, strengths)
    assert torch.isnan(got[2]).all()
    assert torch.equal(got[4].view(torch.int16), h[4].view(torch.int16))
    others = torch.tensor([0, 1, 3, 5, 6])
    assert torch.equal(got[others], clean[others])


def test_float16_arrays() -> None:
    rng = np.random.default_rng(2)
    affine, h = make_affine(rng, 30, 2), make_rows(rng, 4, 30).astype(np.float16)
    got = kernels.affine_apply_numpy(affine, h)
    assert got.dtype == np.float16
    assert torch.equal(torch.from_numpy(got), kernels.affine_apply(affine, torch.from_numpy(h)))
