"""Unitaries by the Cayley transform, dense and of low rank, with powers by a real strength.

U = (I - iH)⁻¹ (I + iH) carries an eigenvalue h of the Hermitian generator H to exp(2i atan h), so
every H gives a unitary, every unitary without the eigenvalue -1 comes from one H, and U^λ has the
eigenvalues exp(2iλ atan h) (Cayley 1846; as a trainable parametrisation: Helfrich et al., 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cogit.hermitian import (
    check_complex,
    check_finite,
    check_hermitian,
    check_square,
    half_the_digits,
    hermitian_function,
)


def cayley(generator: Tensor) -> Tensor:
    """U = (I - iH)⁻¹ (I + iH) for a Hermitian H: (q, q) complex, differentiable.

    Computed as 2 (I - iH)⁻¹ - I. Against the solve with two sides its error stays near the rounding
    whatever the size of H (a solve loses a digit for each power of ten beyond |H| = 10), and its
    gradient needs two products instead of another solve. H = 0 gives exactly I.

    Raises TypeError for a dtype that is not complex and ValueError where H is not Hermitian.
    """
    check_hermitian(generator, "cayley")
    eye = _eye_like(generator)
    resolvent: Tensor = torch.linalg.inv(eye - 1j * generator)
    return 2 * resolvent - eye


def inverse_cayley(unitary: Tensor) -> Tensor:
    """The Hermitian H = -i (U - I)(U + I)⁻¹ with cayley(H) = U: (q, q) complex, differentiable.

    Raises TypeError for a dtype that is not complex and ValueError where U is not unitary, or has
    an eigenvalue at or near -1, which no finite H reaches.
    """
    check_unitary(unitary, "inverse_cayley")
    with torch.no_grad():
        cosine = float(torch.linalg.eigvalsh((unitary + unitary.mH) / 2)[0])
    # 1 + cos θ = 2 / (1 + h²) for U's eigenvalue exp(iθ) and h = tan(θ/2). A rounding ε of U is
    # ε h² in H: refused from h = ε^(-1/3) on, where two thirds of the digits are lost.
    if 1 + cosine < 2 * torch.finfo(unitary.dtype).eps ** (2 / 3):
        degrees = math.degrees(math.acos(max(cosine, -1.0)))
        message = (
            f"[inverse_cayley] expected no eigenvalue at -1, got one at an angle of {degrees:.3f}°;"
            f" turn U by a phase first, or use geodesic_power(), which has no such limit"
        )
        raise ValueError(message)
    return _generator(unitary)


def cayley_power(generator: Tensor, exponent: float) -> Tensor:
    """cayley(H)^λ with the eigenvalues exp(2iλ atan h): (q, q) complex, differentiable in H.

    Unitary for every real λ; exactly I at λ = 0. Raises as `cayley` does, and ValueError where
    the exponent is not finite.
    """
    check_hermitian(generator, "cayley_power")
    function = _PowerChange(_real(exponent, "cayley_power"))
    change = hermitian_function(generator, function.value, function.divided)
    return _eye_like(generator) + change


def geodesic_power(unitary: Tensor, exponent: float) -> Tensor:
    """U^λ by the principal angles (-π, π]: (q, q) complex, differentiable in U.

    Unitary for every real λ; exactly I at λ = 0; U^-λ is the inverse. U may have the eigenvalue -1;
    its angle is +π, also where rounding put it just above -π (by less than half the digits), so
    that repeated eigenvalues -1 turn the same way.

    Raises TypeError for a dtype that is not complex and ValueError where U is not unitary or the
    exponent is not finite.
    """
    check_unitary(unitary, "geodesic_power")
    with torch.no_grad():
        angles = torch.linalg.eigvals(unitary).angle().sort().values
        gaps = torch.cat([angles, angles[:1] + 2 * math.pi]).diff()
        widest = int(gaps.argmax())
        phase = float(angles[widest] + gaps[widest] / 2) - math.pi
    # exp(-i phase) U has its widest gap at -1, so its generator is as small as can be: at most
    # cot(π / 2q) for any U.
    turn = complex(math.cos(phase), -math.sin(phase))
    function = _PowerChange(
        _real(exponent, "geodesic_power"), phase, half_the_digits(unitary.dtype)
    )
    change = hermitian_function(_generator(turn * unitary), function.value, function.divided)
    return _eye_like(unitary) + change


def unitarity_deviation(matrix: Tensor) -> float:
    """max |UᴴU - I| over entries. Raises for what is not a finite square complex matrix."""
    check_square(matrix, "unitarity_deviation")
    with torch.no_grad():
        return float((matrix.mH @ matrix - _eye_like(matrix)).abs().max())


def check_unitary(matrix: Tensor, where: str) -> None:
    """Raises as `check_square`, and ValueError where UᴴU - I exceeds half the digits."""
    check_square(matrix, where)
    deviation = unitarity_deviation(matrix)
    if deviation > half_the_digits(matrix.dtype):
        message = (
            f"[{where}] expected a unitary matrix, got max |UᴴU - I| = {deviation:.1e}; "
            f"take its polar factor first"
        )
        raise ValueError(message)


@dataclass(frozen=True, eq=False)
class LowRankCayley:
    """U = (I + K/2)⁻¹ (I - K/2) with K = X Yᴴ - Y Xᴴ, that is cayley(iK/2), and its real powers.

    X, Y: (q, r) complex64 or complex128 of one dtype and device; r may exceed what they span, and
    columns may be zero or equal. At X random and Y = 0 it is the identity with a gradient: where
    to start training. U - I has rank at most 2r, and nothing here forms a (q, q) matrix except
    `dense`; forward and backward cost O(q r²) plus O(q r) a row.

    At λ = ±1 by the Woodbury identity, U - I = -W (I + ZᴴW/2)⁻¹ Zᴴ with W = [X, Y], Z = [Y, -X]
    (Wen & Yin 2013): the cheapest, with a rounding of ε |W|² where X and Y are nearly parallel, so
    keep their columns near unit norm. At other λ in an orthonormal basis P of a space that holds X
    and Y: U^λ - I = P (exp(2iλ atan A) - I) Pᴴ with A = PᴴHP, unitary whatever X and Y are.

    Raises TypeError for other dtypes and ValueError for other shapes or values that are not finite.
    """

    X: Tensor
    Y: Tensor

    def __post_init__(self) -> None:
        check_complex(self.X, "LowRankCayley")
        check_complex(self.Y, "LowRankCayley", (self.X.dtype,))
        if self.X.ndim != 2 or not self.X.numel() or self.X.shape != self.Y.shape:
            message = (
                f"[LowRankCayley] expected X and Y of one shape (q, r), got "
                f"{tuple(self.X.shape)} and {tuple(self.Y.shape)}; transpose or trim them"
            )
            raise ValueError(message)
        check_finite(self.X, "LowRankCayley")
        check_finite(self.Y, "LowRankCayley")

    def apply(self, states: Tensor, exponent: float = 1.0) -> Tensor:
        """U^λ ψ for rows ψ: (batch, q) to (batch, q), in the dtype of X; exactly ψ at λ = 0.

        NaN stays in its row. Raises TypeError for another dtype, ValueError for another shape or
        an exponent that is not finite.
        """
        check_complex(states, "LowRankCayley.apply", (self.X.dtype,))
        if states.ndim != 2 or states.shape[1] != len(self.X):
            message = (
                f"[LowRankCayley.apply] expected rows (batch, {len(self.X)}), "
                f"got {tuple(states.shape)}; reshape them"
            )
            raise ValueError(message)
        left, right = self.change(exponent)
        return states + (states @ right.conj()) @ left.T

    def adjoint(self, states: Tensor) -> Tensor:
        """Uᴴψ, which is U⁻¹ψ, for rows ψ: (batch, q) to (batch, q)."""
        return self.apply(states, -1.0)

    def change(self, exponent: float = 1.0) -> tuple[Tensor, Tensor]:
        """(left, right), both (q, m), with U^λ - I = left @ rightᴴ and m = 2r or min(2r, q).

        Where X or Y requires a gradient and λ is not ±1, m doubles: the further columns have the
        value zero and carry derivatives.
        """
        exponent = _real(exponent, "LowRankCayley")
        if abs(exponent) == 1.0:
            # The inverse has the generator -K, which is K with X and Y exchanged.
            first, second = (self.X, self.Y) if exponent > 0 else (self.Y, self.X)
            return _woodbury(first, second)
        return _compressed_power(self.X, self.Y, _PowerChange(exponent))

    def dense(self, exponent: float = 1.0) -> Tensor:
        """U^λ as a (q, q) matrix: for tests and for small q."""
        left, right = self.change(exponent)
        return torch.eye(len(left), dtype=left.dtype, device=left.device) + left @ right.mH


@dataclass(frozen=True)
class _PowerChange:
    """f(h) = exp(iλθ) - 1 with θ = phase + 2 atan h, and its divided differences in closed form.

    With ``snap`` θ is brought to the principal angles (-π + snap, π + snap]. The 1 is subtracted
    here and not from V diag(…) Vᴴ, so that λ = 0 is exactly the identity.
    """

    exponent: float
    phase: float = 0.0
    snap: float | None = None

    def value(self, h: Tensor) -> Tensor:
        return torch.exp(1j * self.exponent * self._angle(h)) - 1

    def divided(self, x: Tensor, y: Tensor) -> Tensor:
        # exp(ia) - exp(ib) = 2i sin((a - b)/2) exp(i(a + b)/2), and atan x - atan y is one atan2:
        # nothing cancels, however close x and y are.
        step = x - y
        half = torch.atan2(step, 1 + x * y) - math.pi * (self._turns(x) - self._turns(y))
        equal = step == 0
        ratio = torch.sin(self.exponent * half) / torch.where(equal, 1.0, step)
        ratio = torch.where(equal, self.exponent / (1 + x * y), ratio)
        return 2j * ratio * torch.exp(0.5j * self.exponent * (self._angle(x) + self._angle(y)))

    def _angle(self, h: Tensor) -> Tensor:
        return self.phase + 2 * torch.atan(h) - 2 * math.pi * self._turns(h)

    def _turns(self, h: Tensor) -> Tensor:
        """Whole turns by which phase + 2 atan h lies outside the principal angles."""
        if self.snap is None:
            return torch.zeros_like(h)
        angle = self.phase + 2 * torch.atan(h)
        return torch.ceil((angle + math.pi - self.snap) / (2 * math.pi)) - 1


def _woodbury(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of U - I. The small matrix is regular: its determinant is that of I + K/2, K skew."""
    left = torch.cat([first, second], dim=1)
    right = torch.cat([second, -first], dim=1)
    small = torch.eye(left.shape[1], dtype=left.dtype, device=left.device) + right.mH @ left / 2
    return -torch.linalg.solve(small, left, left=False), right


