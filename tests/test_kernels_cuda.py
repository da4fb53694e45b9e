"""The kernels on a GPU: the same contracts as on the CPU. Needs a GPU and a build for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from _kernels import make_affine, make_rows
from cogit import _core, kernels, reference
from cogit.affine import Affine
from cogit.kernels import DenseChange, Storage, plain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
    pytest.mark.skipif(
        not kernels.info()["cuda"]["built"], reason=kernels.info()["cuda"]["reason"]
    ),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
STORAGES: list[Storage] = ["complex64", "bf16", "int8"]
SIZES = (1, 5, 64, 100, 896, 3584)


def rows(rng: np.random.Generator, n: int, d: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(make_rows(rng, n, d)).to("cuda", dtype)


def assert_close(
    got: torch.Tensor, affine: Affine, h: torch.Tensor, strengths: torch.Tensor | None = None
) -> None:
    """Float32's error on changes as long as the row, and half a unit of the dtype's last place."""
    assert got.dtype == h.dtype
    assert got.device == h.device
    factors = None if strengths is None else strengths.cpu()
    exact = reference.affine_apply(affine, h.float().cpu(), factors)
    spacing = 0.51 * torch.finfo(h.dtype).eps * np.abs(exact)
    scale = np.abs(exact).max(initial=1.0)
    assert (np.abs(got.double().cpu().numpy() - exact) <= spacing + 2e-6 * scale).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", SIZES)
def test_affine_matches_reference(dtype: torch.dtype, d: int) -> None:
    rng = np.random.default_rng(d)
    for rank in (0, 1, 3, 16, 33, 150):
        for restore in (False, True):
            affine = make_affine(rng, d, rank, restore)
            compiled = kernels.CompiledAffine(affine, "cuda")
            for n in (0, 1, 2, 7, 33, 300):
                h = rows(rng, n, d, dtype)
                assert_close(compiled.apply(h), affine, h)
                strengths = torch.from_numpy(
                    rng.choice(np.array([0, 0.5, 1, -2], np.float32), size=n)
                ).cuda()
                assert_close(compiled.apply(h, strengths), affine, h, strengths)


def test_affine_fuzz() -> None:
    rng = np.random.default_rng(7)
    for _ in range(200):
        dtype = DTYPES[int(rng.integers(3))]
        d, rank, n = int(rng.integers(1, 300)), int(rng.integers(0, 40)), int(rng.integers(0, 40))
        affine = make_affine(rng, d, rank, bool(rng.integers(2)))
        store = rows(rng, 3 * n + 1, d + 9, dtype)
        h = store[:: int(rng.integers(1, 4)), int(rng.integers(9)) :][:n, :d]
        strengths = None
        if rng.integers(2):
            drawn = (rng.normal(size=n) * rng.integers(0, 2, size=n)).astype(np.float32)
            strengths = torch.from_numpy(drawn).cuda()
        original, compiled = h.clone(), kernels.CompiledAffine(affine, "cuda")
        out = (
            compiled.apply(h, strengths, out=h) if rng.integers(2) else compiled.apply(h, strengths)
        )
        assert_close(out, affine, original, strengths)


@pytest.mark.parametrize("dtype", DTYPES)
def test_laws(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(1)
    for d in (7, 100, 896, 3584):
        compiled = kernels.CompiledAffine(make_affine(rng, d, 9), "cuda")
        h = rows(rng, 70, d, dtype)
        batch = compiled.apply(h)
        assert torch.equal(batch, torch.cat([compiled.apply(row[None]) for row in h]))
        assert torch.equal(batch, compiled.apply(h))

        strengths = torch.ones(70, device="cuda")
        strengths[3] = 0
        h[3, :3] = torch.tensor([-0.0, torch.nan, torch.inf])
        h[5, 2] = torch.nan
        got = compiled.apply(h, strengths)
        integer = torch.int32 if dtype is torch.float32 else torch.int16
        assert torch.equal(got[3].view(integer), h[3].view(integer))
        assert torch.isnan(got[5]).all()
        others = [i for i in range(70) if i not in (3, 5)]
        assert torch.equal(got[others], batch[others])

        still = kernels.CompiledAffine(Affine.zero(d, 3, restore=True), "cuda")
        clean = rows(rng, 5, d, dtype)
        assert torch.equal(still.apply(clean), clean)


@pytest.mark.parametrize("storage", STORAGES)
def test_dense_matches_reference(storage: Storage) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    for q in (1, 2, 3, 37, 500, 501, 2666):
        change = torch.randn(q, q, dtype=torch.complex64, device="cuda", generator=generator)
        kept = DenseChange.from_change(change * q**-0.5, storage)
        for n in (0, 1, 2, 3, 5, 8, 20):
            psi = torch.randn(n, q, dtype=torch.complex64, device="cuda", generator=generator)
            for a, b, normalise in ((1.0, 0.3, True), (0.5, -2.0, False), (1.0, 0.0, False)):
                got = torch.full_like(psi, torch.nan)
                _core.dense_apply(kept.values, kept.scales, psi, got, a, b, normalise)
                want = plain.dense_apply(
                    psi.to(torch.complex128),
                    kept.dense().to(torch.complex128),
                    None,
                    a,
                    b,
                    normalise,
                )
                # Sums of q products of values of 1 and q^-1/2: float32 keeps six digits.
                torch.testing.assert_close(got.to(torch.complex128), want, rtol=1e-5, atol=1e-5)
                again = torch.empty_like(psi)
                _core.dense_apply(kept.values, kept.scales, psi, again, a, b, normalise)
                assert torch.equal(got, again)


def test_streams_and_graphs() -> None:
    """The kernel runs on torch's current stream, and is captured with everything else."""
    rng = np.random.default_rng(2)
    affine = make_affine(rng, 896, 16)
    compiled = kernels.CompiledAffine(affine, "cuda")
    h = rows(rng, 4, 896, torch.float32)
    kept = DenseChange.from_change(torch.eye(64, dtype=torch.complex64, device="cuda"))
    psi = torch.ones(2, 64, dtype=torch.complex64, device="cuda")
    want, blended = compiled.apply(h), kept.apply(psi, 0.5)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        warm = compiled.apply(h), kept.apply(psi, 0.5)
    stream.synchronize()
    assert torch.equal(warm[0], want)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        steered, states = compiled.apply(h), kept.apply(psi, 0.5)
    h.mul_(2)
    want = compiled.apply(h)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(steered, want)
    assert torch.equal(states, blended)


