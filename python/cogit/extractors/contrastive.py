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


def contrast_outside(
    positive: Rows, negative: Rows, alpha: float, taken: Rows, *, n_components: int
) -> tuple[Rows, Rows]:
    """The same contrast in the complement of directions that are taken.

    taken: (t, d_model) orthonormal rows. Returns eigenvalues (m,), falling, and orthonormal rows
    (m, d_model) orthogonal to those taken. They are sought where the rows taken do not exist:
    merely projected out, these would come back as components, with eigenvalues of zero.
    """
    difference, common = positive - negative, (positive + negative) / 2
    common -= common.mean(axis=0)
    mirrors = []
    for index in range(len(taken)):
        mirror = _mirror(taken[index])
        difference, common, taken = (
            _reflect(rows, mirror)[:, 1:] for rows in (difference, common, taken)
        )
        mirrors.append(mirror)
    values, vectors = contrastive_pca(difference, common, alpha)
    found = vectors.T[:n_components]
    for mirror in reversed(mirrors):
        found = _reflect(np.pad(found, ((0, 0), (1, 0))), mirror)
    return values[:n_components], found


def contrast_along(direction: Rows, positive: Rows, negative: Rows, alpha: float) -> float:
    """What the contrast gives along one direction, to compare with the further eigenvalues."""
    within = (positive - negative) @ direction
    return float((within**2).mean() - alpha * ((positive + negative) / 2 @ direction).var())


def _mirror(direction: Rows) -> Rows:
    """The normal of the plane whose reflection carries a unit vector to the first axis."""
    normal = direction.copy()
    normal[0] += np.copysign(1.0, direction[0])
    return np.asarray(normal / np.linalg.norm(normal))


def _reflect(rows: Rows, mirror: Rows) -> Rows:
    return rows - 2.0 * np.outer(rows @ mirror, mirror)
