"""What a file of cogit's holds, kind by kind, read from its header wherever that is enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.hook_points import HookPoint
from cogit.identity import ModelIdentity
from cogit.layers import describe_blocks

Facts = dict[str, Any]
_SIDES = ("positive", "negative")


@dataclass(frozen=True)
class Header:
    """A safetensors header: its strings, and each tensor's type and shape."""

    metadata: Mapping[str, str]
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, source: Path) -> Header:
        """ArtefactError for a file that is damaged or of another format."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(source, framework="np") as stream:
                parts = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118
                return cls(
                    stream.metadata() or {},
                    {name: part.get_dtype() for name, part in parts.items()},
                    {name: tuple(part.get_shape()) for name, part in parts.items()},
                )
        except SafetensorError as error:
            message = f"[inspect] expected a whole safetensors or GGUF file, got {source}: {error}"
            raise ArtefactError(message) from error

    def json(self, source: Path, name: str = "json") -> Any:
        """The JSON under a name; ArtefactError if it is none."""
        try:
            return json.loads(self.metadata.get(name, ""))
        except (ValueError, RecursionError) as error:
            message = f"[inspect] expected JSON metadata in {source}, got {one_line(error)}"
            raise ArtefactError(message) from error

    def described(self) -> dict[str, str]:
        """Tensors as people read them: ``F32 [2, 64]``."""
        return {
            name: f"{self.types[name]} {list(shape)}" for name, shape in sorted(self.shapes.items())
        }

    def shape(self, name: str, ndim: int) -> tuple[int, ...]:
        """KeyError or ValueError where there is no such tensor."""
        found = self.shapes[name]
        if len(found) != ndim:
            message = f"expected {name} of {ndim} axes, got {list(found)}"
            raise ValueError(message)
        return found


def artefact_facts(source: Path, header: Header) -> Facts:
    """The facts of a file whose header says that cogit wrote it; ``kind`` first.

    A kind that is not known here is shown by its tensors and its metadata. ArtefactError for a
    known one with entries that do not fit, or of a version that this release does not read.
    """
    kind = header.metadata["kind"]
    facts = {"kind": kind, "file": str(source), "bytes": source.stat().st_size}
    if kind in _LOADED:
        return facts | _LOADED[kind](source)
    if kind not in _HEADERS:
        return other_facts(source, kind, header)
    version = header.metadata.get("format_version")
    if version != str(artefact.FORMAT_VERSION):
        message = (
            f"[inspect] expected format version {artefact.FORMAT_VERSION}, got {version} in "
            f"{source}; use the cogit release that wrote it"
        )
        raise ArtefactError(message)
    try:
        return facts | _HEADERS[kind](source, header, header.json(source))
    except ArtefactError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        message = f"[inspect] expected a file of kind {kind} in {source}, got {one_line(error)}"
        raise ArtefactError(message) from error


def other_facts(source: Path, kind: str, header: Header, name: str = "json") -> Facts:
    """A kind without a description of its own: its tensors, and its metadata as they are."""
    return {
        "kind": kind,
        "file": str(source),
        "bytes": source.stat().st_size,
        "tensors": header.described(),
        "metadata": header.json(source, name),
    }


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


# ---- kinds that are read whole: small, and all of them counts ----


def _intervention(source: Path) -> Facts:
    from cogit.intervention import Intervention

    loaded = Intervention.load(source)
    operators = []
    for layer, fold in loaded.folds().items():
        operator = loaded.operators[layer]
        operators.append(
            {
                "block": layer,
                "kind": operator.kind,
                "formula": operator.formula,
                "parameters": operator.parameters(),
                "rank": fold.rank,
                "constant_norm": float(np.linalg.norm(fold.c.astype(np.float64))),
                "restores_norm": fold.restore,
                "gate": loaded.gates[layer].parameters() if layer in loaded.gates else None,
            }
        )
    return {
        "steers": describe_blocks(loaded.layers),
        "hook_point": HookPoint.RESID_POST.value,
        "strength": loaded.strength,
        "positions": str(loaded.positions),
        "changes_nothing": loaded.changes_nothing(),
        "operators": operators,
        "model": loaded.identity.to_json(),
        "lineage": dict(loaded.lineage),
        "content_hash": loaded.content_hash,
    }


def _subspace(source: Path) -> Facts:
    from cogit.subspace import Subspace

    found = Subspace.load(source)
    lineage = dict(found.lineage)
    return {
        "block": found.layer,
        "hook_point": found.hook_point,
        "width": found.identity.d_model,
        "columns": found.basis.shape[1],
        "pairs": len(found.positive),
        "method": lineage.get("method"),
        "angle_to_mean_difference": lineage.get("angle_to_mean_difference"),
        "fallback": lineage.get("fallback"),
        "reason": lineage.get("reason"),
        "half_separation": found.half_separation,
        "residual_norm": found.residual_norm,
        "spectrum": found.spectrum.tolist(),
        "weights": None if found.weights is None else found.weights.tolist(),
        "model": found.identity.to_json(),
        "lineage": lineage,
        "content_hash": found.content_hash,
    }


# ---- kinds whose header is enough, or nearly ----


def _activations(source: Path, header: Header, data: Facts) -> Facts:
    """Means are read one block at a time."""
    layers = _layers(data)
    model = _model(data)
    shape = header.shape("positive", 3)
    if shape != header.shape("negative", 3) or shape[::2] != (len(layers), model["d_model"]):
        message = f"states {shape} and {header.shapes['negative']} of {len(layers)} blocks"
        raise ValueError(message)
    return {
        "recorded": describe_blocks(layers),
        "hook_point": entry(data, "hook_point", str),
        "select": data.get("select") or f"tail-{entry(data, 'tail', int)}",
        "pairs": shape[1],
        "width": shape[2],
        "tail": entry(data, "tail", int),
        "class_distance": _distances(source, layers),
        "model": model,
    }


def _distances(source: Path, layers: list[int]) -> dict[str, float]:
    from safetensors import safe_open

    found: dict[str, float] = {}
    with safe_open(source, framework="np") as stream:
        positive, negative = (stream.get_slice(side) for side in _SIDES)
        for index, layer in enumerate(layers):
            change = positive[index].astype(np.float64) - negative[index]
            found[str(layer)] = float(np.linalg.norm(change.mean(axis=0)))
    if not np.isfinite(list(found.values())).all():
        message = f"[inspect] expected finite states in {source}, got NaN or infinity"
        raise ArtefactError(message)
    return found


def _shard(source: Path, header: Header, data: Facts) -> Facts:
    first, stop = entry(data, "first", int), entry(data, "stop", int)
    shapes = {side: header.shape(side, 3) for side in _SIDES}
    return {
        "shard": entry(data, "shard", int),
        "pairs": f"{first}..{stop - 1}",
        "blocks": shapes["positive"][0],
        "rows": {side: shape[1] for side, shape in shapes.items()},
        "row_type": header.types["positive"].lower(),
        "width": shapes["positive"][2],
        "key": entry(data, "key", str),
        "of": f"the store in {source.parent}",
    }


def _moments(source: Path, header: Header, data: Facts) -> Facts:
    """The counts are read; covariances are not."""
    from safetensors import safe_open

    layers = _layers(data)
    second = header.shapes["positive_second"]
    if header.shape("positive_count", 1) != (len(layers),) or len(second) not in (2, 3):
        message = f"second moments of shape {second} for {len(layers)} blocks"
        raise ValueError(message)
    with safe_open(source, framework="np") as stream:
        counts = {side: stream.get_tensor(f"{side}_count").tolist() for side in _SIDES}
    return {
        "recorded": describe_blocks(layers),
        "hook_point": entry(data, "hook_point", str),
        "select": entry(data, "select", str),
        "second_moments": "covariances" if len(second) == 3 else "variances",
        "width": second[-1],
        "rows": counts,
        "model": _model(data),
    }


def _projection(_source: Path, header: Header, data: Facts) -> Facts:
    """A file of its own, or the one in a folder of states, which has no entries."""
    joined = "projection.real" in header.shapes
    rows, columns = header.shape("projection.real" if joined else "projection_real", 2)
    return {
        "input_dim": rows,
        "quantum_dim": columns,
        "seed": data.get("seed"),
        "ratio": data.get("ratio", columns / rows),
    }


def _states(source: Path, header: Header, data: Facts) -> Facts:
    counts = {side: header.shape(f"{side}.real", 2) for side in _SIDES}
    beside = (source.parent / "projection.safetensors").is_file()
    bound = data["projection_hash"] is not None
    return {
        "states": {side: shape[0] for side, shape in counts.items()},
        "width": counts["positive"][1],
        "matched": entry(data, "matched", bool),
        "separation": entry(data, "separation_stats", dict),
        "projection": ("present" if beside else "missing") if bound else "none",
        "timestamp": entry(data, "timestamp", str),
        "config": entry(data, "config", dict),
        "origin": entry(data, "origin", dict),
    }


def _trained_unitary(_source: Path, header: Header, data: Facts) -> Facts:
    return {
        **entry(data, "config", dict),
        **_curves(entry(data, "training_history", dict)),
        "timestamp": entry(data, "timestamp", str),
        "tensors": header.described(),
    }


def _training_checkpoint(_source: Path, header: Header, data: Facts) -> Facts:
    return {
        "epoch": entry(data, "epoch", int),
        **_curves(data),
        "learning_rates": entry(data, "learning_rates", list),
        "settings": entry(data, "settings", dict),
        "trained_on": entry(data, "data", str),
        "tensors": header.described(),
    }


def _refinement(_source: Path, header: Header, data: Facts) -> Facts:
    has_best = entry(data, "has_best", bool)
    return {
        "step": entry(data, "step", int),
        "stopped_early": entry(data, "stopped", bool),
        "evaluations_since_best": entry(data, "stale", int),
        "best_step": entry(data, "best_step", int) if has_best else None,
        "best_contrast": entry(data, "best_effect", float) if has_best else None,
        "best_factor": entry(data, "best_factor", float) if has_best else None,
        "run": entry(data, "run", str),
        "tensors": header.described(),
    }


def _curves(data: Mapping[str, Any]) -> Facts:
    """How long the curves are and where they end; None where nothing was trained."""
    found: Facts = {}
    for name in ("loss", "fidelity"):
        values = entry(data, f"{name}_history", list)
        found["epochs"] = len(values)
        found[f"last_{name}"] = entry(values, -1, float) if values else None
    return found


def _layers(data: Mapping[str, Any]) -> list[int]:
    layers = entry(data, "layers", list)
    return [entry(layers, i, int) for i in range(len(layers))]


def _model(data: Mapping[str, Any]) -> dict[str, Any]:
    return ModelIdentity.from_json(entry(data, "model", dict)).to_json()


_LOADED: dict[str, Callable[[Path], Facts]] = {
    "intervention": _intervention,
    "subspace": _subspace,
}
_HEADERS: dict[str, Callable[[Path, Header, Facts], Facts]] = {
    "activations": _activations,
    "activations shard": _shard,
    "moments": _moments,
    "projection": _projection,
    "states": _states,
    "trained_unitary": _trained_unitary,
    "training_checkpoint": _training_checkpoint,
    "refinement": _refinement,
}
