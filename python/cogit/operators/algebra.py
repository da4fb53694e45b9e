"""Algebra of affines in float64: composition, condition, inverse and real powers.

Rows are multiplied from the right: h' = h M + b with M = I + AᵀB of rank r beside the identity, and
b = a0 B + c. Everything is computed in the space of the rank, by Woodbury, never in (d, d).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.affine import Affine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Eigenvalues this close to the closed negative axis, relative to the largest, have no real power.
_NEGATIVE = 1e-9
# A float32 state (6e-8) inverted at this condition keeps three digits.
MAX_CONDITION = 1e4


@dataclass(frozen=True)
class Factors:
    """h' = h + (h Aᵀ + a0) B + c in float64, no restore. A, B: (r, d). a0: (r,). c: (d,)."""

    A: Array
    a0: Array
    B: Array
    c: Array

    @classmethod
    def of(cls, affine: Affine) -> Factors:
        """The factors of an affine, whatever it restores."""
        parts = (affine.A, affine.a0, affine.B, affine.c)
        return cls(*(part.astype(np.float64) for part in parts))

    @property
    def constant(self) -> Array:
        """b, where a state of zero goes. (d,)"""
        return np.asarray(self.a0 @ self.B + self.c)

    def linear(self, rows: Array) -> Array:
        """h M of rows (..., d)."""
        return np.asarray(rows + (rows @ self.A.T) @ self.B)

    def rounded(self, *, restore: bool = False) -> Affine:
        """The affine in float32. ValueError where a factor exceeds it."""
        A, a0, B, c = (x.astype(np.float32) for x in (self.A, self.a0, self.B, self.c))
        return Affine(A, a0, B, c, restore)

    def lowrank(self) -> dict[str, NDArray[Any]]:
        """The tensors of a ``lowrank`` operator."""
        return {"down": self.A, "offset": self.a0, "up": self.B, "shift": self.c}


def about(
    mean: Array, basis: Array, change: Array, *, shift: Array | None = None, restore: bool = False
) -> Affine:
    """h' = h + Q (C x + τ), x = Qᵀ(h - μ). mean: (d,). basis: (d, m). change: (m, m). shift: (m,).

    The rank is m at every ``change``, so that dialling a strength rebuilds no compute graph.
    """
    constant = np.zeros(mean.size) if shift is None else basis @ shift
    factors = Factors(basis.T, -basis.T @ mean, change.T @ basis.T, constant)
    return factors.rounded(restore=restore)


def compose(outer: Factors, inner: Factors) -> Factors:
    """``inner`` first, then ``outer``, as one affine of the summed rank, d_model at most."""
    mixed = inner.B @ outer.A.T  # (inner rank, outer rank)
    joined = Factors(
        A=np.concatenate([inner.A, outer.A + mixed.T @ inner.A]),
        a0=np.concatenate([inner.a0, outer.a0 + outer.A @ inner.c + mixed.T @ inner.a0]),
        B=np.concatenate([inner.B, outer.B]),
        c=inner.c + outer.c,
    )
    rank, d_model = joined.A.shape
    if rank <= d_model:
        return joined
    whole = joined.A.T @ joined.B
    return Factors(np.eye(d_model), np.zeros(d_model), whole, joined.constant)


def condition(factors: Factors) -> float:
    """Condition of undoing M: max(1, largest) / smallest singular value.

    1/cos θ of a plane rotation by θ, infinite at 90°. The 1 is the identity's, the scale of the
    states before: M = 1e-8 I has a condition number of 1 and yet leaves nothing of a float32 state
    beside the constant part.
    """
    rank, d_model = factors.A.shape
    if rank == 0:
        return 1.0
    if 2 * rank >= d_model:
        sizes = np.linalg.svd(factors.linear(np.eye(d_model)), compute_uv=False)
        largest, smallest = max(1.0, float(sizes[0])), float(sizes[-1])
    else:
        # Outside the span of A and B the map is the identity, with singular values of 1.
        span = np.linalg.qr(np.concatenate([factors.A, factors.B]).T)[0]
        inside = np.eye(span.shape[1]) + (factors.A @ span).T @ (factors.B @ span)
        sizes = np.linalg.svd(inside, compute_uv=False)
        largest, smallest = max(1.0, float(sizes[0])), min(1.0, float(sizes[-1]))
    return largest / smallest if smallest > 0 else math.inf


