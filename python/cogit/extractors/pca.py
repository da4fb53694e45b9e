"""Principal components of the paired differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cogit.extractors.base import Extraction, measured, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]


@register("pca")
def pca(positive: Rows, negative: Rows, /, *, n_components: int = 1) -> Extraction:
    """Leading eigenvectors of DᵀD/n, D the paired differences (Zou et al. 2023).

    positive, negative: (pair, d_model) float64. n_components: how many, 1..min(pair, d_model).
    spectrum: their mean squared differences, falling.

    The differences are not centred. Representation engineering draws their signs, and repeng's
    ``pca_center`` takes both texts of a pair about their midpoint: either has mean zero by itself,
    and the same components as here. Centred once more, D would lose the mean difference.
    """
    difference = positive - negative
    most = min(difference.shape)
    require_components("pca", n_components, most)
    _, singular, vectors = np.linalg.svd(difference, full_matrices=False)
    spectrum = singular[:n_components] ** 2 / len(difference)
    if not spectrum[0] > 0:
        message = "[pca] expected paired texts with different states, got the same states twice"
        raise np.linalg.LinAlgError(message)
    return measured("pca", vectors[:n_components], spectrum, positive, negative)


def require_components(method: str, n_components: int, most: int) -> None:
    """ValueError unless 1 <= n_components <= most."""
    if not 1 <= n_components <= most:
        message = f"[{method}] expected 1 <= n_components <= {most}, got {n_components}"
        raise ValueError(message)
