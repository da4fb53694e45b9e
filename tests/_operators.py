"""What the tests of inverses, powers and compositions share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cogit import reference
from cogit.operators import Operator, registered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

KINDS = list(registered())
# Folds are float32, and a product of two of them doubles the rounding.
FOLDED = 64 * float(np.finfo(np.float32).eps)
# Strengths at which each kind's example has an inverse: an ablation at 1 has none.
INVERTIBLE = (-1.0, -0.4, 0.3, 0.7)
ANGLES = (15.0, 30.0, 45.0, 60.0, 75.0)


def bare(operator: Operator, strength: float, h: Array) -> Array:
    """The operator before any norm restore, in float64."""
    return reference.affine_apply(replace(operator.fold(strength), restore=False), h)


def relative(got: Array, expected: Array) -> float:
    """The largest error of a row, relative to the row."""
    error = np.linalg.norm(np.asarray(got, np.float64) - expected, axis=-1)
    return float((error / np.linalg.norm(expected, axis=-1)).max())
