"""Directions kept clear of others that must not be touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Directions from float32 states hold about 1e-7 of noise: of a residue below this, fewer than three
# digits are signal.
MIN_RESIDUE = 1e-4


def orthogonalise(directions: ArrayLike, protected: ArrayLike) -> NDArray[np.float64]:
    """Unit directions without what they share with the span of the protected ones.

    directions: (d_model,) or (m, d_model), of any length above zero. protected: (d_model,) or
    (p, d_model), in any lengths and angles to each other, dependent ones included.
    Returns float64 of the shape of ``directions``; rows are not made orthogonal to each other.

    v - P v with P the projection on the whole span, from an orthonormal basis of it. Taking one
    protected direction out after another, as is often done, leaves a part of the first wherever
    they are not orthogonal.

    Raises ValueError where less than 1e-4 of a direction's length is left.
    """
    rows = _rows("directions", directions)
    basis = span_basis(protected)
    if basis.shape[1] != rows.shape[1]:
        message = (
            f"[protect] expected protected directions of width {rows.shape[1]}, got "
            f"{basis.shape[1]}"
        )
        raise ValueError(message)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    residue = unit - (unit @ basis.T) @ basis
    lengths = np.linalg.norm(residue, axis=1, keepdims=True)
    if lengths.min() < MIN_RESIDUE:
        worst = int(lengths.argmin())
        message = (
            f"[protect] expected directions outside the span of the protected ones, got one "
            f"(number {worst}) of which {lengths[worst, 0]:.1e} is left; protect less or use "
            f"another direction"
        )
        raise ValueError(message)
    residue /= lengths
    # A short residue carries the rounding of a long vector: once more, as Gram-Schmidt needs it.
    residue -= (residue @ basis.T) @ basis
    residue /= np.linalg.norm(residue, axis=1, keepdims=True)
    return np.asarray(residue.reshape(np.shape(directions)))


def span_basis(protected: ArrayLike) -> NDArray[np.float64]:
    """Orthonormal rows (rank, d_model) of the span of directions (d_model,) or (p, d_model)."""
    rows = _rows("protected directions", protected)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, singular, vectors = np.linalg.svd(unit, full_matrices=False)
    tolerance = max(unit.shape) * np.finfo(np.float64).eps
    return np.asarray(vectors[singular > tolerance * singular[0]])


def _rows(name: str, value: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(value, dtype=np.float64)
    if rows.ndim not in (1, 2) or rows.size == 0:
        message = f"[protect] expected {name} (d_model,) or (m, d_model), got {rows.shape}"
        raise ValueError(message)
    rows = np.atleast_2d(rows)
    if not np.isfinite(rows).all() or not np.linalg.norm(rows, axis=1).all():
        message = f"[protect] expected finite {name} of a length above zero, got others"
        raise ValueError(message)
    return rows
