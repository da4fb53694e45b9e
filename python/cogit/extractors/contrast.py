"""Contrastive PCA without the d x d matrix: eigenpairs of FᵀF/n_f - α GᵀG/n_g from the rows.

Written once for NumPy arrays and torch tensors: what both call by the same name is used, so that
tensors are computed where they lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

# Squared singular values above this part of the largest are clear in a Gram matrix in float64.
_CLEAR = 1e-12
_EPS = float(np.finfo(np.float64).eps)


@overload
def contrastive_pca(
    foreground: NDArray[np.floating[Any]],
    background: NDArray[np.floating[Any]],
    alpha: float = 1.0,
    *,
    n_components: int | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...


@overload
def contrastive_pca(
    foreground: torch.Tensor,
    background: torch.Tensor,
    alpha: float = 1.0,
    *,
    n_components: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]: ...


def contrastive_pca(
    foreground: Any, background: Any, alpha: float = 1.0, *, n_components: int | None = None
) -> tuple[Any, Any]:
    """Eigenpairs of FᵀF/n_f - α GᵀG/n_g without forming the d x d matrix; rows are samples.

    foreground: (n_f, d_model) or, for a stack, (layer, n_f, d_model), of any float dtype; a NumPy
    array, or a torch tensor on any device that has float64.
    background: (n_g, d_model) or (layer, n_g, d_model), of the same library and device.
    alpha: the weight of the background, zero or more.
    n_components: how many eigenpairs, m, the largest first; None gives min(d_model, n_f + n_g).

    Returns eigenvalues (m,), falling, and orthonormal eigenvectors (d_model, m), both float64; for
    a stack (layer, m) and (layer, d_model, m); tensors on the device of the input. Rows are used as
    they come: centre them first where a covariance is meant. No gradients are recorded.

    Exact: the matrix has rank at most n_f + n_g, so an orthonormal basis of the rows and one small
    eigenproblem give every non-zero eigenpair (Abid et al. 2018 define the contrast; the rest is
    ours). The basis comes from the rows' Gram matrix with a second pass (CholeskyQR2, Fukaya et al.
    2014): a few products, where the threads of a Householder QR meet at every column and stall on
    shared cores. Layers are taken one after another: beside the result, the peak is about four
    times the float64 rows of one layer: 32 (n_f + n_g) d_model bytes.

    Raises ValueError for shapes that do not fit, values that are not finite, a negative alpha, and
    n_components outside 1..min(d_model, n_f + n_g); TypeError for inputs of two libraries, devices
    or without a float dtype; numpy.linalg.LinAlgError, a ValueError, where an eigenproblem does not
    converge.
    """
    xp = _namespace(foreground, background)
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
    if xp is not np:  # a graph of every step would be kept with the results
        foreground, background = foreground.detach(), background.detach()
    stacked = foreground.ndim == 3
    values = _empty(xp, (n_layers, kept), foreground)
    vectors = _empty(xp, (n_layers, d_model, kept), foreground)
    for layer in range(n_layers):
        fore, back = (x[layer] if stacked else x for x in (foreground, background))
        try:
            values[layer], vectors[layer] = _leading_contrast(xp, fore, back, alpha, kept)
        except (np.linalg.LinAlgError, _torch_error(xp)) as error:
            message = (
                f"[contrastive_pca] expected an eigenproblem that converges, got "
                f"{' '.join(str(error).split())[:120]!r}; record the states again"
            )
            raise np.linalg.LinAlgError(message) from error
    return (values, vectors) if stacked else (values[0], vectors[0])


def _namespace(first: Any, second: Any) -> Any:
    """numpy or torch, whichever both inputs are of; TypeError otherwise."""
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        if all(np.issubdtype(x.dtype, np.floating) for x in (first, second)):
            return np
        found = f"{first.dtype} and {second.dtype}"
    elif type(first).__module__ == type(second).__module__ == "torch":
        import torch

        if first.device != second.device:
            found = f"tensors on {first.device} and {second.device}"
        elif first.device.type == "mps":
            found = "tensors on mps, which has no float64; move them to the CPU"
        elif first.is_floating_point() and second.is_floating_point():
            return torch
        else:
            found = f"{first.dtype} and {second.dtype}"
    else:
        found = f"{type(first).__name__} and {type(second).__name__}"
    message = (
        f"[contrastive_pca] expected two float arrays, or two float tensors on one device, "
        f"got {found}"
    )
    raise TypeError(message)


def _torch_error(xp: Any) -> type[Exception]:
    return np.linalg.LinAlgError if xp is np else xp.linalg.LinAlgError


def _empty(xp: Any, shape: tuple[int, ...], like: Any) -> Any:
    if xp is np:
        return np.empty(shape)
    return xp.empty(shape, dtype=xp.float64, device=like.device)


def _stack_shape(foreground: Any, background: Any) -> tuple[int, int, int]:
    """(layers, all samples, d_model) of two stacks that fit; one layer where there is no axis."""
    first, second = tuple(foreground.shape), tuple(background.shape)
    fits = len(first) == len(second) and (*first[:-2], first[-1:]) == (*second[:-2], second[-1:])
    if len(first) not in (2, 3) or not fits or 0 in first + second:
        message = (
            f"[contrastive_pca] expected two arrays (n, d_model) or (layer, n, d_model) that "
            f"differ in n only, got {first} and {second}"
        )
        raise ValueError(message)
    return first[0] if len(first) == 3 else 1, first[-2] + second[-2], first[-1]


def _leading_contrast(xp: Any, fore: Any, back: Any, alpha: float, kept: int) -> tuple[Any, Any]:
    """The largest eigenvalues (kept,) of one layer, falling, and their vectors (d_model, kept)."""
    n_fore, n_back = len(fore), len(back)
    rows = _empty(xp, (n_fore + n_back, fore.shape[1]), fore)
    rows[:n_fore], rows[n_fore:] = fore, back
    rows[:n_fore] *= n_fore**-0.5
    rows[n_fore:] *= (alpha / n_back) ** 0.5
    if not bool(xp.isfinite(rows).all()):
        message = "[contrastive_pca] expected finite states, got NaN or infinity; record them again"
        raise ValueError(message)
    signs = _empty(xp, (len(rows),), fore)
    signs[:n_fore], signs[n_fore:] = 1.0, -1.0
    if len(rows) >= rows.shape[1]:
        values, vectors = xp.linalg.eigh((rows.T * signs) @ rows)
        return xp.flip(values, (0,))[:kept], xp.flip(vectors, (1,))[:, :kept]
    basis = _row_basis(xp, rows)
    r = basis @ rows.T
    values, vectors = xp.linalg.eigh((r * signs) @ r.T)
    return xp.flip(values, (0,))[:kept], basis.T @ xp.flip(vectors, (1,))[:, :kept]


def _row_basis(xp: Any, rows: Any) -> Any:
    """Orthonormal rows (n, d_model) whose span holds these n < d_model rows, of whatever rank."""
    squares, mixing = xp.linalg.eigh(rows @ rows.T)
    clear = squares > _CLEAR * squares[-1]
    basis = (mixing[:, clear] / xp.sqrt(squares[clear])).T @ rows
    # One pass leaves up to 1e-3 of orthogonality, the second what rounding leaves.
    basis = xp.linalg.inv(xp.linalg.cholesky(basis @ basis.T)) @ basis
    if bool(clear.all()):
        return basis
    # The other combinations are few: where rows are centred, one a class. What they hold beyond
    # the basis counts, since it meets large rows in the contrast; noise of the size of the rounding
    # chooses directions where they hold nothing.
    rest = mixing[:, ~clear].T @ rows
    rounding = _EPS * xp.sqrt(squares[-1] / rows.shape[1])
    noise = np.random.default_rng(0).standard_normal(tuple(rest.shape))
    rest = rest + (noise if xp is np else xp.as_tensor(noise, device=rows.device)) * rounding
    for _ in range(2):
        rest = xp.linalg.qr((rest - (rest @ basis.T) @ basis).T)[0].T
    return xp.concatenate([basis, rest])
