"""Hermitian matrices from free parameters, and their functions with a gradient that is finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Value = Callable[[Tensor], Tensor]
Divided = Callable[[Tensor, Tensor], Tensor]

_REAL = (torch.float32, torch.float64)
_COMPLEX = (torch.complex64, torch.complex128)


def hermitian(parameters: Tensor) -> Tensor:
    """The Hermitian H whose lower triangle is ``parameters`` and whose phases lie in the upper one.

    parameters: (q, q) float32 or float64. The lower triangle with the diagonal holds Re H, the
    strict upper triangle holds Im H. Returns (q, q) complex64 or complex128, exactly Hermitian.

    A Hermitian matrix has q² real degrees of freedom, and here each entry of the parameters is one
    of them. A + iB made from two free matrices holds 2q², half of which the symmetrisation
    cancels: an optimiser would keep moments for them, and weight decay would pull at nothing.

    Raises TypeError for another dtype and ValueError for another shape or values that are not
    finite.
    """
    check_square(parameters, "hermitian", _REAL)
    below, above = parameters.tril(-1), parameters.triu(1)
    return torch.complex(parameters.tril() + below.T, above - above.T)


def hermitian_parameters(matrix: Tensor) -> Tensor:
    """The parameters that `hermitian` turns into this matrix: (q, q) complex to real.

    Raises as `check_hermitian` does.
    """
    check_hermitian(matrix, "hermitian_parameters")
    return matrix.real.tril() + matrix.imag.triu(1)


def hermitian_function(matrix: Tensor, value: Value, divided: Divided) -> Tensor:
    """f(H) = V diag(f(h)) Vᴴ for H = V diag(h) Vᴴ, differentiable once, also at repeated h.

    matrix: (q, q) complex; its Hermitian part is what counts, and the gradient is Hermitian.
    value: f, from real eigenvalues (q,) to real or complex (q,).
    divided: (f(x) - f(y)) / (x - y), and f'(x) where x equals y, from (q, 1) and (1, q) to (q, q).

    The derivative is V ((f[hᵢ, hⱼ]) ∘ (Vᴴ dH V)) Vᴴ (Daleckii & Krein 1965; Higham, Functions of
    Matrices, 2008, theorem 3.11). Differentiating eigh instead would divide by hᵢ - hⱼ, which gives
    NaN where eigenvalues repeat although f(H) is smooth there. The divided differences are the
    caller's because only a closed form is exact near equal eigenvalues.
    """
    result: Tensor = _HermitianFunction.apply(matrix, value, divided)  # type: ignore[no-untyped-call]
    return result


class _HermitianFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, value: Value, divided: Divided) -> Tensor:
        values, vectors = torch.linalg.eigh((matrix + matrix.mH) / 2)
        ctx.save_for_backward(values, vectors)
        ctx.divided = divided
        result: Tensor = (vectors * value(values)) @ vectors.mH
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, vectors = ctx.saved_tensors
        table = ctx.divided(values[:, None], values[None, :])
        inner = vectors.mH @ gradient @ vectors
        outer = vectors @ (table.conj() * inner) @ vectors.mH
        return (outer + outer.mH) / 2, None, None


def check_complex(tensor: object, where: str, dtypes: tuple[torch.dtype, ...] = _COMPLEX) -> None:
    """Raises TypeError unless this is a tensor of one of the dtypes (complex64 or complex128)."""
    if not isinstance(tensor, Tensor):
        message = f"[{where}] expected a torch tensor, got {type(tensor).__name__}; convert it"
        raise TypeError(message)
    if tensor.dtype not in dtypes:
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        got = str(tensor.dtype).removeprefix("torch.")
        message = f"[{where}] expected {names}, got {got}; convert it with .to()"
        raise TypeError(message)


def check_finite(tensor: Tensor, where: str) -> None:
    """Raises ValueError for NaN or infinity."""
    if not math.isfinite(largest(tensor)):
        message = f"[{where}] expected finite values, got NaN or infinity; check the last step"
        raise ValueError(message)


def check_square(tensor: Tensor, where: str, dtypes: tuple[torch.dtype, ...] = _COMPLEX) -> None:
    """Raises TypeError for another dtype, ValueError unless (q, q), q ≥ 1, and finite."""
    check_complex(tensor, where, dtypes)
    if tensor.ndim != 2 or tensor.shape[0] != tensor.shape[1] or not len(tensor):
        got = tuple(tensor.shape)
        message = f"[{where}] expected a square matrix (q, q), got {got}; pass one at a time"
        raise ValueError(message)
    check_finite(tensor, where)


def check_hermitian(matrix: Tensor, where: str) -> None:
    """Raises as `check_square`, and ValueError where H - Hᴴ exceeds half the digits."""
    check_square(matrix, where)
    with torch.no_grad():
        deviation = largest(matrix - matrix.mH)
        scale = max(1.0, largest(matrix))
    if deviation > half_the_digits(matrix.dtype) * scale:
        message = (
            f"[{where}] expected a Hermitian matrix, got max |H - Hᴴ| = {deviation:.1e}; "
            f"make it with hermitian() or take (H + Hᴴ) / 2"
        )
        raise ValueError(message)


def largest(tensor: Tensor) -> float:
    """The largest |real or imaginary part|, NaN where there is one: cheaper than complex abs."""
    parts = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return float(parts.detach().abs().max())


def half_the_digits(dtype: torch.dtype) -> float:
    """√ε: far above what rounding leaves in a structure, far below what a mistake makes of it."""
    return float(torch.finfo(dtype).eps ** 0.5)
