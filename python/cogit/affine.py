"""The one map that every operator folds to: a real low-rank affine with optional norm restore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cogit.aligned import aligned_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Affine:
    """h' = restore(h + (h Aᵀ + a0) B + c), with the strength already folded into B and c.

    A: (rank, d_model) float32, C-contiguous.  a0: (rank,).  B: (rank, d_model).  c: (d_model,).
    ``restore`` multiplies by |h| / |h'|, which is exactly 1 where h' equals h. Rank 0 is the
    additive vector c.

    Raises ValueError for shapes that do not fit and for values that are not finite.
    """

    A: NDArray[np.float32]
    a0: NDArray[np.float32]
    B: NDArray[np.float32]
    c: NDArray[np.float32]
    restore: bool = False

    def __post_init__(self) -> None:
        for name in ("A", "a0", "B", "c"):
            value = aligned_float32(getattr(self, name))
            if not np.isfinite(value).all():
                message = f"[Affine] expected finite values in {name}, got NaN or infinity"
                raise ValueError(message)
            object.__setattr__(self, name, value)
        rank, d_model = self.a0.size, self.c.size
        expected = {"A": (rank, d_model), "B": (rank, d_model), "a0": (rank,), "c": (d_model,)}
        for name, shape in expected.items():
            got = getattr(self, name).shape
            if got != shape:
                message = f"[Affine] expected {name} of shape {shape}, got {got}"
                raise ValueError(message)

    @classmethod
    def zero(cls, d_model: int, rank: int = 0, *, restore: bool = False) -> Affine:
        """The map that changes nothing, at a given rank."""
        wide = np.zeros((rank, d_model), np.float32)
        return cls(wide, np.zeros(rank, np.float32), wide, np.zeros(d_model, np.float32), restore)

    @property
    def rank(self) -> int:
        return int(self.a0.size)

    @property
    def d_model(self) -> int:
        return int(self.c.size)

    def is_zero(self) -> bool:
        """True where no residual stream can be changed by this map."""
        return not self.B.any() and not self.c.any()