def inverse(factors: Factors) -> Factors:
    """h = (h' - b) M⁻¹ with M⁻¹ = I - Aᵀ(I + BAᵀ)⁻¹B (Woodbury), of the same rank.

    Raises numpy.linalg.LinAlgError where I + BAᵀ is singular; ask ``condition`` first.
    """
    small = np.eye(len(factors.A)) + factors.B @ factors.A.T
    b = factors.constant
    up = np.asarray(-np.linalg.solve(small, factors.B), np.float64)
    return Factors(factors.A, -factors.A @ b, up, -b)


def power(factors: Factors, exponent: float) -> Factors:
    """The real power T^t of the affine map T, by principal logarithms; T^-1 is the inverse.

    T acts linearly on (h, 1) as I + ÂᵀB̂ of rank r + 1, so T^t = I + Âᵀ f(N) B̂ with N = B̂Âᵀ and
    f(N) = ((I + N)^t - I) / N, the corner of [[I + N, I], [0, I]]^t (Higham, Functions of Matrices,
    2008). Whole powers exist for every T, negative ones where it is invertible.

    Raises ValueError where an eigenvalue of T is zero or negative and t is not a whole number: no
    real power exists, or none is the principal one; and for a negative t where the condition of T
    or of T^-t exceeds 10⁴, the limit of ``Operator.inverse``.
    """
    from scipy.linalg import fractional_matrix_power

    if exponent < 0:
        _require_invertible(factors, exponent)
    rank = len(factors.A)
    small = np.zeros((rank + 1, rank + 1))
    small[:rank, :rank] = factors.B @ factors.A.T
    small[rank, :rank] = factors.c @ factors.A.T
    # Its last column is zero: no row of B̂ reaches the constant 1.
    eye = np.eye(rank + 1)
    block = np.block([[eye + small, eye], [np.zeros_like(eye), eye]])
    if float(exponent).is_integer():
        corner = np.linalg.matrix_power(block, int(exponent))[: rank + 1, rank + 1 :]
    else:
        _require_real_power(eye + small, exponent)
        corner = np.real(fractional_matrix_power(block, exponent))[: rank + 1, rank + 1 :]
    inner, outer = corner[:rank], corner[rank]
    return Factors(
        A=factors.A,
        a0=factors.a0,
        B=inner[:, :rank] @ factors.B + np.outer(inner[:, rank], factors.c),
        c=outer[:rank] @ factors.B + outer[rank] * factors.c,
    )


def _require_invertible(factors: Factors, exponent: float) -> None:
    """Of T and of T^-t: a map that can be undone once need not be so five times."""
    found = condition(factors)
    if found <= MAX_CONDITION:
        found = max(found, condition(power(factors, -exponent)))
    if not found <= MAX_CONDITION:
        message = (
            f"[power] expected an invertible map for the exponent {exponent:g}, got a condition of "
            f"{found:.1e}, above {MAX_CONDITION:g}; lower the angle or the strength, or use a "
            f"positive exponent"
        )
        raise ValueError(message)


def _require_real_power(small: Array, exponent: float) -> None:
    values = np.linalg.eigvals(small)
    tolerance = _NEGATIVE * max(1.0, float(np.abs(values).max()))
    worst = values[(np.abs(values.imag) <= tolerance) & (values.real <= tolerance)]
    if worst.size:
        message = (
            f"[power] expected a map without eigenvalues on the negative axis for the exponent "
            f"{exponent:g}, got {float(worst.real.min()):.3g}; it has whole powers only"
        )
        raise ValueError(message)
