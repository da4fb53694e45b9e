"""The kernels on torch tensors: their own memory, gradients, torch's operators, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from _kernels import make_affine, make_rows
from cogit import kernels, reference
from cogit.affine import Affine
from cogit.errors import BackendMissingError
from cogit.kernels import core, plain

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=GENERATOR)


def small_affine() -> Affine:
    return make_affine(np.random.default_rng(0), 6, 2)


# ---- memory ----


def test_torch_uses_the_same_memory() -> None:
    affine = make_affine(np.random.default_rng(0), 48, 3)
    h = torch.from_numpy(make_rows(np.random.default_rng(9), 5, 48))
    strengths = torch.tensor([1.0, 0.0, 0.5, 1.0, -1.0])
    expected = kernels.affine_apply_numpy(affine, h.numpy(), strengths.numpy())
    got = kernels.affine_apply(affine, h, strengths)
    np.testing.assert_array_equal(got.numpy(), expected)
    assert got.is_contiguous()

    out = torch.empty(5, 96)[:, 48:]
    assert kernels.affine_apply(affine, h, strengths, out=out) is out
    np.testing.assert_array_equal(out.numpy(), expected)
    with torch.inference_mode():
        same = h.clone()
        assert kernels.affine_apply(affine, same, strengths, out=same) is same
        np.testing.assert_array_equal(same.numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_leading_axes(dtype: torch.dtype) -> None:
    compiled = kernels.CompiledAffine(make_affine(np.random.default_rng(0), 16, 3))
    wide = normal(2, 3, 5, 24).to(dtype)
    h = wide[..., 4:20]  # rows at equal distances
    got = compiled.apply(h)
    assert got.shape == h.shape
    assert torch.equal(got.reshape(-1, 16), compiled.apply(h.reshape(-1, 16)))
    strengths = normal(30)
    assert torch.equal(
        compiled.apply(h, strengths).reshape(-1, 16), compiled.apply(h.reshape(-1, 16), strengths)
    )
    assert compiled.apply(h[:, :0]).shape == (2, 0, 5, 16)


def test_parameters_are_plain_tensors() -> None:
    compiled = kernels.CompiledAffine(small_affine())
    parameter = torch.nn.Parameter(normal(3, 6))
    with torch.no_grad():
        assert torch.equal(compiled.apply(parameter), compiled.apply(parameter.detach()))


def test_writing_in_place_is_known_to_autograd() -> None:
    affine = small_affine()
    weight, saved = torch.ones(6, requires_grad=True), torch.ones(2, 6)
    loss = (weight * saved).sum()
    kernels.affine_apply(affine, saved, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


# ---- the plain form and its gradients ----


class PlainAffine(torch.autograd.Function):
    """The plain form with the gradient that is registered for the kernel."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        h, A, a0, B, c, ctx.restore, strengths = inputs
        ctx.save_for_backward(h, A, a0, B, c, strengths)
        return plain.affine_apply(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *tensors, strengths = ctx.saved_tensors
        found = plain.affine_backward(gradients[0], *tensors, ctx.restore, strengths)
        return (*found[:5], None, found[5])


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("with_strengths", [False, True])
def test_affine_gradients(restore: bool, with_strengths: bool) -> None:
    shapes = ((2, 2, 7), (3, 7), (3,), (3, 7), (7,))
    inputs = [normal(*shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    strengths = torch.tensor([1.0, 0.3, -0.5, 2.0], dtype=torch.float64, requires_grad=True)
    extra = strengths if with_strengths else None
    assert torch.autograd.gradcheck(PlainAffine.apply, (*inputs, restore, extra))


@pytest.mark.parametrize("normalise", [False, True])
def test_dense_gradients(normalise: bool) -> None:
    psi = normal(3, 4, dtype=torch.complex128).requires_grad_()
    change = normal(4, 4, dtype=torch.complex128).requires_grad_()

    def forward(psi: Tensor, change: Tensor) -> Tensor:
        return plain.dense_apply(psi, change, None, 0.8, 0.5, normalise)

    result = forward(psi, change)
    gradient = normal(3, 4, dtype=torch.complex128)
    want = torch.autograd.grad(result, (psi, change), gradient)
    got = plain.dense_backward(gradient, psi, change, None, 0.8, 0.5, normalise)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_at_the_edges_are_finite() -> None:
    """A row that vanishes, one that is zero, and one that does not change."""
    empty = torch.zeros(0, 4)
    h = torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0], [5, 6, 7, 8]])
    shift = -h[0]
    strengths = torch.tensor([1.0, 1.0, 0.0])
    found = plain.affine_backward(
        torch.ones(3, 4), h, empty, empty[:, 0], empty, shift, True, strengths
    )
    assert all(torch.isfinite(x).all() for x in found if x is not None)


