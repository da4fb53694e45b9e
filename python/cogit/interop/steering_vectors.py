"""Steering vectors as plain tensors: what steering-vectors, nnsight and own scripts exchange.

A vector's number means one of two things, and nothing in a tensor says which, so that the caller
must: ``block`` i is added after block i; ``hidden-states`` i is added to transformers'
``hidden_states[i]``, the output of block i − 1 (0 are the embeddings, which no block makes).
Under both, every vector acts on the residual stream after a block.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from cogit import __version__
from cogit.artefact import write_bytes
from cogit.errors import ArtefactError
from cogit.identity import ModelIdentity
from cogit.interop.tensor_files import METADATA, LoadedVectors, read_vectors
from cogit.interop.vectors import StrengthMode, additive_vectors
from cogit.intervention import Intervention
from cogit.operators import Additive
from cogit.positions import Positions

if TYPE_CHECKING:
    from numpy.typing import NDArray

Convention = Literal["block", "hidden-states"]


def vectors_to_intervention(
    vectors: Mapping[int, Any],
    identity: ModelIdentity,
    *,
    convention: Convention,
    strength: float = 1.0,
    positions: Positions | None = None,
    lineage: Mapping[str, Any] | None = None,
) -> Intervention:
    """An additive intervention from {number: (d_model,) vector}, NumPy arrays or torch tensors.

    convention: what the numbers mean, see the module. positions: by default every token, the first
    included, as the other tools do. Raises ValueError for numbers that the model does not have and
    for vectors of another shape, of another kind than floats, not finite or all zero.
    """
    _require_convention(convention)
    shift = 0 if convention == "block" else 1
    lowest, highest = shift, identity.n_layers - 1 + shift
    operators = {}
    for number, value in vectors.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer):
            message = f"[import] expected whole numbers of layers, got {number!r}"
            raise TypeError(message)
        if not lowest <= number <= highest:
            message = (
                f"[import] expected {convention} numbers {lowest}..{highest} for "
                f"{identity.name}, got {number}"
            )
            raise ValueError(message)
        operators[int(number) - shift] = Additive(_vector(f"layer {number}", value, identity))
    if operators and not any(operator.vector.any() for operator in operators.values()):
        message = f"[import] expected vectors other than zero, got {len(operators)} without any"
        raise ValueError(message)
    return Intervention(
        operators,
        identity,
        strength=strength,
        positions=positions or Positions(first_token=True),
        lineage={
            "imported_from": "steering vectors",
            "convention": convention,
            "numbers": sorted(int(number) for number in vectors),
            **(lineage or {}),
        },
    )


def load_vectors(
    path: str | Path, *, layers: Sequence[int] | None = None
) -> dict[int, NDArray[np.float64]]:
    """The vectors of a file, (d_model,) float64, by the file's own numbers.

    A safetensors, .npz or .pt file holds one vector a name, and each name one number, such as
    ``layer.12`` or ``12``; a .pt file may be a dictionary with whole numbers instead. A single
    vector without a number, and a .npy file with one vector, go to every one of ``layers``. A
    two-dimensional array is one row a number, from 0. Otherwise ``layers`` chooses among the
    file's numbers; by default all are taken.

    Nothing is unpickled but tensors (``weights_only``), and sizes are checked before memory is
    taken. Raises FileNotFoundError, or ArtefactError naming what is wrong with the file.
    """
    return _chosen(read_vectors(Path(path)), Path(path), layers)


def import_vectors(
    path: str | Path,
    identity: ModelIdentity,
    *,
    convention: Convention,
    layers: Sequence[int] | None = None,
    strength: float = 1.0,
    positions: Positions | None = None,
) -> Intervention:
    """The additive intervention of a file of vectors; see ``load_vectors`` for what it may hold.

    convention, positions: as in ``vectors_to_intervention``; ``layers`` counts by the convention.
    A file written by ``export_vectors`` names its convention, and another one is refused.
    """
    _require_convention(convention)
    source = Path(path)
    loaded = read_vectors(source)
    if loaded.convention not in (None, convention):
        message = (
            f"[import] expected the convention {loaded.convention}, as {source} says, got "
            f"{convention}"
        )
        raise ArtefactError(message)
    if loaded.stacked:
        _require_rows(loaded, source, identity, convention, layers)
    return vectors_to_intervention(
        _chosen(loaded, source, layers),
        identity,
        convention=convention,
        strength=strength,
        positions=positions,
        lineage={
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        },
    )


def export_vectors(
    intervention: Intervention,
    path: str | Path,
    *,
    convention: Convention = "block",
    strength: StrengthMode = "folded",
    every_token: bool = False,
) -> Path:
    """Write the vectors as safetensors ``layer.N``, (d_model,) float32, N by the convention.

    The header's ``cogit_vectors`` says convention, model and strength in JSON. Raises
    InterventionError for what ``additive_vectors`` refuses.
    """
    from safetensors.numpy import save

    _require_convention(convention)
    target = "a file of steering vectors"
    vectors = additive_vectors(intervention, target, strength=strength, every_token=every_token)
    shift = 0 if convention == "block" else 1
    described = {
        "convention": convention,
        "hook_point": "resid_post",
        "strength": intervention.strength,
        "strength_folded": strength == "folded",
        "content_hash": intervention.content_hash,
        "model": intervention.identity.to_json(),
        "cogit_version": __version__,
    }
    tensors = {f"layer.{layer + shift}": vector for layer, vector in vectors.items()}
    header = {METADATA: json.dumps(described, sort_keys=True, allow_nan=False)}
    write_bytes(Path(path), save(tensors, metadata=header))
    return Path(path)


def _chosen(
    loaded: LoadedVectors, source: Path, layers: Sequence[int] | None
) -> dict[int, NDArray[np.float64]]:
    if loaded.single is not None:
        if not layers:
            message = (
                f"[import] expected the number of the layer for the one vector of {source}, got "
                f"none; give it (--layer)"
            )
            raise ArtefactError(message)
        return dict.fromkeys(layers, loaded.single)
    if layers is None:
        return dict(loaded.vectors)
    missing = sorted(set(layers) - set(loaded.vectors))
    if missing or not layers:
        message = (
            f"[import] expected layers among {_listed(loaded.vectors)} of {source}, got "
            f"{_listed(layers)}"
        )
        raise ArtefactError(message)
    return {layer: loaded.vectors[layer] for layer in layers}


def _listed(numbers: Sequence[int] | Mapping[int, Any]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"


def _require_rows(
    loaded: LoadedVectors,
    source: Path,
    identity: ModelIdentity,
    convention: Convention,
    layers: Sequence[int] | None,
) -> None:
    """A stack's rows are numbered from 0; only a whole one shows that they start there."""
    expected = identity.n_layers + (convention == "hidden-states")
    if len(loaded.vectors) != expected:
        message = (
            f"[import] expected {expected} rows, one for each {convention} number of "
            f"{identity.name}, got {len(loaded.vectors)} in {source}"
        )
        raise ArtefactError(message)
    if convention == "hidden-states" and layers is None:
        message = (
            f"[import] expected a choice of layers from 1 on, as row 0 of {source} belongs to the "
            f"embeddings, got none; give it (--layer 1-{expected})"
        )
        raise ArtefactError(message)


def _require_convention(convention: str) -> None:
    if convention not in get_args(Convention):
        message = (
            f"[import] expected the convention block or hidden-states, got {convention!r}: say "
            f"what the layer numbers mean"
        )
        raise ValueError(message)


def _vector(name: str, value: Any, identity: ModelIdentity) -> NDArray[np.float64]:
    """One vector of the model's width as float64; axes of length 1 in front are dropped."""
    if hasattr(value, "is_floating_point"):  # a torch tensor, perhaps on a device or in bfloat16
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    array = np.asarray(value)
    if array.dtype.kind != "f":
        message = f"[import] expected floats at {name}, got {array.dtype}"
        raise TypeError(message)
    if array.size != identity.d_model or array.shape[-1:] != (identity.d_model,):
        message = (
            f"[import] expected a vector of width {identity.d_model} for {identity.name} at "
            f"{name}, got shape {array.shape}"
        )
        raise ValueError(message)
    if not np.isfinite(array).all():
        message = f"[import] expected finite values at {name}, got NaN or infinity"
        raise ValueError(message)
    return array.reshape(-1).astype(np.float64)
