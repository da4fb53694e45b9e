"""The contrastive subspace at one layer: where the two classes differ, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cogit.activations import Activations
from cogit.identity import ModelIdentity

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_SEPARATION = 1e-6


@dataclass(frozen=True)
class Subspace:
    """Mean, orthonormal basis and scale of a contrast at one block's end.

    mean: (d_model,) the mean of the two class means.
    basis: (d_model, 2k) orthonormal; the first column is the normalised mean difference.
    half_separation: half the distance of the class means, in units of the residual stream.
    spectrum: (2k - 1,) eigenvalues of the further columns, falling.
    positive, negative: (pair, 2k) coordinates of the recorded states, for the fits.
    residual_norm: the mean norm of a recorded state, to express a change relative to it.
    """

    layer: int
    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    half_separation: float
    spectrum: NDArray[np.float64]
    positive: NDArray[np.float64]
    negative: NDArray[np.float64]
    residual_norm: float
    identity: ModelIdentity

    @property
    def direction(self) -> NDArray[np.float64]:
        """The unit mean-difference direction, from negative to positive. (d_model,)"""
        return np.asarray(self.basis[:, 0])

    @property
    def steering_vector(self) -> NDArray[np.float64]:
        """Half the difference of the class means. (d_model,)"""
        return self.half_separation * self.direction


def contrastive_pca(
    foreground: NDArray[np.float64],
    background: NDArray[np.float64],
    alpha: float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenpairs of FᵀF/n_f - α GᵀG/n_g without forming the d x d matrix; rows are samples.

    Exact: the matrix has rank at most n_f + n_g, so a QR of the stacked rows and one small
    eigenproblem give every non-zero eigenpair (Abid et al. 2018 define the contrast; the QR is
    ours). Returns eigenvalues (m,), falling, and eigenvectors (d_model, m). Rows are used as they
    come: centre them first where a covariance is meant.
    """
    n_fore, n_back = len(foreground), len(background)
    stacked = np.concatenate(
        [foreground / np.sqrt(n_fore), background * np.sqrt(alpha / n_back)]
    ).T  # (d_model, n_fore + n_back)
    signs = np.concatenate([np.ones(n_fore), -np.ones(n_back)])
    q, r = np.linalg.qr(stacked)
    values, vectors = np.linalg.eigh((r * signs) @ r.T)
    return values[::-1].copy(), (q @ vectors)[:, ::-1].copy()


def fit_subspace(activations: Activations, layer: int, *, k: int = 4) -> Subspace:
    """Fit the contrastive subspace of 2k real dimensions (k complex ones) at one block.

    The first column is the mean difference. The others are the contrastive principal components
    of the paired differences against the pairs' common variation, the mean difference projected
    out of both. Raises ValueError when the class means coincide or there are too few pairs.
    """
    positive, negative = (x.astype(np.float64) for x in activations.at(layer))
    n_pairs, d_model = positive.shape
    if not 1 <= k <= min(n_pairs, d_model // 2):
        message = (
            f"[subspace] expected 1 <= k <= {min(n_pairs, d_model // 2)} for {n_pairs} pairs of "
            f"width {d_model}, got {k}"
        )
        raise ValueError(message)
    centre_positive, centre_negative = positive.mean(axis=0), negative.mean(axis=0)
    mean = (centre_positive + centre_negative) / 2
    difference = centre_positive - centre_negative
    length = float(np.linalg.norm(difference))
    residual_norm = float(np.linalg.norm(np.concatenate([positive, negative]), axis=1).mean())
    if length <= _MIN_SEPARATION * max(residual_norm, 1e-30):
        message = (
            f"[subspace] expected two classes with different means at block {layer}, got a "
            f"mean difference of zero norm ({length:.1e}); use other pairs or another block"
        )
        raise ValueError(message)
    direction = difference / length
    common = (positive + negative) / 2
    # Components are sought where the mean difference does not exist: merely projected out, it would
    # come back as one of them, with an eigenvalue of zero.
    mirror = _mirror(direction)
    values, vectors = contrastive_pca(
        _reflect(positive - negative, mirror)[:, 1:],
        _reflect(common - common.mean(axis=0), mirror)[:, 1:],
    )
    spectrum, further = values[: 2 * k - 1], vectors.T[: 2 * k - 1]
    components = _reflect(np.pad(further, ((0, 0), (1, 0))), mirror)  # (2k - 1, d_model)
    basis = np.column_stack([direction, components.T])
    return Subspace(
        layer=layer,
        mean=mean,
        basis=basis,
        half_separation=length / 2,
        spectrum=spectrum,
        positive=(positive - mean) @ basis,
        negative=(negative - mean) @ basis,
        residual_norm=residual_norm,
        identity=activations.identity,
    )


def _mirror(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """The normal of the plane whose reflection carries a unit vector to the first axis."""
    normal = direction.copy()
    normal[0] += np.copysign(1.0, direction[0])
    return np.asarray(normal / np.linalg.norm(normal))


def _reflect(rows: NDArray[np.float64], mirror: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows - 2.0 * np.outer(rows @ mirror, mirror)