# ---- torch's operators ----


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_affine_is_a_proper_operator(restore: bool, grad: bool) -> None:
    tensors = [normal(*shape) for shape in ((5, 10), (3, 10), (3,), (3, 10), (10,))]
    strengths = torch.tensor([1.0, 0, 0.5, -1, 2])
    for extra in (None, strengths):
        inputs = [x.clone().requires_grad_(grad) for x in tensors]
        last = None if extra is None else extra.clone().requires_grad_(grad)
        torch.library.opcheck(torch.ops.cogit.affine_apply.default, (*inputs, restore, last))


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_dense_is_a_proper_operator(normalise: bool, grad: bool) -> None:
    psi, change = (normal(n, 7, dtype=torch.complex64).requires_grad_(grad) for n in (4, 7))
    operator = torch.ops.cogit.dense_apply.default
    torch.library.opcheck(operator, (psi, change, None, 1.0, 0.5, normalise))
    pairs = torch.randint(-127, 128, (7, 7, 2), generator=GENERATOR)
    torch.library.opcheck(operator, (psi, pairs.to(torch.int8), torch.rand(7), 1.0, 0.5, normalise))
    torch.library.opcheck(operator, (psi, pairs.to(torch.bfloat16), None, 1.0, 0.5, normalise))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_goes_through_the_kernel(dtype: torch.dtype) -> None:
    affine = make_affine(np.random.default_rng(1), 32, 4)
    h = normal(3, 32).to(dtype)
    leaf = h.clone().requires_grad_()
    got = kernels.affine_apply(affine, leaf)
    assert torch.equal(got.detach(), kernels.affine_apply(affine, h))
    upstream = normal(3, 32).to(dtype)
    got.backward(upstream)

    exact = h.double().requires_grad_()
    weights = [torch.from_numpy(x).double() for x in (affine.A, affine.a0, affine.B, affine.c)]
    plain.affine_apply(exact, *weights, affine.restore, None).backward(upstream.double())
    assert leaf.grad is not None
    assert exact.grad is not None
    # The gradient is computed in float32 and rounded to the dtype of h: half a unit of 2^-8.
    tolerance = 1e-5 if dtype is torch.float32 else 2**-8
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=tolerance, atol=tolerance)


