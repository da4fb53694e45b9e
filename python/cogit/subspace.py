"""The contrastive subspace at one layer: where the two classes differ, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import __version__, artefact
from cogit.activations import Activations
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.extractors import contrastive_pca as contrastive_pca  # part of this module's interface
from cogit.extractors import eigenvalue_weights, extract, registered, span_basis
from cogit.extractors.base import MIN_SEPARATION, mean_difference_of, typical_norm
from cogit.identity import ModelIdentity

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from cogit.extractors import Extraction, WeightMethod

    Rows = NDArray[np.float64]

_KIND = "subspace"
# Which methods find their first column as the mean difference, and which rank further columns
# without a background.
_KEEPS_MEAN_DIFFERENCE = ("contrastive_pca", "mean_difference")
_NO_BACKGROUND = ("mean_difference", "pca")


@dataclass(frozen=True)
class Subspace:
    """Mean, orthonormal basis and scale of a contrast at one block's end.

    mean: (d_model,) the mean of the two class means.
    basis: (d_model, 2k) orthonormal; the first column is the method's direction, by default the
    normalised mean difference, and points from negative to positive.
    half_separation: half the distance of the class means along the first column, in units of the
    residual stream.
    spectrum: (2k - 1,) eigenvalues of the further columns, falling.
    positive, negative: (pair, 2k) coordinates of the recorded states, for the fits.
    residual_norm: the mean norm of a recorded state, to express a change relative to it.
    weights: (2k,) of sum 1, how much each column counts, or None where not asked for.
    lineage: how and of what it was made, JSON.
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
    weights: NDArray[np.float64] | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def direction(self) -> NDArray[np.float64]:
        """The first column: the unit direction from negative to positive. (d_model,)"""
        return np.asarray(self.basis[:, 0])

    @property
    def steering_vector(self) -> NDArray[np.float64]:
        """Half the class separation along the direction, by default half the difference of the
        class means. (d_model,)
        """
        return self.half_separation * self.direction

    @property
    def content_hash(self) -> str:
        """SHA-256 of all that is saved but the version."""
        tensors, metadata = self._parts()
        del metadata["cogit_version"]
        return artefact.content_hash(tensors, metadata)

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file."""
        return artefact.write(path, _KIND, *self._parts())

    @classmethod
    def load(cls, path: str | Path) -> Subspace:
        """Read a file written by ``save``; ArtefactError names what is wrong with another."""
        tensors, data = artefact.read(path, _KIND)
        try:
            found = cls(
                layer=entry(data, "layer", int),
                half_separation=entry(data, "half_separation", float),
                residual_norm=entry(data, "residual_norm", float),
                identity=ModelIdentity.from_json(entry(data, "model", dict)),
                weights=_doubles(tensors, "weights", 1) if "weights" in tensors else None,
                lineage=entry(data, "lineage", dict),
                **{name: _doubles(tensors, name, ndim) for name, ndim in _TENSORS.items()},
            )
            _require_consistent(found)
        except (KeyError, TypeError, ValueError) as error:
            message = f"[load] expected a subspace in {path}, got {error}"
            raise ArtefactError(message) from error
        return found

    def _parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        tensors: dict[str, Any] = {name: getattr(self, name) for name in _TENSORS}
        if self.weights is not None:
            tensors["weights"] = self.weights
        return tensors, {
            "layer": int(self.layer),
            "half_separation": float(self.half_separation),
            "residual_norm": float(self.residual_norm),
            "model": self.identity.to_json(),
            "lineage": dict(self.lineage),
            "cogit_version": __version__,
        }


_TENSORS = {"mean": 1, "basis": 2, "spectrum": 1, "positive": 2, "negative": 2}


def fit_subspace(
    activations: Activations,
    layer: int,
    *,
    k: int = 4,
    method: str = "contrastive_pca",
    alpha: float = 1.0,
    protected: ArrayLike | None = None,
    weights: WeightMethod | None = None,
    temperature: float = 1.0,
    options: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> Subspace:
    """Fit the contrastive subspace of 2k real dimensions (k complex ones) at one block.

    method: an extractor by name. The first column is the mean difference for contrastive_pca and
    mean_difference, and the direction that the method finds for any other (pca, probe, ensemble),
    turned towards the positive class. ``half_separation`` is measured along it, so that the
    operators push as far as the classes are apart in that direction.

    The further columns are the contrastive principal components of the paired differences against
    the pairs' common variation, sought where neither the first column nor a protected direction
    exists. alpha weighs the common variation; pca and mean_difference have none (alpha 0).

    protected: (d_model,) or (p, d_model) directions to which every column is made orthogonal.
    weights: how much each column counts by what it explains, see ``eigenvalue_weights``, with its
    temperature; kept beside the basis, which stays orthonormal. options: the extractor's own.
    strict: raise where the extractor fails, instead of the mean difference, a RuntimeWarning and
    ``fallback`` in the lineage.

    Raises ValueError when the class means coincide along the first column, when there are too few
    pairs, for a method or weights that are not there, a direction inside the span of the protected
    ones, and an alpha given to a method without one; TypeError for options that a method lacks.
    """
    if method not in registered():
        message = f"[subspace] expected a method among {', '.join(registered())}, got {method!r}"
        raise ValueError(message)
    if method in _NO_BACKGROUND and alpha != 1.0:
        message = f"[subspace] expected no alpha with {method}, which has no background"
        raise ValueError(message)
    positive, negative = (x.astype(np.float64) for x in activations.at(layer))
    clear_of = None if protected is None else span_basis(protected)
    _require_room(positive, k, 0 if clear_of is None else len(clear_of))
    first = "mean_difference" if method in _KEEPS_MEAN_DIFFERENCE else method
    _require_apart(positive, negative, layer)
    found = extract(
        positive, negative, first, protected=clear_of, strict=strict, **dict(options or {})
    )
    direction = found.direction
    separation = float(mean_difference_of(positive, negative) @ direction)
    residual_norm = typical_norm(positive, negative)
    if not separation > MIN_SEPARATION * residual_norm:
        message = (
            f"[subspace] expected two classes that differ along the direction of {method} at block "
            f"{layer}, got {separation:.1e} between their means; use another method or block"
        )
        raise ValueError(message)
    background = 0.0 if method in _NO_BACKGROUND else alpha
    taken = direction[None] if clear_of is None else np.concatenate([direction[None], clear_of])
    spectrum, further = _further_columns(positive, negative, background, taken, 2 * k - 1)
    basis = np.column_stack([direction, further.T])
    counts = None
    if weights is not None:
        explained = _contrast_along(direction, positive, negative, background)
        counts = eigenvalue_weights(
            np.append(explained, spectrum), weights, temperature=temperature
        )
    elif temperature != 1.0:
        message = "[subspace] expected a temperature with weights only, got one without"
        raise ValueError(message)
    mean = (positive.mean(axis=0) + negative.mean(axis=0)) / 2
    return Subspace(
        layer=layer,
        mean=mean,
        basis=basis,
        half_separation=separation / 2,
        spectrum=spectrum,
        positive=(positive - mean) @ basis,
        negative=(negative - mean) @ basis,
        residual_norm=residual_norm,
        identity=activations.identity,
        weights=counts,
        lineage={
            "method": method,
            "alpha": float(background),
            "n_pairs": len(positive),
            "n_protected": 0 if clear_of is None else len(clear_of),
            "weights": weights,
            "temperature": float(temperature),
            **_found(found),
            **_source(activations, layer),
        },
    )


def _require_room(states: Rows, k: int, n_protected: int) -> None:
    n_pairs, d_model = states.shape
    most = min(n_pairs, (d_model - n_protected) // 2)
    if not 1 <= k <= most:
        message = (
            f"[subspace] expected 1 <= k <= {most} for {n_pairs} pairs of width {d_model}"
            f"{f' and {n_protected} protected dimensions' if n_protected else ''}, got {k}"
        )
        raise ValueError(message)


def _require_apart(positive: Rows, negative: Rows, layer: int) -> None:
    length = float(np.linalg.norm(mean_difference_of(positive, negative)))
    if length <= MIN_SEPARATION * max(typical_norm(positive, negative), 1e-30):
        message = (
            f"[subspace] expected two classes with different means at block {layer}, got a "
            f"mean difference of zero norm ({length:.1e}); use other pairs or another block"
        )
        raise ValueError(message)


def _further_columns(
    positive: Rows, negative: Rows, alpha: float, taken: Rows, n_columns: int
) -> tuple[Rows, Rows]:
    """Eigenvalues (m,), falling, and orthonormal rows (m, d_model) orthogonal to those taken.

    They are sought where the rows taken do not exist: merely projected out, these would come back
    as components, with eigenvalues of zero.
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
    found = vectors.T[:n_columns]
    for mirror in reversed(mirrors):
        found = _reflect(np.pad(found, ((0, 0), (1, 0))), mirror)
    return values[:n_columns], found


