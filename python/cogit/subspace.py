"""The contrastive subspace at one layer: where the two classes differ, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.activations import Activations
from cogit.identity import ModelIdentity

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MIN_SEPARATION = 1e-6
# Squared singular values above this part of the largest are clear in a Gram matrix in float64.
_CLEAR = 1e-12


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
    foreground: NDArray[np.floating[Any]],
    background: NDArray[np.floating[Any]],
    alpha: float = 1.0,
    *,
    n_components: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenpairs of FᵀF/n_f - α GᵀG/n_g without forming the d x d matrix; rows are samples.

    foreground: (n_f, d_model) or, for a stack, (layer, n_f, d_model), of any float dtype.
    background: (n_g, d_model) or (layer, n_g, d_model).
    alpha: the weight of the background, zero or more.
    n_components: how many eigenpairs, m, the largest first; None gives min(d_model, n_f + n_g).

    Returns eigenvalues (m,), falling, and orthonormal eigenvectors (d_model, m), both float64; for
    a stack (layer, m) and (layer, d_model, m). Rows are used as they come: centre them first where
    a covariance is meant.

    Exact: the matrix has rank at most n_f + n_g, so an orthonormal basis of the rows and one small
    eigenproblem give every non-zero eigenpair (Abid et al. 2018 define the contrast; the rest is
    ours). The basis comes from the rows' Gram matrix with a second pass (CholeskyQR2, Fukaya et al.
    2014): a few products, where the threads of a Householder QR meet at every column and stall on
    shared cores. Layers are taken one after another: beside the result, the peak is about four
    times the float64 rows of one layer: 32 (n_f + n_g) d_model bytes.

    Raises ValueError for shapes that do not fit, values that are not finite, a negative alpha, and
    n_components outside 1..min(d_model, n_f + n_g).
    """
    n_layers, n_all, d_model = _stack_shape(foreground, background)
    most = min(d_model, n_all)
    kept = most if n_components is None else n_components
    if not 1 <= kept <= most:
        message = (
            f"[contrastive_pca] expected 1 <= n_components <= {most} for {n_all} samples of width "
            f"{d_model}, got {kept}"
        )
        raise ValueError(message)
    if not (alpha >= 0 and np.isfinite(alpha)):
        message = f"[contrastive_pca] expected a finite alpha of zero or more, got {alpha}"
        raise ValueError(message)
    stacked = foreground.ndim == 3
    values = np.empty((n_layers, kept))
    vectors = np.empty((n_layers, d_model, kept))
    for layer in range(n_layers):
        fore, back = (x[layer] if stacked else x for x in (foreground, background))
        values[layer], vectors[layer] = _leading_contrast(fore, back, alpha, kept)
    return (values, vectors) if stacked else (values[0], vectors[0])


def _stack_shape(
    foreground: NDArray[np.floating[Any]], background: NDArray[np.floating[Any]]
) -> tuple[int, int, int]:
    """(layers, all samples, d_model) of two stacks that fit; one layer where there is no axis."""
    first, second = foreground.shape, background.shape
    fits = len(first) == len(second) and (*first[:-2], first[-1:]) == (*second[:-2], second[-1:])
    if len(first) not in (2, 3) or not fits or 0 in first + second:
        message = (
            f"[contrastive_pca] expected two arrays (n, d_model) or (layer, n, d_model) that "
            f"differ in n only, got {first} and {second}"
        )
        raise ValueError(message)
    return first[0] if len(first) == 3 else 1, first[-2] + second[-2], first[-1]


def _leading_contrast(
    fore: NDArray[np.floating[Any]], back: NDArray[np.floating[Any]], alpha: float, kept: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest eigenvalues (kept,) of one layer, falling, and their vectors (d_model, kept)."""
    n_fore, n_back = len(fore), len(back)
    rows = np.empty((n_fore + n_back, fore.shape[1]))
    np.multiply(fore, 1 / np.sqrt(n_fore), out=rows[:n_fore], dtype=np.float64)
    np.multiply(back, np.sqrt(alpha / n_back), out=rows[n_fore:], dtype=np.float64)
    if not np.isfinite(rows).all():
        message = "[contrastive_pca] expected finite states, got NaN or infinity; record them again"
        raise ValueError(message)
    signs = np.concatenate([np.ones(n_fore), -np.ones(n_back)])
    if len(rows) >= rows.shape[1]:
        values, vectors = np.linalg.eigh((rows.T * signs) @ rows)
        return values[::-1][:kept], vectors[:, ::-1][:, :kept]
    basis = _row_basis(rows)
    r = basis @ rows.T
    values, vectors = np.linalg.eigh((r * signs) @ r.T)
    return values[::-1][:kept], basis.T @ vectors[:, ::-1][:, :kept]


def _row_basis(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthonormal rows (n, d_model) whose span holds these n < d_model rows, of whatever rank."""
    squares, mixing = np.linalg.eigh(rows @ rows.T)
    clear = squares > _CLEAR * squares[-1]
    basis = (mixing[:, clear] / np.sqrt(squares[clear])).T @ rows
    # One pass leaves up to 1e-3 of orthogonality, the second what rounding leaves.
    basis = np.linalg.inv(np.linalg.cholesky(basis @ basis.T)) @ basis
    if clear.all():
        return np.asarray(basis)
    # The other combinations are few: where rows are centred, one a class. What they hold beyond
    # the basis counts, since it meets large rows in the contrast; noise of the size of the rounding
    # chooses directions where they hold nothing.
    rest = mixing[:, ~clear].T @ rows
    rounding = np.finfo(np.float64).eps * np.sqrt(squares[-1] / rows.shape[1])
    rest += np.random.default_rng(0).standard_normal(rest.shape) * rounding
    for _ in range(2):
        rest = np.linalg.qr((rest - (rest @ basis.T) @ basis).T)[0].T
    return np.concatenate([basis, rest])


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
