"""The file of a trained unitary: parameters, what they were trained on, curves, time.

One schema in two containers. Ours is safetensors with JSON. The older one is a torch file of the
same four entries, which `import_torch` (in `operator_import`) reads without running anything in it.

    model_state_dict    the parameters of a `UnitaryModule`
    config              model_name, model_identifier, quantum_dim, input_dim, preset, layer, family,
                        rank, direction
    training_history    loss_history, fidelity_history
    timestamp           ISO 8601
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.presets import PRESETS
from cogit.training.cayley_module import FAMILIES, Family, UnitaryModule, make_unitary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.training.born import BornResult

KIND = "trained_unitary"
MAX_BYTES = 4 * 2**30
# The tolerance of the check while training, in float32; far above rounding in float64.
TOLERANCE = 1e-4
_OTHER_PRESETS = ("custom", "unknown")
_MAX_TEXT = 500


@dataclass(frozen=True)
class OperatorConfig:
    """What a trained unitary belongs to.

    model_name: for people; model_identifier: a hub id or path. quantum_dim: q; input_dim: d.
    preset: a name of `cogit.presets`, or "custom", or "unknown" in files from elsewhere.
    layer: the 0-based block; None only where an older file does not say.
    direction: "negative_to_positive", "positive_to_negative", or "" where it is not known.
    """

    model_name: str
    model_identifier: str
    quantum_dim: int
    input_dim: int
    preset: str
    layer: int | None
    family: Family = "dense"
    rank: int = 4
    direction: str = ""

    def __post_init__(self) -> None:
        for name in ("model_name", "model_identifier", "preset", "direction"):
            value = getattr(self, name)
            _require(type(value) is str and len(value) <= _MAX_TEXT, name, value, "a short text")
        for name in ("quantum_dim", "input_dim", "rank"):
            value = getattr(self, name)
            _require(type(value) is int and value >= 1, name, value, "a whole number of 1 or more")
        layer_fits = self.layer is None or (type(self.layer) is int and self.layer >= 0)
        _require(layer_fits, "layer", self.layer, "a block number or None")
        presets = (*PRESETS, *_OTHER_PRESETS)
        _require(self.preset in presets, "preset", self.preset, f"one of {', '.join(presets)}")
        _require(self.family in FAMILIES, "family", self.family, f"one of {', '.join(FAMILIES)}")
        directions = ("negative_to_positive", "positive_to_negative", "")
        fits = self.direction in directions
        _require(fits, "direction", self.direction, f"one of {', '.join(directions[:2])} or none")


@dataclass(frozen=True, eq=False)
class OperatorFile:
    """A trained unitary with its origin; every instance is whole and finite.

    model_state_dict: name to real array, as `make_unitary` of this family names them.
    timestamp: ISO 8601; now, where none is given.
    """

    model_state_dict: Mapping[str, NDArray[np.floating[Any]]]
    config: OperatorConfig
    loss_history: tuple[float, ...] = ()
    fidelity_history: tuple[float, ...] = ()
    timestamp: str = field(
        default_factory=lambda: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    )

    def __post_init__(self) -> None:
        self._check_state()
        for name in ("loss_history", "fidelity_history"):
            values = getattr(self, name)
            finite = all(type(x) is float and math.isfinite(x) for x in values)
            _require(finite, name, values, "finite numbers")
        fits = type(self.timestamp) is str and 0 < len(self.timestamp) <= 64
        _require(fits, "timestamp", self.timestamp, "a time")

    @classmethod
    def of(
        cls,
        result: BornResult,
        *,
        model_name: str,
        model_identifier: str,
        input_dim: int,
        layer: int,
        preset: str = "custom",
        direction: str = "",
    ) -> OperatorFile:
        """The file of a training's result. Raises ValueError for entries that do not fit."""
        state = {k: v.detach().cpu().numpy() for k, v in result.module.state_dict().items()}
        config = OperatorConfig(
            model_name=model_name,
            model_identifier=model_identifier,
            quantum_dim=result.module.q,
            input_dim=input_dim,
            preset=preset,
            layer=layer,
            family=result.module.family,
            rank=result.config.rank,
            direction=direction,
        )
        return cls(state, config, result.loss_history, result.fidelity_history)

    def document(self) -> dict[str, Any]:
        """The schema's four entries, with arrays as they are."""
        return {
            "model_state_dict": dict(self.model_state_dict),
            "config": asdict(self.config),
            "training_history": {
                "loss_history": list(self.loss_history),
                "fidelity_history": list(self.fidelity_history),
            },
            "timestamp": self.timestamp,
        }

    def module(self) -> UnitaryModule:
        """The module with these parameters, on the CPU, in evaluation mode.

        Raises ArtefactError where its U is not unitary to 1e-4, as rounding makes of parameters
        that are extreme.
        """
        dtype = torch.from_numpy(next(iter(self.model_state_dict.values()))).dtype
        made = make_unitary(
            self.config.family,
            self.config.quantum_dim,
            rank=self.config.rank,
            spread=0.0,
            dtype=dtype,
        )
        made.load_state_dict(
            {name: torch.from_numpy(value.copy()) for name, value in self.model_state_dict.items()}
        )
        made.eval()
        try:
            deviation = made.deviation()
        except ValueError as error:
            message = f"[operator] expected parameters of a unitary, got {error}"
            raise ArtefactError(message) from error
        if not deviation <= TOLERANCE:
            message = (
                f"[operator] expected a unitary, got max |UᴴU - I| = {deviation:.1e} from these "
                f"parameters; train it again in double precision"
            )
            raise ArtefactError(message)
        return made

    def unitary(self) -> NDArray[np.complexfloating[Any, Any]]:
        """U (q, q), complex64 or complex128 as the parameters are. Raises as `module`."""
        with torch.no_grad():
            return np.asarray(self.module().unitary().numpy())

    def save(self, path: str | Path) -> Path:
        """Write our form, atomically."""
        document = self.document()
        tensors = document.pop("model_state_dict")
        return artefact.write(path, KIND, tensors, document)

    @classmethod
    def load(cls, path: str | Path, *, max_bytes: int = MAX_BYTES) -> OperatorFile:
        """Read our form.

        Raises FileNotFoundError, or ArtefactError for a file that is too large, damaged, foreign,
        or whose entries do not fit each other.
        """
        require_size(path, max_bytes)
        tensors, document = artefact.read(path, KIND)
        return from_document({**document, "model_state_dict": tensors}, path)

    def _check_state(self) -> None:
        config = self.config
        q = config.quantum_dim
        families: dict[Family, dict[str, tuple[int, ...]]] = {
            "dense": {"free": (q, q)},
            "lowrank": {"x": (q, config.rank, 2), "y": (q, config.rank, 2)},
            "diagonal": {"phases": (q,)},
        }
        shapes = families[config.family]
        found = {name: tuple(value.shape) for name, value in self.model_state_dict.items()}
        _require(found == shapes, "parameters", found, f"{shapes} of the family {config.family}")
        dtypes = sorted({str(value.dtype) for value in self.model_state_dict.values()})
        _require(dtypes in (["float32"], ["float64"]), "dtype", dtypes, "float32 or float64")
        finite = all(np.isfinite(value).all() for value in self.model_state_dict.values())
        _require(finite, "parameters", "NaN or infinity", "finite numbers")