def _compressed_power(X: Tensor, Y: Tensor, function: _PowerChange) -> tuple[Tensor, Tensor]:
    """Factors of f(H), H = iK/2, in an orthonormal basis P of a space that holds X and Y.

    P is held constant, because the gradient of a QR is infinite where columns depend on each other
    although f(H) is smooth there. What a change of X or Y moves out of P's space is then carried by
    E = HP - PA, zero in value: to first order f(H) = P f(A) Pᴴ + E g(A) Pᴴ + P g(A) Eᴴ with
    g(h) = f[h, 0] = f(h) / h.
    """
    with torch.no_grad():
        basis = torch.linalg.qr(torch.cat([X, Y], dim=1)).Q
    image = 0.5j * (X @ (Y.mH @ basis) - Y @ (X.mH @ basis))  # H P
    inside = basis.mH @ image  # A
    left = basis @ hermitian_function(inside, function.value, function.divided)
    if not image.requires_grad:
        return left, basis
    with torch.no_grad():
        values, vectors = torch.linalg.eigh((inside + inside.mH) / 2)
        slope = (vectors * function.divided(values, torch.zeros_like(values))) @ vectors.mH
    outside = image - basis @ inside
    outside = outside - outside.detach()
    return torch.cat([left + outside @ slope, basis], dim=1), torch.cat(
        [basis, outside @ slope.mH], dim=1
    )


def _generator(unitary: Tensor) -> Tensor:
    """H for U without the eigenvalue -1. (U + I)⁻¹ = (I - iH)/2, so H is its skew part."""
    half: Tensor = torch.linalg.inv(unitary + _eye_like(unitary))
    return 1j * (half - half.mH)


def _eye_like(matrix: Tensor) -> Tensor:
    return torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def _real(exponent: float, where: str) -> float:
    if not math.isfinite(exponent):
        message = f"[{where}] expected a finite exponent, got {exponent}; choose a real strength"
        raise ValueError(message)
    return float(exponent)
