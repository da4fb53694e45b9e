"""The kernels in plain torch, on any device: the default of the registered operators, the route to
BLAS, and what gradients are written in. The compiled kernels are tested against these.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Folded(NamedTuple):
    """Weights in the dtype of the products, c as one more row of B whose coefficient is 1.

    That saves a pass over the result. down: (rank + 1, d_model). bias: (rank + 1,). up: like down.
    """

    down: Tensor
    bias: Tensor
    up: Tensor


def fold(A: Tensor, a0: Tensor, B: Tensor, c: Tensor, dtype: torch.dtype) -> Folded:
    """Prepare weights for :func:`apply_folded`."""
    down, bias, up, shift = (x.to(dtype) for x in (A, a0, B, c))
    return Folded(
        torch.cat([down, torch.zeros_like(shift)[None]]),
        torch.cat([bias, bias.new_ones(1)]),
        torch.cat([up, shift[None]]),
    )


def affine_apply(
    h: Tensor,
    A: Tensor,
    a0: Tensor,
    B: Tensor,
    c: Tensor,
    restore: bool,
    strengths: Tensor | None,
) -> Tensor:
    """restore(h + s * ((h Aᵀ + a0) B + c)). h: (..., n, d_model); a new tensor of its dtype.

    Products are in h's dtype with weights rounded to it; norms are float32 or wider.
    """
    return apply_folded(h, fold(A, a0, B, c, h.dtype), restore, strengths)


def apply_folded(h: Tensor, weights: Folded, restore: bool, strengths: Tensor | None) -> Tensor:
    """The same with weights that are prepared for many calls."""
    rows = h.reshape(-1, h.shape[-1])
    coefficients = torch.addmm(weights.bias, rows, weights.down.T)
    if strengths is not None:
        coefficients = coefficients * strengths[:, None].to(h.dtype)
    steered = torch.addmm(rows, coefficients, weights.up)
    if restore:
        steered = _restored(rows, steered)
    if strengths is not None:
        steered = torch.where((strengths == 0)[:, None], rows, steered)
    return steered.reshape(h.shape)


def _restored(rows: Tensor, steered: Tensor) -> Tensor:
    wide = torch.promote_types(rows.dtype, torch.float32)
    before, after = (
        torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide) for x in (rows, steered)
    )
    # A row that did not change has two equal norms, and the factor is exactly 1.
    factor = torch.where(after == 0, 1.0, before / after).to(steered.dtype)
    # In place it is one allocation, so one pass, less over a large result.
    return steered * factor if steered.requires_grad else steered.mul_(factor)


def affine_backward(
    gradient: Tensor,
    h: Tensor,
    A: Tensor,
    a0: Tensor,
    B: Tensor,
    c: Tensor,
    restore: bool,
    strengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of h, A, a0, B, c and the strengths, in float32 and h's own dtype.

    With x = h + s·change and out = x·|h|/|x|:  ∂x = f·g - f·(g·x)·x/|x|²,  ∂h += (g·x)/(|x||h|)·h.
    """
    width = h.shape[-1]
    wide = torch.promote_types(h.dtype, torch.float32)
    rows, g = (x.reshape(-1, width).to(wide) for x in (h, gradient))
    coefficients = torch.addmm(a0.to(wide), rows, A.to(wide).T)
    change = torch.addmm(c.to(wide), coefficients, B.to(wide))
    s = None if strengths is None else strengths[:, None].to(wide)
    direct = torch.zeros_like(rows)
    if restore:
        steered = rows + (change if s is None else s * change)
        before, after = (torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (rows, steered))
        usable = (before > 0) & (after > 0)
        before, after = (torch.where(usable, x, 1.0) for x in (before, after))
        along = (g * steered).sum(dim=-1, keepdim=True)
        direct = torch.where(usable, along / (before * after) * rows, 0.0)
        factor = before / after
        g = torch.where(usable, factor * (g - along / after.square() * steered), g)
    g_change = g if s is None else s * g
    g_coefficients = g_change @ B.to(wide).T
    return (
        (g + g_coefficients @ A.to(wide) + direct).to(h.dtype).reshape(h.shape),
        (g_coefficients.T @ rows).to(A.dtype),
        g_coefficients.sum(dim=0).to(a0.dtype),
        (coefficients.T @ g_change).to(B.dtype),
        g_change.sum(dim=0).to(c.dtype),
        None if strengths is None else (g * change).sum(dim=-1).to(strengths.dtype),
    )


def widened(D: Tensor, scales: Tensor | None) -> Tensor:
    """A stored change as complex64. D: (q, q) complex64, or (q, q, 2) bfloat16 or int8 pairs."""
    if D.is_complex():
        return D
    # One pass either way: int8 times float32 is float32.
    return torch.view_as_complex(D.float() if scales is None else D * scales[:, None, None])


def dense_apply(
    psi: Tensor,
    D: Tensor,
    scales: Tensor | None,
    a: float,
    b: float,
    normalise: bool,
) -> Tensor:
    """normalise(a·ψ + b·Dψ) for states (..., n, q) complex64; a new tensor."""
    states = psi.reshape(-1, psi.shape[-1])
    change = widened(D, scales).to(psi.dtype)
    result = torch.addmm(states, states, change.T, beta=a, alpha=b)
    if normalise:
        # As real numbers: dividing complex ones by a real one takes several times as long.
        pairs = torch.view_as_real(result).flatten(-2)
        # The floor is for a state of norm 0, which stays as it is.
        norm = torch.linalg.vector_norm(pairs, dim=-1, keepdim=True)
        norm = norm.clamp_min(torch.finfo(norm.dtype).tiny)
        pairs = pairs / norm if result.requires_grad else pairs.div_(norm)
        result = torch.view_as_complex(pairs.reshape(*states.shape, 2))
    return result.reshape(psi.shape)


def dense_backward(
    gradient: Tensor,
    psi: Tensor,
    D: Tensor,
    scales: Tensor | None,
    a: float,
    b: float,
    normalise: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the states and, where it is stored as complex64, of D."""
    states, g = (x.reshape(-1, psi.shape[-1]) for x in (psi, gradient))
    change = widened(D, scales).to(psi.dtype)
    if normalise:
        result = torch.addmm(states, states, change.T, beta=a, alpha=b)
        norm = torch.linalg.vector_norm(result, dim=-1, keepdim=True)
        norm = torch.where(norm == 0, 1.0, norm)
        unit = result / norm
        along = (unit.conj() * g).sum(dim=-1, keepdim=True).real
        g = (g - along * unit) / norm
    g_states = torch.addmm(g, g, change.conj(), beta=a, alpha=b).reshape(psi.shape)
    return g_states, (b * (g.T @ states.conj())).to(D.dtype) if D.is_complex() else None
