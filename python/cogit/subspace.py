"""The contrastive subspace at one layer: where the two classes differ, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from cogit.extractors.contrastive import contrast_along, contrast_outside
from cogit.extractors.ensemble import MEMBERS
from cogit.hook_points import HookPoint
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
    """Mean, orthonormal basis and scale of a contrast at one hook point of a block.

    mean: (d_model,) the mean of the two class means.
    basis: (d_model, 2k) orthonormal; the first column is the method's direction, by default the
    normalised mean difference, and points from negative to positive.
    half_separation: half the distance of the class means along the first column, in units of the
    residual stream.
    spectrum: (2k - 1,) eigenvalues of the further columns, falling.
    positive, negative: (pair, 2k) coordinates of the recorded states, for the fits.
    residual_norm: the mean norm of a recorded state, to express a change relative to it.
    weights: (2k,) of sum 1, how much each column counts, or None where not asked for.
    lineage: how and of what it was made, JSON. hook_point: where in the block the states were read;
    operators act on ``resid_post``, see ``at_block_end``.
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
    hook_point: str = HookPoint.RESID_POST.value

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

    def require_block_end(self) -> None:
        """ValueError unless it is of ``resid_post``, where operators act."""
        if self.hook_point == HookPoint.RESID_POST:
            return
        if self.hook_point == HookPoint.RESID_PRE and self.layer > 0:
            message = (
                f"[fit] expected a subspace of resid_post, where operators act, got resid_pre of "
                f"block {self.layer}, which is resid_post of block {self.layer - 1}; record that, "
                f"or use Subspace.at_block_end()"
            )
            raise ValueError(message)
        message = (
            f"[fit] expected a subspace of resid_post, where operators act, got {self.hook_point} "
            f"of block {self.layer}; record resid_post, or use Subspace.at_block_end(assume=True) "
            f"if its states may stand for those"
        )
        raise ValueError(message)

    def at_block_end(self, *, assume: bool = False) -> Subspace:
        """The same subspace as one of ``resid_post``, for operators.

        ``resid_pre`` of block i is ``resid_post`` of block i − 1, so that it moves there. assume:
        take any other hook point for the end of its own block; the lineage keeps the true one.
        ValueError for other hook points without it.
        """
        if self.hook_point == HookPoint.RESID_POST:
            return self
        moved = self.hook_point == HookPoint.RESID_PRE and self.layer > 0
        if not (moved or assume):
            self.require_block_end()
        end = HookPoint.RESID_POST.value
        return replace(self, layer=self.layer - 1 if moved else self.layer, hook_point=end)

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
                # Files of before the entry have it in their lineage.
                hook_point=entry(
                    data if "hook_point" in data else data["lineage"], "hook_point", str
                ),
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
            "hook_point": self.hook_point,
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
    exists. alpha weighs the common variation, in an ensemble's contrastive member too; pca and
    mean_difference have none (alpha 0).

    protected: (d_model,) or (p, d_model) directions to which every column is made orthogonal.
    weights: how much each column counts by what it explains, see ``eigenvalue_weights``, with its
    temperature; kept beside the basis, which stays orthonormal. options: the extractor's own.
    strict: raise where the extractor fails, instead of the mean difference, a RuntimeWarning and
    ``fallback`` in the lineage.

    Raises ValueError when the class means coincide along the first column, when there are too few
    pairs, for a method or weights that are not there, a direction inside the span of the protected
    ones, and an alpha given to a method without one; TypeError for options that a method lacks.
    """
    _require_settings(method, alpha, weights, temperature)
    positive, negative = (x.astype(np.float64) for x in activations.at(layer))
    clear_of = np.empty((0, positive.shape[1])) if protected is None else span_basis(protected)
    _require_room(positive, k, len(clear_of))
    _require_apart(positive, negative, layer)
    found = extract(
        positive,
        negative,
        "mean_difference" if method in _KEEPS_MEAN_DIFFERENCE else method,
        protected=None if protected is None else clear_of,
        strict=strict,
        **_options(method, alpha, options or {}),
    )
    separation = _separation_along(found, positive, negative, layer)
    alpha = 0.0 if method in _NO_BACKGROUND else float(alpha)
    taken = np.concatenate([found.direction[None], clear_of])
    spectrum, further = contrast_outside(positive, negative, alpha, taken, n_components=2 * k - 1)
    basis = np.column_stack([found.direction, further.T])
    counts = None
    if weights is not None:
        explained = np.append(contrast_along(found.direction, positive, negative, alpha), spectrum)
        counts = eigenvalue_weights(explained, weights, temperature=temperature)
    return Subspace(
        layer=layer,
        mean=found.mean,
        basis=basis,
        half_separation=separation / 2,
        spectrum=spectrum,
        positive=(positive - found.mean) @ basis,
        negative=(negative - found.mean) @ basis,
        residual_norm=typical_norm(positive, negative),
        identity=activations.identity,
        weights=counts,
        hook_point=activations.hook_point,
        lineage={
            "method": method,
            "alpha": alpha,
            "n_pairs": len(positive),
            "n_protected": len(clear_of),
            "weights": weights,
            "temperature": float(temperature),
            **_found(found),
            **_source(activations, layer),
        },
    )


def _require_settings(
    method: str, alpha: float, weights: WeightMethod | None, temperature: float
) -> None:
    """ValueError for a method that is not there and for settings that would change nothing."""
    if method not in registered():
        message = f"[subspace] expected a method among {', '.join(registered())}, got {method!r}"
        raise ValueError(message)
    if method in _NO_BACKGROUND and alpha != 1.0:
        message = f"[subspace] expected no alpha with {method}, which has no background"
        raise ValueError(message)
    if weights is None and temperature != 1.0:
        message = "[subspace] expected a temperature with weights only, got one without"
        raise ValueError(message)


def _options(method: str, alpha: float, given: Mapping[str, Any]) -> dict[str, Any]:
    """The extractor's options; an ensemble's contrastive member has the same alpha as the rest."""
    options = dict(given)
    if method == "ensemble" and "contrastive_pca" in options.get("members", MEMBERS):
        own = dict(options.get("options") or {})
        own["contrastive_pca"] = {"alpha": alpha, **own.get("contrastive_pca", {})}
        options["options"] = own
    return options


def _separation_along(found: Extraction, positive: Rows, negative: Rows, layer: int) -> float:
    """Distance of the class means along the direction; ValueError where it is rounding."""
    separation = float(mean_difference_of(positive, negative) @ found.direction)
    if not separation > MIN_SEPARATION * typical_norm(positive, negative):
        message = (
            f"[subspace] expected two classes that differ along the direction of {found.method} at "
            f"block {layer}, got {separation:.1e} between their means; use another method or block"
        )
        raise ValueError(message)
    return separation


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
        "hook_point": activations.hook_point,
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
    HookPoint(found.hook_point)
    if found.half_separation <= 0 or found.residual_norm <= 0:
        message = f"a separation of {found.half_separation} and norms of {found.residual_norm}"
        raise ValueError(message)
