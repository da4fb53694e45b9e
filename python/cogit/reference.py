"""Plain float64 definitions of what the compiled paths compute; the tests trust these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from cogit.affine import Affine


def affine_apply(
    affine: Affine, h: ArrayLike, strengths: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Apply an affine to residual-stream rows in float64.

    h: (..., d_model). strengths: (...,) multiplies the change of each row before the norm is
    restored; a row of strength 0 comes back as it was. Returns float64 of h's shape.
    """
    x = np.asarray(h, dtype=np.float64)
    down, up = affine.A.astype(np.float64), affine.B.astype(np.float64)
    change = (x @ down.T + affine.a0) @ up + affine.c
    if strengths is not None:
        change = change * np.asarray(strengths, dtype=np.float64)[..., None]
    y = x + change
    if affine.restore:
        before = np.linalg.norm(x, axis=-1, keepdims=True)
        after = np.linalg.norm(y, axis=-1, keepdims=True)
        unchanged = (y == x).all(axis=-1, keepdims=True) | (after == 0.0)
        y = y * np.where(unchanged, 1.0, before / np.where(unchanged, 1.0, after))
    if strengths is not None:
        off = np.asarray(strengths) == 0.0
        y[off] = x[off]
    return np.asarray(y)


def dense_apply(
    change: ArrayLike, psi: ArrayLike, a: float, b: float, *, normalise: bool
) -> NDArray[np.complex128]:
    """normalise(a·ψ + b·Dψ) in complex128. change: (q, q). psi: (..., q). A norm of 0 stays."""
    states = np.asarray(psi, dtype=np.complex128)
    result = a * states + b * (states @ np.asarray(change, dtype=np.complex128).T)
    if normalise:
        norm = np.linalg.norm(result, axis=-1, keepdims=True)
        result = result / np.where(norm == 0.0, 1.0, norm)
    return np.asarray(result)