def test_is_a_proper_operator() -> None:
    shapes = ((5, 10), (3, 10), (3,), (3, 10), (10,))
    inputs = [torch.randn(*shape, device="cuda").requires_grad_() for shape in shapes]
    torch.library.opcheck(torch.ops.cogit.affine_apply.default, (*inputs, True, None))
    psi, change = (
        torch.randn(n, 7, dtype=torch.complex64, device="cuda").requires_grad_() for n in (4, 7)
    )
    torch.library.opcheck(torch.ops.cogit.dense_apply.default, (psi, change, None, 1.0, 0.5, True))


def test_mixed_devices_are_refused() -> None:
    affine = make_affine(np.random.default_rng(0), 6, 2)
    on_gpu, on_cpu = kernels.CompiledAffine(affine, "cuda"), kernels.CompiledAffine(affine)
    gpu, cpu = torch.ones(2, 6, device="cuda"), torch.ones(2, 6)
    cases: list[tuple[Any, ...]] = [
        (on_cpu, gpu, None, "expected h on cpu like the weights, got cuda:0"),
        (on_gpu, cpu, None, "expected h on cuda:0 like the weights, got cpu"),
        (on_gpu, gpu, torch.ones(2), "expected strengths on cuda:0 like the weights, got cpu"),
    ]
    for compiled, h, strengths, message in cases:
        with pytest.raises(ValueError, match=message):
            compiled.apply(h, strengths)


def test_a_model_on_the_gpu_is_steered_by_the_kernel() -> None:
    """Recording, verification and generation as on the CPU."""
    pytest.importorskip("transformers")
    from _models import steering, tiny_backend, tokens

    backend = tiny_backend()
    backend.model.to("cuda")
    assert backend.kernel == "compiled"
    with backend.steer(steering(backend, [0, 2])) as proof:
        assert proof is not None
        steered = backend.logits([tokens(9)])[0]
    assert not np.allclose(steered, backend.logits([tokens(9)])[0])
