"""An intervention: operators at layers, the tokens they act on, and how strongly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cogit import __version__, artefact
from cogit.affine import Affine
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.gates import Gate
from cogit.identity import ModelIdentity
from cogit.layers import describe_blocks
from cogit.operators import Operator, load_operator
from cogit.positions import Positions

_KIND = "intervention"
# A reader that knows no gates would steer every token by a gated file: it must refuse it.
_GATED_VERSION = 2


@dataclass(frozen=True)
class Intervention:
    """What a backend needs to steer.

    operators: one per block. identity: the model it was made on. strength: λ, any real number;
    0 is the unsteered model. lineage: free JSON on where it came from. gates: for some or all of
    the blocks, how much of the change each token gets; a block without one steers every token.
    Saved as one safetensors file that both backends load; llamacpp refuses one with gates.
    """

    operators: Mapping[int, Operator]
    identity: ModelIdentity
    strength: float = 1.0
    positions: Positions = field(default_factory=Positions)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    gates: Mapping[int, Gate] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.operators:
            message = "[intervention] expected an operator on at least one block, got none"
            raise ValueError(message)
        if not np.isfinite(self.strength):
            message = f"[intervention] expected a finite strength, got {self.strength}"
            raise ValueError(message)
        for layer, operator in self.operators.items():
            if not 0 <= layer < self.identity.n_layers:
                message = (
                    f"[intervention] expected blocks 0..{self.identity.n_layers - 1} of "
                    f"{self.identity.name}, got {layer}"
                )
                raise ValueError(message)
            if operator.d_model != self.identity.d_model:
                message = (
                    f"[intervention] expected operators of width {self.identity.d_model} for "
                    f"{self.identity.name}, got {operator.d_model} at block {layer}"
                )
                raise ValueError(message)
        self._require_gates()
        # NumPy's numbers are welcome, but only Python's own are the same again after a round trip.
        operators = {int(layer): operator for layer, operator in sorted(self.operators.items())}
        gates = {int(layer): gate for layer, gate in sorted(self.gates.items())}
        object.__setattr__(self, "operators", operators)
        object.__setattr__(self, "gates", gates)
        object.__setattr__(self, "strength", float(self.strength))

    @classmethod
    def everywhere(
        cls,
        operator: Operator,
        layers: Iterable[int],
        identity: ModelIdentity,
        **options: Any,
    ) -> Intervention:
        """The same operator on several blocks."""
        return cls(dict.fromkeys(layers, operator), identity, **options)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self.operators)

    def at_strength(self, strength: float) -> Intervention:
        """The same intervention, dialled to another strength."""
        return replace(self, strength=strength)

    def gated(self, gates: Gate | Mapping[int, Gate]) -> Intervention:
        """The same intervention behind a gate on every block, or behind these and no others."""
        chosen = dict.fromkeys(self.operators, gates) if isinstance(gates, Gate) else gates
        return replace(self, gates=chosen)

    def ungated(self) -> Intervention:
        """The same intervention on every token of its positions."""
        return replace(self, gates={})

    def on_blocks(self, blocks: Iterable[int]) -> Intervention:
        """Only the operators and gates of these blocks; KeyError for one that has no operator."""
        chosen = list(blocks)
        return replace(
            self,
            operators={block: self.operators[block] for block in chosen},
            gates={block: self.gates[block] for block in chosen if block in self.gates},
        )

    def never_opening(self) -> tuple[int, ...]:
        """The blocks whose gate no state can open: a mistake, since nothing is steered there."""
        return tuple(layer for layer, gate in self.gates.items() if not gate.can_open())

    def folds(self) -> dict[int, Affine]:
        """The affine of every block at this strength."""
        return {layer: op.fold(self.strength) for layer, op in self.operators.items()}

    def changes_nothing(self) -> bool:
        """True for a control: strength 0, operators that are the identity, gates kept shut."""
        if self.strength == 0.0:
            return True
        shut = self.never_opening()
        return all(layer in shut or fold.is_zero() for layer, fold in self.folds().items())

    @property
    def content_hash(self) -> str:
        """SHA-256 of everything that decides what is generated. Keys every cache."""
        tensors, metadata = self._parts()
        deciding = ("operators", "strength", "positions", *(["gates"] if self.gates else []))
        return artefact.content_hash(tensors, {k: metadata[k] for k in deciding})

    def describe(self) -> str:
        """One line for people: operator, blocks, strength, positions, gates."""
        kinds = sorted({operator.kind for operator in self.operators.values()})
        return (
            f"{'+'.join(kinds)} on {describe_blocks(self.layers)}, strength {self.strength:g}, "
            f"positions {self.positions}{self._describe_gates()}"
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file."""
        tensors, metadata = self._parts()
        version = _GATED_VERSION if self.gates else artefact.FORMAT_VERSION
        return artefact.write(path, _KIND, tensors, metadata, version=version)

    @classmethod
    def load(cls, path: str | Path) -> Intervention:
        """Read a file written by ``save``; ArtefactError names what is wrong with another."""
        tensors, data = artefact.read(path, _KIND, newest=_GATED_VERSION)
        try:
            return cls(
                operators=_load_operators(entry(data, "operators", list), tensors),
                identity=ModelIdentity.from_json(entry(data, "model", dict)),
                strength=entry(data, "strength", float),
                positions=Positions(**entry(data, "positions", dict)),
                lineage=entry(data, "lineage", dict),
                gates=_load_gates(entry(data, "gates", list), tensors) if "gates" in data else {},
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"[load] expected an intervention in {path}, got {error}"
            raise ArtefactError(message) from error

    def _require_gates(self) -> None:
        for layer, gate in self.gates.items():
            if layer not in self.operators:
                message = (
                    f"[intervention] expected gates on steered blocks, "
                    f"{describe_blocks(self.operators)}, got one at block {layer}"
                )
                raise ValueError(message)
            if gate.d_model != self.identity.d_model:
                message = (
                    f"[intervention] expected gates of width {self.identity.d_model} for "
                    f"{self.identity.name}, got {gate.d_model} at block {layer}"
                )
                raise ValueError(message)

    def _describe_gates(self) -> str:
        texts: dict[str, list[int]] = {}
        for layer, gate in self.gates.items():
            texts.setdefault(gate.describe(), []).append(layer)
        return "".join(f", {text} at {describe_blocks(at)}" for text, at in texts.items())

    def _parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        tensors: dict[str, Any] = {}
        entries: list[dict[str, Any]] = []
        names: dict[str, str] = {}  # one copy of an operator that serves several blocks
        for layer, operator in self.operators.items():
            parts = operator.tensors()
            content = artefact.content_hash(parts, {operator.kind: operator.parameters()})
            name = names.setdefault(content, f"operator.{len(names)}")
            tensors.update({f"{name}.{part}": value for part, value in parts.items()})
            entries.append(
                {
                    "layer": layer,
                    "name": name,
                    "kind": operator.kind,
                    "tensors": sorted(parts),
                    "parameters": operator.parameters(),
                }
            )
        gates = self._gate_parts(tensors)
        return tensors, {
            **({"gates": gates} if gates else {}),
            "operators": entries,
            "strength": self.strength,
            "positions": {
                "kind": self.positions.kind,
                "start": self.positions.start,
                "stop": self.positions.stop,
                "first_token": self.positions.first_token,
            },
            "hook_point": "resid_post",
            "model": self.identity.to_json(),
            "lineage": dict(self.lineage),
            "cogit_version": __version__,
        }

    def _gate_parts(self, tensors: dict[str, Any]) -> list[dict[str, Any]]:
        """The gates' entries; their arrays go to ``tensors``, once for a gate of several blocks."""
        entries: list[dict[str, Any]] = []
        names: dict[str, str] = {}
        for layer, gate in self.gates.items():
            content = artefact.content_hash(gate.tensors(), {})
            name = names.setdefault(content, f"gate.{len(names)}")
            tensors.update({f"{name}.{part}": value for part, value in gate.tensors().items()})
            entries.append({"layer": layer, "name": name, "parameters": gate.parameters()})
        return entries


def _load_gates(saved: list[Any], tensors: Mapping[str, Any]) -> dict[int, Gate]:
    gates: dict[int, Gate] = {}
    for one in saved:
        layer, name = entry(one, "layer", int), entry(one, "name", str)
        if layer in gates:
            message = f"two gates at block {layer}"
            raise ValueError(message)
        parts = {part: tensors[f"{name}.{part}"] for part in ("direction", "mean")}
        gates[layer] = Gate.from_parts(parts, entry(one, "parameters", dict))
    return gates


def _load_operators(saved: list[Any], tensors: Mapping[str, Any]) -> dict[int, Operator]:
    operators: dict[int, Operator] = {}
    for one in saved:
        layer, name = entry(one, "layer", int), entry(one, "name", str)
        if layer in operators:
            message = f"block {layer} twice"
            raise ValueError(message)
        parts = {part: tensors[f"{name}.{part}"] for part in entry(one, "tensors", list)}
        kind, parameters = entry(one, "kind", str), entry(one, "parameters", dict)
        operators[layer] = load_operator(kind, parts, parameters)
    return operators
