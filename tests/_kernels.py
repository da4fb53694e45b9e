"""What the kernel tests share: random affines, and an error bound that means something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cogit.affine import Affine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]


def make_affine(rng: np.random.Generator, d: int, rank: int, restore: bool = True) -> Affine:
    """A change about as long as unit-variance rows, so that no rounding error hides in another."""
    down = rng.normal(size=(rank, d)) / d**0.5
    up = rng.normal(size=(rank, d)) / max(rank, 1) ** 0.5
    bias, c = rng.normal(size=rank), rng.normal(size=d)
    as_float32 = [x.astype(np.float32) for x in (down, bias, up, c)]
    return Affine(as_float32[0], as_float32[1], as_float32[2], as_float32[3], restore)


def make_rows(rng: np.random.Generator, n: int, d: int) -> Array:
    return rng.normal(size=(n, d)).astype(np.float32)
