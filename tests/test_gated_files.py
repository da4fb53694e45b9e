"""Gated interventions as values and files: round trips, hashes, versions, hostile files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _gates import gate
from _models import D_MODEL, IDENTITY, N_LAYERS, push, steering, tiny_backend, turn
from cogit import artefact
from cogit.errors import ArtefactError
from cogit.gates import Gate
from cogit.intervention import Intervention


@pytest.mark.parametrize(
    "gates",
    [
        {1: gate(0.25)},
        {0: gate(0.5, measure="cosine", scope="prompt"), 2: gate(1.0, kind="learned", width=0.3)},
        {0: gate(0.1), 1: gate(0.1), 2: gate(0.2)},
    ],
)
def test_gates_round_trip(gates: dict[int, Gate], tmp_path: Path) -> None:
    saved = Intervention.everywhere(turn(), range(N_LAYERS), IDENTITY, gates=gates)
    loaded = Intervention.load(saved.save(tmp_path / "i"))
    assert list(loaded.gates) == list(gates)
    for layer, made in gates.items():
        assert loaded.gates[layer].parameters() == made.parameters()
        assert loaded.gates[layer].direction.tobytes() == made.direction.tobytes()
        assert loaded.gates[layer].mean.tobytes() == made.mean.tobytes()
    assert loaded.content_hash == saved.content_hash
    assert loaded.describe() == saved.describe()


def header(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    found: dict[str, Any] = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return found


def test_files_without_a_gate_are_what_they_were(tmp_path: Path) -> None:
    """Older readers go on reading them, and their hash keys the same caches."""
    plain = steering(tiny_backend(), [0, 2])
    file = plain.save(tmp_path / "i")
    metadata = header(file)["__metadata__"]
    assert metadata["format_version"] == "1"
    assert "gates" not in json.loads(metadata["json"])
    tensors, data = plain._parts()
    assert plain.content_hash == artefact.content_hash(
        tensors, {k: data[k] for k in ("operators", "strength", "positions")}
    )
    assert plain.gated(gate()).ungated().content_hash == plain.content_hash


def test_a_reader_that_knows_no_gates_refuses_a_gated_file(tmp_path: Path) -> None:
    """It would steer every token. Its version check is the one of every other kind."""
    file = steering(tiny_backend(), [1]).gated(gate()).save(tmp_path / "i")
    assert header(file)["__metadata__"]["format_version"] == "2"
    with pytest.raises(ArtefactError, match="expected format version 1, got 2"):
        artefact.read(file, "intervention")
    raw = file.read_bytes().replace(b'"format_version":"2"', b'"format_version":"3"')
    file.write_bytes(raw)
    with pytest.raises(ArtefactError, match=r"expected format version 1\.\.2, got 3"):
        Intervention.load(file)


def test_the_hash_sees_every_part_of_a_gate() -> None:
    base = Intervention({0: turn(), 1: turn()}, IDENTITY)
    variants = [
        base,
        base.gated(gate()),
        base.gated({0: gate()}),
        base.gated({1: gate()}),
        base.gated(gate(1e-6)),
        base.gated(gate(seed=1)),
        base.gated(replace(gate(), mean=np.full(D_MODEL, 1e-6))),
        base.gated(gate(measure="cosine")),
        base.gated(gate(scope="prompt")),
        base.gated(gate(width=0.1)),
        base.gated(gate(width=0.1, floor=0.1)),
        base.gated({0: gate(), 1: gate(seed=1)}),
    ]
    assert len({variant.content_hash for variant in variants}) == len(variants)


def test_describe_names_the_gates() -> None:
    base = Intervention.everywhere(turn(), range(3), IDENTITY)
    text = base.gated({0: gate(0.5), 1: gate(0.5), 2: gate(2.0, width=1.0)}).describe()
    assert text == (
        "unitary on blocks 0..2, strength 1, positions all, similarity gate, projection ≥ 0.5, per "
        "token at blocks 0..1, similarity gate, sigmoid((projection − 2) / 1), 0 below 0.05, per "
        "token at block 2"
    )


def test_blocks_keep_their_gates() -> None:
    base = Intervention.everywhere(turn(), range(3), IDENTITY).gated({0: gate(), 2: gate(1.0)})
    assert base.on_blocks([1, 2]).gates == {2: base.gates[2]}
    assert base.on_blocks([1]).gates == {}
    assert base.at_strength(0.3).gates == base.gates


def test_gates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"gates on steered blocks, block 0, got one at block 1"):
        Intervention({0: turn()}, IDENTITY, gates={1: gate()})
    narrow = Gate(np.ones(3), np.zeros(3), 0.0)
    with pytest.raises(ValueError, match=r"gates of width 64 for tiny, got 3 at block 0"):
        Intervention({0: turn()}, IDENTITY, gates={0: narrow})


BAD: list[tuple[str, Any]] = [
    ("gates", {}),
    ("gates", None),
    ("gates", "all"),
    ("gates", [3]),
    ("gates.0.layer", 1),  # no operator there
    ("gates.0.layer", 2),  # twice
    ("gates.0.layer", True),
    ("gates.0.layer", ...),
    ("gates.0.name", "gate.9"),
    ("gates.0.name", None),
    ("gates.0.parameters", ...),
    ("gates.0.parameters", []),
    ("gates.0.parameters.kind", "psychic"),
    ("gates.0.parameters.kind", ["learned"]),
    ("gates.0.parameters.measure", ...),
    ("gates.0.parameters.scope", 3),
    ("gates.0.parameters.threshold", "high"),
    ("gates.0.parameters.threshold", None),
    ("gates.0.parameters.threshold", 1e300),
    ("gates.0.parameters.width", -1.0),
    ("gates.0.parameters.width", True),
    ("gates.0.parameters.floor", 1.0),
    ("gate.0.direction", ...),
    ("gate.0.direction", np.zeros(D_MODEL)),
    ("gate.0.direction", np.ones(3)),
    ("gate.0.mean", np.zeros((D_MODEL, 1))),
    ("gate.0.mean", np.zeros(D_MODEL, bool)),
    ("gate.0.mean", np.full(D_MODEL, 1e60)),
]


@pytest.mark.parametrize(("path", "value"), BAD, ids=lambda x: str(np.shape(x) or x))
def test_hostile_gates_are_refused(path: str, value: Any, tmp_path: Path) -> None:
    good = Intervention({0: turn(), 2: push()}, IDENTITY).gated(gate())
    tensors, metadata = good._parts()
    place: Any = tensors if path.startswith("gate.") else json.loads(json.dumps(metadata))
    root, key = place, path
    if not path.startswith("gate."):
        *route, key = path.split(".")
        for step in route:
            place = place[int(step)] if step.isdigit() else place[step]
        metadata = root
    if value is ...:
        del place[key]
    else:
        place[key] = value
    file = artefact.write(tmp_path / "i", "intervention", tensors, metadata, version=2)
    with pytest.raises(ArtefactError, match=r"\A\[load\] expected [^\n]+\Z"):
        Intervention.load(file)
