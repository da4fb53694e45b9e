"""Contrastive PCA: what varies between the texts of a pair and not among pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cogit.extractors.base import Extraction, measured, register
from cogit.extractors.contrast import contrastive_pca
from cogit.extractors.pca import require_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.float64]


@register("contrastive_pca")
def contrastive(
    positive: Rows, negative: Rows, /, *, alpha: float = 1.0, n_components: int = 1
) -> Extraction:
    """Leading eigenvectors of DᵀD/n - α cov(M): paired differences D, pair means M.

    positive, negative: (pair, d_model) float64. alpha: the weight of the common variation; 0 is
    ``pca``. n_components: how many, 1..min(2 pair, d_model). spectrum: eigenvalues, falling;
    negative where pairs vary more in common than within.

    Abid et al. 2018, with the pairs' common variation as background. The differences are not
    centred, so the mean difference is part of what is found.
    """
    common = (positive + negative) / 2
    require_components("contrastive_pca", n_components, min(2 * len(common), common.shape[1]))
    values, vectors = contrastive_pca(
        positive - negative, common - common.mean(axis=0), alpha, n_components=n_components
    )
    details = {"alpha": float(alpha)}
    return measured("contrastive_pca", vectors.T, values, positive, negative, details)
