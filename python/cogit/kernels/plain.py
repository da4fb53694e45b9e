"""The kernels in plain torch, on any device: the default of the registered operators, the route to
BLAS, and what gradients are written in. The compiled kernels are tested against these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


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
    rows = h.reshape(-1, h.shape[-1])
    down, bias, up, shift = (x.to(h.dtype) for x in (A, a0, B, c))
    # The shift as one more row of B whose coefficient is 1 saves a pass over the result.
    one = torch.ones_like(bias[:1])
    lower = torch.cat([down, torch.zeros_like(shift)[None]])
    upper = torch.cat([up, shift[None]])
    coefficients = torch.addmm(torch.cat([bias, one]), rows, lower.T)
    if strengths is not None:
        coefficients = coefficients * strengths[:, None].to(h.dtype)
    steered = torch.addmm(rows, coefficients, upper)
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
    # Exactly 1 where nothing changed, and where nothing is left to scale.
    factor = torch.where((before == after) | (after == 0), 1.0, before / after)
    if steered.requires_grad:
        return steered * factor.to(steered.dtype)
    # One allocation less, which is one pass less over a large result.
    return steered.mul_(factor.to(steered.dtype))


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
    result = torch.addmm(states, states, widened(D, scales).T, beta=a, alpha=b)
    if normalise:
        norm = torch.linalg.vector_norm(result, dim=-1, keepdim=True)
        result = result / torch.where(norm == 0, 1.0, norm)
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
    change = widened(D, scales)
    if normalise:
        result = torch.addmm(states, states, change.T, beta=a, alpha=b)
        norm = torch.linalg.vector_norm(result, dim=-1, keepdim=True)
        norm = torch.where(norm == 0, 1.0, norm)
        unit = result / norm
        along = (unit.conj() * g).sum(dim=-1, keepdim=True).real
        g = (g - along * unit) / norm
    g_states = torch.addmm(g, g, change.conj(), beta=a, alpha=b).reshape(psi.shape)
    return g_states, b * (g.T @ states.conj()) if D.is_complex() else None
