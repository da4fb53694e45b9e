"""Matched states with a planted direction, for the tests of extractors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from _models import planted
from cogit import extractors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

METHODS = sorted(extractors.registered())


def states(n_pairs: int = 200, **options: Any) -> tuple[Array, Array]:
    """Both classes of ``planted`` in float64: (pair, d_model), the first axis planted."""
    activations = planted(n_pairs, **options)
    return activations.positive[0].astype(np.float64), activations.negative[0].astype(np.float64)


def shuffled(positive: Array, negative: Array, seed: int) -> tuple[Array, Array]:
    """The two texts of each pair exchanged by a coin."""
    swap = np.random.default_rng(seed).random(len(positive)) < 0.5
    return np.where(swap[:, None], negative, positive), np.where(swap[:, None], positive, negative)


def unit(rows: Array) -> Array:
    """Rows of length one."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))
