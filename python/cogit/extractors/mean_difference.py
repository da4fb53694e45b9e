"""Mean difference: the line through the two class means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cogit.extractors.base import Extraction, measured, register, require_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]


@register("mean_difference")
def mean_difference(positive: Rows, negative: Rows, /) -> Extraction:
    """μ₊ - μ₋, normalised (Marks and Tegmark 2023; Rimsky et al. 2024 for matched pairs).

    positive, negative: (pair, d_model) float64. One direction, of spectrum 1. LinAlgError where the
    class means coincide.
    """
    difference = require_difference(positive, negative)
    direction = difference / np.linalg.norm(difference)
    return measured("mean_difference", direction[None], np.ones(1), positive, negative)