def test_double_precision_is_kept_by_the_operators() -> None:
    """The kernels are float32, so this is the plain form, in double precision."""
    affine = make_affine(np.random.default_rng(1), 32, 4)
    h = normal(3, 32, dtype=torch.float64)
    weights = [torch.from_numpy(x).double() for x in (affine.A, affine.a0, affine.B, affine.c)]
    got = torch.ops.cogit.affine_apply(h, *weights, True, None)
    # 1e-12: a few hundred roundings of 1e-16.
    np.testing.assert_allclose(got, reference.affine_apply(affine, h), rtol=0, atol=1e-12)
    psi, change = normal(3, 8, dtype=torch.complex128), normal(8, 8, dtype=torch.complex128)
    blended = torch.ops.cogit.dense_apply(psi, change, None, 1.0, 0.4, True)
    want = reference.dense_apply(change, psi, 1.0, 0.4, normalise=True)
    np.testing.assert_allclose(blended, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("restore", [False, True])
def test_error_against_plain_float32_torch(restore: bool) -> None:
    """At most twice the error that plain torch makes in float32, over rows enough to compare."""
    affine = make_affine(np.random.default_rng(2), 896, 16, restore)
    h = normal(200, 896)
    exact = reference.affine_apply(affine, h)
    weights = [torch.from_numpy(x) for x in (affine.A, affine.a0, affine.B, affine.c)]
    rough = plain.affine_apply(h, *weights, restore, None)
    ours = np.abs(kernels.affine_apply(affine, h).numpy() - exact)
    theirs = np.abs(rough.numpy() - exact)
    assert ours.max() <= 2 * theirs.max()
    assert ours.mean() <= 2 * theirs.mean()


@pytest.mark.parametrize("grad", [False, True])
def test_torch_compile_sees_one_whole_graph(grad: bool) -> None:
    """Traced by dynamo and the functional pass; code generation is torch's own affair."""
    compiled = kernels.CompiledAffine(small_affine())
    change = kernels.DenseChange.from_change(normal(4, 4, dtype=torch.complex64))

    def forward(h: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
        return compiled.apply(h * 2), change.apply(psi, 0.3)

    traced = torch.compile(forward, backend="aot_eager", fullgraph=True)
    h, psi = normal(3, 6).requires_grad_(grad), normal(2, 4, dtype=torch.complex64)
    want, got = forward(h, psi), traced(h, psi)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(a, b)
    if grad:
        found = [torch.autograd.grad(x[0].square().sum(), h)[0] for x in (want, got)]
        torch.testing.assert_close(found[0], found[1])


def test_the_default_serves_other_devices() -> None:
    shapes = ((5, 10), (3, 10), (3,), (3, 10), (10,))
    h, *weights = (torch.empty(*shape, device="meta") for shape in shapes)
    assert torch.ops.cogit.affine_apply(h, *weights, True, None).shape == (5, 10)


# ---- refusals ----


class Subclass(torch.Tensor):
    """Might stand for memory that is not there."""


def test_torch_refusals() -> None:
    compiled = kernels.CompiledAffine(small_affine())
    good = torch.ones(2, 6)
    refused: list[tuple[Any, type[Exception], str]] = [
        (good.double(), TypeError, "expected h of dtype float32 .* got torch.float64"),
        (good.to("meta"), TypeError, "expected h on the CPU or a CUDA device, got meta"),
        (good.to_sparse(), TypeError, "expected h a dense tensor, got torch.sparse_coo"),
        (torch.ones(2, 1, dtype=torch.complex64).conj().imag, TypeError, "negative bit"),
        (torch._neg_view(good), TypeError, "negative bit"),
        (good.as_subclass(Subclass), TypeError, "expected h as a plain tensor, got Subclass"),
        (good[0], ValueError, r"expected h of shape \(..., n, 6\), got \(6,\)"),
        (torch.ones(2, 5), ValueError, r"expected h of shape \(..., n, 6\), got \(2, 5\)"),
        (torch.ones(6, 2).T, ValueError, "expected h with adjacent elements"),
        (torch.ones(2, 3, 6).transpose(0, 1), ValueError, "rows at equal distances"),
    ]
    for h, kind, message in refused:
        with pytest.raises(kind, match=message):
            compiled.apply(h)
    with pytest.raises(ValueError, match="expected strengths of shape"):
        compiled.apply(good, torch.ones(3))
    with pytest.raises(TypeError, match="expected strengths of dtype float32"):
        compiled.apply(good, torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="rows of their own memory"):
        compiled.apply(good, out=torch.ones(1, 6).expand(2, 6))
    with pytest.raises(ValueError, match=r"expected out like h, \(2, 6\) float32, got .* bfloat16"):
        compiled.apply(good, out=good.bfloat16())


def test_a_gradient_that_would_be_lost_is_refused() -> None:
    compiled = kernels.CompiledAffine(small_affine())
    leaf, out = torch.ones(2, 6, requires_grad=True), torch.empty(2, 6)
    with pytest.raises(ValueError, match=r"^\[affine_apply\] expected h without gradient"):
        compiled.apply(leaf, out=out)
    with pytest.raises(ValueError, match=r"^\[affine_apply\] expected out without gradient"):
        compiled.apply(out, out=leaf)
    with torch.no_grad():
        assert not compiled.apply(leaf, out=out).requires_grad


@pytest.mark.parametrize(
    ("built", "message"),
    [(False, r"a build with CUDA kernels, got one without \(no nvcc\)"), (True, "a CUDA device")],
)
def test_cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch, built: bool, message: str) -> None:
    class Core:
        @staticmethod
        def info() -> dict[str, Any]:
            return {"cuda": {"built": built, "reason": "no nvcc"}}

    monkeypatch.setattr(core, "core", Core)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendMissingError, match=rf"^\[affine_apply\] expected {message}"):
        kernels.CompiledAffine(small_affine(), "cuda")
