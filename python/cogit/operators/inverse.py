"""The exact inverse of what an operator does to the residual stream at one strength.

Without a norm restore it is affine again. With one, y = t (h M + b) and |y| = |h|: the scalar is
solved for each token. With s = 1/t, p = y M⁻¹ and q = b M⁻¹, h = s p - q and |s p - q| = |y|, a
quadratic in s. -q is the state that the affine sends to zero. Where |q| < |y| the quadratic has one
positive root; otherwise two states of the same norm are sent to the same y and none is the inverse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cogit.operators import algebra
from cogit.operators.algebra import MAX_CONDITION, Factors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from cogit.affine import Affine


@dataclass(frozen=True)
class Inverse:
    """Undoes an affine, row by row.

    forward: what is undone. name: what to call it in errors. condition: of the linear part, beside
    the identity (``algebra.condition``); the relative error of a state grows by about this factor
    (1/cos θ for a plane rotation by θ).

    Raises ValueError where the condition exceeds 10⁴: a rotation by 90° is a clamp and a full
    ablation a projection; neither keeps a record of what was there.
    """

    forward: Affine
    name: str = "the affine"
    condition: float = field(init=False)
    back: Factors = field(init=False, repr=False)

    def __post_init__(self) -> None:
        factors = Factors.of(self.forward)
        found = algebra.condition(factors)
        if not found <= MAX_CONDITION:
            message = (
                f"[inverse] expected a map with a condition of at most {MAX_CONDITION:g}, got "
                f"{found:.1e} in {self.name}: a clamp or a full ablation removes what it would "
                f"have to give back; lower the angle or the strength"
            )
            raise ValueError(message)
        object.__setattr__(self, "condition", found)
        object.__setattr__(self, "back", algebra.inverse(factors))

    def apply(self, h: ArrayLike) -> NDArray[np.floating]:
        """The states before: (..., d_model), float32 as float32, all else as float64.

        Computed in float64 throughout. Raises ValueError for another width, and with a norm restore
        for rows that do not determine what they were (see ``determined``).
        """
        given = np.asarray(h)
        rows = self._rows(given)
        if self.forward.restore:
            before, determined = self._restored(rows)
            if not determined.all():
                message = (
                    f"[inverse] expected rows that determine what they were, got "
                    f"{int((~determined).sum())} of {determined.size} whose norm is too small "
                    f"beside the constant part of {self.name}; ask determined() first"
                )
                raise ValueError(message)
        else:
            before = self.back.linear(rows) + self.back.constant
        return before.astype(np.float32 if given.dtype == np.float32 else np.float64)

    def determined(self, h: ArrayLike) -> NDArray[np.bool_]:
        """Which rows (...,) have exactly one state before them, found within the condition limit.

        All of them without a norm restore, or where the constant part of the affine is zero.
        """
        rows = self._rows(np.asarray(h))
        if not self.forward.restore:
            return np.ones(rows.shape[:-1], np.bool_)
        return self._restored(rows)[1]

    def _rows(self, h: NDArray[np.floating]) -> NDArray[np.float64]:
        if h.ndim == 0 or h.shape[-1] != self.forward.d_model:
            message = (
                f"[inverse] expected states of width {self.forward.d_model}, got shape {h.shape}"
            )
            raise ValueError(message)
        return h.astype(np.float64)

    def _restored(self, y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """States before, and which rows determine them. The root is computed without cancelling."""
        p = self.back.linear(y)
        q = -self.back.constant  # the inverse sends 0 to -b M⁻¹
        along, size = p @ q, (p * p).sum(axis=-1)
        gap = (y * y).sum(axis=-1) - q @ q
        root = np.sqrt(np.maximum(along * along + size * gap, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.where(along >= 0, (along + root) / size, gap / (root - along))
        # A scale near 0 is a state that the affine all but sent to zero: its direction is rounding.
        determined = (gap > 0) & (scale * MAX_CONDITION >= self.condition)
        if not q.any():
            determined |= size == 0.0  # zero stays zero
        scale = np.where(np.isfinite(scale), scale, 0.0)
        return scale[..., None] * p - q, determined