def _contrast_along(direction: Rows, positive: Rows, negative: Rows, alpha: float) -> float:
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


def _found(found: Extraction) -> dict[str, Any]:
    """What the first column's extraction says of itself."""
    return {
        "angle_to_mean_difference": found.angle_to_mean_difference,
        "oriented": found.oriented,
        "fallback": found.fallback,
        "reason": found.reason,
        "extractor": dict(found.details),
    }


def _source(activations: Activations, layer: int) -> dict[str, Any]:
    """Which states it was made from; the same states in another container have the same hash."""
    positive, negative = activations.at(layer)
    return {
        "hook_point": getattr(activations, "hook_point", "resid_post"),
        "activations": artefact.content_hash(
            {"positive": positive, "negative": negative},
            {"layer": int(layer), "model": activations.identity.to_json()},
        ),
    }


def _doubles(tensors: Mapping[str, NDArray[Any]], name: str, ndim: int) -> Rows:
    value = tensors[name]
    if value.ndim != ndim or not np.issubdtype(value.dtype, np.floating):
        message = f"{name} of shape {value.shape} and type {value.dtype}"
        raise ValueError(message)
    return value.astype(np.float64)


def _require_consistent(found: Subspace) -> None:
    """ValueError for parts that are no subspace of that model together."""
    width, columns = found.basis.shape
    n_pairs = len(found.positive)
    shapes = {
        "mean": (found.mean.shape, (found.identity.d_model,)),
        "basis": (found.basis.shape, (found.identity.d_model, columns)),
        "spectrum": (found.spectrum.shape, (columns - 1,)),
        "positive": (found.positive.shape, (n_pairs, columns)),
        "negative": (found.negative.shape, (n_pairs, columns)),
        "weights": ((columns,) if found.weights is None else found.weights.shape, (columns,)),
    }
    for name, (shape, expected) in shapes.items():
        if shape != expected:
            message = f"{name} of shape {shape} instead of {expected}"
            raise ValueError(message)
    if columns % 2 or not 2 <= columns <= width or not n_pairs:
        message = f"{columns} columns of width {width} and {n_pairs} pairs"
        raise ValueError(message)
    # 1e-6: float32 files hold orthonormal columns to about 1e-7.
    if not np.allclose(found.basis.T @ found.basis, np.eye(columns), atol=1e-6):
        message = "a basis whose columns are not orthonormal"
        raise ValueError(message)
    if not (0 <= found.layer < found.identity.n_layers):
        message = f"block {found.layer} of {found.identity.n_layers}"
        raise ValueError(message)
    if found.half_separation <= 0 or found.residual_norm <= 0:
        message = f"a separation of {found.half_separation} and norms of {found.residual_norm}"
        raise ValueError(message)