def require_size(path: str | Path, max_bytes: int) -> int:
    """The size of a file in bytes. FileNotFoundError without it, ArtefactError beyond the limit."""
    source = Path(path)
    if not source.is_file():
        state = "a folder" if source.is_dir() else "which does not exist"
        message = f"[load] expected a file, got {source}, {state}"
        raise FileNotFoundError(message)
    size = source.stat().st_size
    if size > max_bytes:
        message = (
            f"[load] expected at most {max_bytes} bytes, got {size} in {source}; "
            f"raise max_bytes if you trust it"
        )
        raise ArtefactError(message)
    return size


def from_document(document: Mapping[str, Any], path: str | Path) -> OperatorFile:
    """An operator from the schema's four entries; ArtefactError naming what does not fit."""
    try:
        config = entry(document, "config", dict)
        history = entry(document, "training_history", dict)
        curves = []
        for name in ("loss_history", "fidelity_history"):
            values = entry(history, name, list)
            curves.append(tuple(entry(values, i, float) for i in range(len(values))))
        return OperatorFile(
            model_state_dict=document["model_state_dict"],
            config=OperatorConfig(**config),
            loss_history=curves[0],
            fidelity_history=curves[1],
            timestamp=entry(document, "timestamp", str),
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        message = f"[load] expected a trained unitary in {path}: {reason}"
        raise ArtefactError(message) from error


def _require(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        message = f"[operator] expected {name} to be {expected}, got {str(got)[:80]}"
        raise ValueError(message)
