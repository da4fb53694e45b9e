"""The kernels as torch operators: ``torch.ops.cogit.affine_apply`` and ``dense_apply``.

Each has a plain default for every device, the compiled kernel for CPU and CUDA tensors, a shape
function and a gradient, so that it works under autograd, torch.compile and on meta tensors. The
kernels are float32: double precision goes through the plain form, in double precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cogit.kernels import plain
from cogit.kernels.core import core
from cogit.kernels.routes import (
    affine_by_blas,
    affine_products_by_blas,
    dense_by_blas,
    dense_product_by_blas,
)

_DEVICES = ("cpu", "cuda")


@torch.library.custom_op("cogit::affine_apply", mutates_args=())
def affine_apply(
    h: Tensor,
    A: Tensor,
    a0: Tensor,
    B: Tensor,
    c: Tensor,
    restore: bool,
    strengths: Tensor | None = None,
) -> Tensor:
    """restore(h + s * ((h Aᵀ + a0) B + c)); see :class:`cogit.kernels.CompiledAffine`.

    Differentiable in h, A, a0, B, c and the strengths.
    """
    return plain.affine_apply(h, A, a0, B, c, restore, strengths)


@affine_apply.register_kernel(_DEVICES)
def _affine_compiled(
    h: Tensor,
    A: Tensor,
    a0: Tensor,
    B: Tensor,
    c: Tensor,
    restore: bool,
    strengths: Tensor | None = None,
) -> Tensor:
    if h.dtype is torch.float64:
        return plain.affine_apply(h, A, a0, B, c, restore, strengths)
    compiled = core.Affine(A.contiguous(), a0.contiguous(), B.contiguous(), c.contiguous(), restore)
    if affine_by_blas(h, len(A)):
        cast = tuple(x.to(h.dtype) for x in (A, a0, B))
        return affine_products_by_blas(compiled, cast, h.contiguous(), strengths)
    out = torch.empty_like(h, memory_format=torch.contiguous_format)
    compiled.apply(h.contiguous(), strengths, out)
    return out


@affine_apply.register_fake
def _affine_shape(
    h: Tensor,
    A: Tensor,
    a0: Tensor,
    B: Tensor,
    c: Tensor,
    restore: bool,
    strengths: Tensor | None = None,
) -> Tensor:
    return torch.empty_like(h, memory_format=torch.contiguous_format)


def _affine_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    h, A, a0, B, c, ctx.restore, strengths = inputs
    ctx.save_for_backward(h, A, a0, B, c, strengths)


def _affine_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    h, A, a0, B, c, strengths = ctx.saved_tensors
    found = plain.affine_backward(gradient, h, A, a0, B, c, ctx.restore, strengths)
    return (*found[:5], None, found[5])


affine_apply.register_autograd(_affine_backward, setup_context=_affine_save)


@torch.library.custom_op("cogit::dense_apply", mutates_args=())
def dense_apply(
    psi: Tensor,
    D: Tensor,
    scales: Tensor | None,
    a: float,
    b: float,
    normalise: bool,
) -> Tensor:
    """normalise(a·ψ + b·Dψ); see :func:`cogit.kernels.dense_apply`.

    Differentiable in ψ and, where it is complex64, in D.
    """
    return plain.dense_apply(psi, D, scales, a, b, normalise)


@dense_apply.register_kernel(_DEVICES)
def _dense_compiled(
    psi: Tensor,
    D: Tensor,
    scales: Tensor | None,
    a: float,
    b: float,
    normalise: bool,
) -> Tensor:
    states = psi.resolve_conj().resolve_neg().contiguous()
    change = D.resolve_conj().resolve_neg().contiguous()
    if psi.dtype is torch.complex128:
        return plain.dense_apply(states, change, scales, a, b, normalise)
    if b != 0 and dense_by_blas(states):
        core.dense_check(change, scales, states)
        return dense_product_by_blas(states, change, scales, a, b, normalise)
    out = torch.empty_like(states)
    core.dense_apply(change, scales, states, out, a, b, normalise)
    return out


@dense_apply.register_fake
def _dense_shape(
    psi: Tensor,
    D: Tensor,
    scales: Tensor | None,
    a: float,
    b: float,
    normalise: bool,
) -> Tensor:
    return torch.empty_like(psi, memory_format=torch.contiguous_format)


def _dense_save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    psi, D, scales, ctx.a, ctx.b, ctx.normalise = inputs
    ctx.save_for_backward(psi, D, scales)


def _dense_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    psi, D, scales = ctx.saved_tensors
    found = plain.dense_backward(gradient, psi, D, scales, ctx.a, ctx.b, ctx.normalise)
    return (*found, None, None, None, None)


dense_apply.register_autograd(_dense_backward, setup_context=_dense_save)
