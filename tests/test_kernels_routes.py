"""Large calls whose matrix products go to BLAS: the table, the ends, the errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from _kernels import make_affine, make_rows
from cogit import _core, kernels, reference
from cogit.kernels import DenseChange, plain, routes

VARIANTS = _core.info()["variants"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
pytestmark = pytest.mark.usefixtures("restore_variant")


def rows(n: int, d: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(make_rows(np.random.default_rng(seed), n, d)).to(dtype)


def test_the_table_of_affines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "has_bfloat16_products", lambda: True)
    half, single = rows(256, 8, torch.bfloat16), rows(256, 8, torch.float32)
    assert routes.affine_by_blas(half, 64)
    assert not routes.affine_by_blas(half[:255], 64)
    assert not routes.affine_by_blas(half, 63)
    assert not routes.affine_by_blas(half.half(), 1000)
    assert not routes.affine_by_blas(half.to("meta"), 64)
    assert routes.affine_by_blas(single, 192)
    assert not routes.affine_by_blas(single, 191)
    monkeypatch.setattr(routes, "has_bfloat16_products", lambda: False)
    assert not routes.affine_by_blas(half, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("restore", [False, True])
def test_a_large_call_through_blas(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, restore: bool
) -> None:
    """Weights, coefficients and change are rounded to the dtype, as in any such model."""
    monkeypatch.setattr(routes, "has_bfloat16_products", lambda: True)
    affine = make_affine(np.random.default_rng(1), 96, 192, restore)
    h = rows(300, 96, dtype).reshape(3, 100, 96)
    strengths = torch.from_numpy(np.random.default_rng(2).choice([0.0, 1.0, -0.5], 300)).float()
    assert routes.affine_by_blas(h, 192)
    got = kernels.affine_apply(affine, h, strengths)
    exact = reference.affine_apply(affine, h.float(), strengths.reshape(3, 100))
    change = np.abs(exact - h.double().numpy()).max()
    # A product of two values rounded to eps, summed over a change as long as the row.
    error = np.abs(got.double().numpy() - exact).max()
    assert error < 4 * torch.finfo(dtype).eps * (change + np.abs(exact).max())
    off = (strengths == 0).reshape(3, 100)
    assert torch.equal(got[off], h[off])
    few = kernels.affine_apply(affine, h[:1], strengths[:100])
    assert not torch.equal(few, got[:1]) or dtype is torch.float32


@pytest.mark.parametrize("shape", [(300, 95), (300 * 96,), (300, 96, 1)])
def test_a_large_call_that_does_not_fit_is_refused_by_name(shape: tuple[int, ...]) -> None:
    """As a small one, and not in the words of a matrix product."""
    compiled = kernels.CompiledAffine(make_affine(np.random.default_rng(1), 96, 192))
    for h in (torch.ones(shape), torch.ones(shape, requires_grad=True)):
        with torch.no_grad(), pytest.raises(ValueError, match=r"expected h of shape .*, 96\)"):
            compiled.apply(h)
    array: Any = np.ones((300, 96), np.float32)
    with pytest.raises(TypeError, match="expected h as a plain tensor, got ndarray"):
        compiled.apply(array)
    with pytest.raises(ValueError, match="expected strengths of shape"):
        compiled.apply(torch.ones(300, 96), torch.ones(299))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_end_of_an_affine(variant: str, dtype: torch.dtype) -> None:
    """restore(h + s (change + c)) against float64, alone and in a batch, on any threads."""
    _core.set_cpu_variant(variant)
    rng = np.random.default_rng(3)
    for d, n in ((1, 3), (7, 5), (100, 33), (896, 70)):
        for restore in (False, True):
            affine = make_affine(rng, d, 0, restore)
            kernel = _core.Affine(affine.A, affine.a0, affine.B, affine.c, restore)
            h, change = rows(n, d, dtype, 4), rows(n, d, dtype, 5)
            strengths = torch.from_numpy(rng.choice(np.array([0, 1, -0.5], np.float32), size=n))
            out = torch.full_like(h, torch.nan)
            kernel.finish(h, change, strengths, out)
            y = h.double() + strengths[:, None] * (change.double() + torch.from_numpy(affine.c))
            if restore:
                y *= h.double().norm(dim=1, keepdim=True) / y.norm(dim=1, keepdim=True)
            # Half a unit of the dtype for the rounding, and float32's own error.
            step = 0.51 * torch.finfo(dtype).eps * y.abs() + torch.finfo(dtype).smallest_normal
            assert bool(((out.double() - y).abs() <= step + 4e-6).all())
            assert torch.equal(out[strengths == 0], h[strengths == 0])
            alone = torch.full_like(h, torch.nan)
            for i in range(n):
                kernel.finish(
                    h[i : i + 1], change[i : i + 1], strengths[i : i + 1], alone[i : i + 1]
                )
            assert torch.equal(alone, out)


def test_the_end_refuses() -> None:
    affine = make_affine(np.random.default_rng(0), 6, 0)
    kernel = _core.Affine(affine.A, affine.a0, affine.B, affine.c, True)
    good = torch.ones(4, 6)
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"change": torch.ones(3, 6)}, ValueError, "expected change and out like h"),
        ({"change": torch.ones(4, 6).half()}, ValueError, "expected change and out like h"),
        ({"out": torch.ones(4, 5)}, ValueError, r"expected out of shape \(..., n, 6\)"),
        ({"out": good}, ValueError, "an overlap with h;"),
        ({"strengths": torch.ones(3)}, ValueError, "expected strengths of shape"),
    ]
    for changed, kind, message in refused:
        call: dict[str, Any] = {"h": good, "change": torch.ones(4, 6), "strengths": None}
        call |= {"out": torch.ones(4, 6)} | changed
        with pytest.raises(kind, match=message):
            kernel.finish(**call)
    nan = torch.ones(4, 6)
    nan[1, 2] = torch.nan
    out = torch.empty(4, 6)
    kernel.finish(good, nan, None, out)
    assert torch.isnan(out[1]).all()
    assert torch.isfinite(out[[0, 2, 3]]).all()


def states(n: int, q: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, q, dtype=torch.complex64, generator=generator)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_end_of_a_dense_call(variant: str) -> None:
    """normalise(a psi + b change) against complex128, alone and in a batch, norm 0 included."""
    _core.set_cpu_variant(variant)
    for q, n in ((1, 3), (7, 5), (100, 33), (513, 70)):
        psi, change = states(n, q, 1), states(n, q, 2)
        psi[0] = change[0] = 0
        for a, b, normalise in ((1.0, 0.3, True), (0.5, -2.0, False)):
            got = change.clone()
            _core.dense_finish(psi, got, a, b, normalise)
            want = a * psi.to(torch.complex128) + b * change.to(torch.complex128)
            if normalise:
                want[1:] /= want[1:].norm(dim=1, keepdim=True)
            # Two float32 products and a sum, then one division: a few units of the last place.
            assert bool(((got - want).abs() <= 1e-6 * (1 + want.abs())).all())
            alone = change.clone()
            for i in range(n):
                _core.dense_finish(psi[i : i + 1], alone[i : i + 1], a, b, normalise)
            assert torch.equal(alone, got)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_unpacking(variant: str, storage: Any) -> None:
    """To the bit what the plain form unpacks."""
    _core.set_cpu_variant(variant)
    for q in (1, 5, 64, 301):
        kept = DenseChange.from_change(states(q, q), storage)
        wide = torch.full((q, q), torch.nan, dtype=torch.complex64)
        _core.dense_unpack(kept.values, kept.scales, wide)
        assert torch.equal(wide, plain.widened(kept.values, kept.scales))


def test_large_dense_calls_keep_the_laws_of_small_ones() -> None:
    change = DenseChange.from_change(states(64, 64) / 8)
    psi = states(40, 64, 3)
    assert routes.dense_by_blas(psi)
    # Strength 0 is the state itself, to the bit, a negative zero included.
    psi[4] = -0.0
    assert torch.equal(
        torch.view_as_real(change.apply(psi, 0.0, normalise=False)).view(torch.int32),
        torch.view_as_real(psi).view(torch.int32),
    )
    psi[7, 3] = torch.nan
    got = change.apply(psi, 0.5)
    assert torch.isnan(got[7]).any()
    assert torch.isfinite(torch.view_as_real(got[[i for i in range(40) if i != 7]])).all()
    through = torch.ops.cogit.dense_apply(psi, change.values, None, 1.0, 0.5, True)
    assert torch.equal(through.nan_to_num(), got.nan_to_num())


def test_large_dense_calls_and_their_ends_refuse() -> None:
    values, scales = DenseChange.from_change(states(64, 64), "int8").values, torch.ones(64)
    for D, s, psi, message in (
        (values, scales, states(40, 63), "expected psi of shape"),
        (values, torch.ones(1), states(40, 64), "expected scales of shape"),
        (values, None, states(40, 64), "expected scales with an int8 D"),
        (values[:, :5].contiguous(), scales, states(40, 64), "expected D of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.dense_apply(D, psi, scales=s)
    with pytest.raises(TypeError, match="expected psi"):
        kernels.dense_apply(values, states(40, 64).to(torch.complex128), scales=scales)
    with pytest.raises(ValueError, match="expected change of psi's shape"):
        _core.dense_finish(states(4, 6), states(3, 6), 1.0, 1.0, True)
    same = states(4, 6)
    with pytest.raises(ValueError, match="an overlap with psi"):
        _core.dense_finish(same, same, 1.0, 1.0, True)
    with pytest.raises(ValueError, match="expected D as pairs on cpu"):
        _core.dense_unpack(states(4, 4), None, states(4, 4))
    with pytest.raises(ValueError, match="with adjacent rows"):
        _core.dense_unpack(values, scales, states(65, 64))
