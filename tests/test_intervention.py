"""Interventions: exact round trips, a hash of what matters, and hostile files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _models import D_MODEL, IDENTITY, N_LAYERS, push, turn
from cogit import artefact, reference
from cogit.errors import ArtefactError, InterventionError
from cogit.identity import ModelIdentity, file_fingerprint
from cogit.intervention import Intervention
from cogit.operators import Additive, Commitment, Random, Unitary, registered
from cogit.positions import Positions

POSITIONS = [
    Positions(),
    Positions("prompt"),
    Positions("generated", first_token=True),
    Positions("range", 3, 9),
    Positions("range", 4),
]


def example(kind: str = "unitary", seed: int = 0, **options: Any) -> Intervention:
    operators = {
        0: registered()[kind].example(D_MODEL, seed),
        2: registered()[kind].example(D_MODEL, seed + 1),
    }
    return Intervention(operators, IDENTITY, **{"strength": 0.7, **options})


# ---- round trip ----


@pytest.mark.parametrize("positions", POSITIONS, ids=str)
@pytest.mark.parametrize("kind", registered())
def test_round_trip_is_exact(kind: str, positions: Positions, tmp_path: Path) -> None:
    saved = example(kind, positions=positions, lineage={"pairs": "3f", "nested": {"n": [1, None]}})
    loaded = Intervention.load(saved.save(tmp_path / "i.safetensors"))
    assert loaded.layers == saved.layers
    assert loaded.strength == saved.strength
    assert loaded.positions == saved.positions
    assert loaded.identity == saved.identity
    assert loaded.lineage == saved.lineage
    assert loaded.content_hash == saved.content_hash
    for strength in (0.7, -1.3):
        before, after = (x.at_strength(strength).folds() for x in (saved, loaded))
        for layer, affine in before.items():
            for part in ("A", "a0", "B", "c"):
                assert getattr(affine, part).tobytes() == getattr(after[layer], part).tobytes()
            assert affine.restore == after[layer].restore


@pytest.mark.parametrize("kind", registered())
def test_the_identity_round_trips(kind: str, tmp_path: Path) -> None:
    operator = registered()[kind].identity(D_MODEL)
    saved = Intervention({1: operator}, IDENTITY)
    loaded = Intervention.load(saved.save(tmp_path / "i.safetensors"))
    assert loaded.content_hash == saved.content_hash
    assert loaded.changes_nothing()


def test_the_hash_survives_whole_numbers(tmp_path: Path) -> None:
    """A strength or an amplitude of 1 is a strength of 1.0, before saving and after."""
    matrix, basis = turn().matrix, turn().basis
    operators: list[Any] = [
        Unitary(np.zeros(D_MODEL), basis, matrix, 2),
        Random(D_MODEL, 3, 1),
        Random(np.int64(D_MODEL), np.float32(3), np.int64(1)),  # type: ignore[arg-type]
        Commitment(np.ones(D_MODEL), np.int64(4), np.int64(2)),  # type: ignore[arg-type]
        Unitary(np.zeros(D_MODEL), basis, matrix, np.float32(2), np.bool_(True)),  # type: ignore[arg-type]
    ]
    for operator in operators:
        for strength in (1, np.float32(1.0), np.int64(1)):
            saved = Intervention({np.int64(1): operator}, IDENTITY, strength)  # type: ignore[dict-item, arg-type]
            loaded = Intervention.load(saved.save(tmp_path / "i.safetensors"))
            assert loaded.content_hash == saved.content_hash
            assert type(saved.strength) is float


def test_one_operator_on_many_blocks_is_stored_once(tmp_path: Path) -> None:
    one = Intervention({0: turn()}, IDENTITY).save(tmp_path / "one").stat().st_size
    everywhere = Intervention.everywhere(turn(), range(N_LAYERS), IDENTITY)
    assert everywhere.layers == (0, 1, 2)
    assert everywhere.save(tmp_path / "all").stat().st_size < one + 1500
    folds = Intervention.load(tmp_path / "all").folds()
    assert {affine.A.tobytes() for affine in folds.values()} == {folds[0].A.tobytes()}


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (example().save(tmp_path / name).read_bytes() for name in "ab")
    assert first == second


# ---- the content hash ----


def test_the_hash_sees_what_decides_the_output() -> None:
    base = example()
    bumped = Additive(push().vector + 1e-12 * np.eye(D_MODEL)[0])
    variants = [
        base,
        base.at_strength(0.70001),
        base.at_strength(-0.7),
        replace(base, positions=Positions("prompt")),
        replace(base, positions=Positions(first_token=True)),
        replace(base, positions=Positions("range", 2)),
        replace(base, positions=Positions("range", 2, 5)),
        replace(base, operators={0: base.operators[0]}),
        replace(base, operators={0: base.operators[0], 1: base.operators[2]}),
        replace(base, operators={0: base.operators[2], 2: base.operators[0]}),
        replace(base, operators={0: turn(restore=False)}),
        replace(base, operators={0: turn(restore=True)}),
        replace(base, operators={0: push()}),
        replace(base, operators={0: bumped}),
        replace(base, operators={0: Random(D_MODEL, 1.0, 0)}),
        replace(base, operators={0: Random(D_MODEL, 1.0, 1)}),
    ]
    assert len({variant.content_hash for variant in variants}) == len(variants)


def test_the_hash_does_not_see_where_it_came_from() -> None:
    base = example()
    assert replace(base, lineage={"seed": 3}).content_hash == base.content_hash
    other_order = replace(base, operators=dict(reversed(list(base.operators.items()))))
    assert other_order.content_hash == base.content_hash
    assert len(base.content_hash) == 64


# ---- what it says and does ----


def test_folds_are_at_the_strength() -> None:
    intervention = Intervention({1: push(length=1.0)}, IDENTITY, 2.5)
    h = np.zeros((1, D_MODEL))
    change = reference.affine_apply(intervention.folds()[1], h)
    assert np.linalg.norm(change) == pytest.approx(2.5, rel=1e-6)
    assert intervention.at_strength(0.0).folds()[1].is_zero()


def test_changes_nothing() -> None:
    assert example().at_strength(0.0).changes_nothing()
    assert not example().changes_nothing()
    identity = registered()["unitary"].identity(D_MODEL)
    assert Intervention({0: identity, 1: identity}, IDENTITY).changes_nothing()
    assert not Intervention({0: identity, 1: push()}, IDENTITY).changes_nothing()


def test_describe() -> None:
    text = example(positions=Positions("range", 2, 5)).describe()
    assert text == "unitary on blocks 0, 2, strength 0.7, positions 2-5"
    mixed = Intervention({1: push(), 0: turn()}, IDENTITY).describe()
    assert mixed == "additive+unitary on blocks 0..1, strength 1, positions all"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"operators": {}}, "an operator on at least one block, got none"),
        ({"strength": float("nan")}, "a finite strength, got nan"),
        ({"strength": float("inf")}, "a finite strength, got inf"),
        ({"operators": {N_LAYERS: push()}}, "blocks 0..2 of tiny, got 3"),
        ({"operators": {-1: push()}}, "blocks 0..2 of tiny, got -1"),
        ({"operators": {1: push(32)}}, "operators of width 64 for tiny, got 32 at block 1"),
    ],
)
def test_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r"^\[intervention\] expected ") as caught:
        Intervention(**{"operators": {0: push()}, "identity": IDENTITY, **options})
    assert str(caught.value) == f"[intervention] expected {words}"


# ---- hostile files ----


def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and metadata of a good file."""
    intervention = Intervention({0: turn(), 2: push()}, IDENTITY, 0.5)
    return intervention._parts()


def edited(path: str, value: Any) -> dict[str, Any]:
    """The metadata of a good file with one entry replaced, or removed where value is ``...``."""
    metadata: dict[str, Any] = json.loads(json.dumps(parts()[1]))
    *route, last = path.split(".")
    place: Any = metadata
    for step in route:
        place = place[int(step)] if step.isdigit() else place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return metadata


BAD_METADATA: list[tuple[str, Any]] = [
    ("operators", ...),
    ("operators", {}),
    ("operators", []),
    ("operators", "abc"),
    ("operators", 3),
    ("operators", None),
    ("operators", [1, 2]),
    ("operators", [[]]),
    ("operators.0.layer", ...),
    ("operators.0.layer", "two"),
    ("operators.0.layer", 99),
    ("operators.0.layer", -1),
    ("operators.0.layer", 1.5),
    ("operators.0.layer", True),
    ("operators.0.layer", None),
    ("operators.0.layer", 2),  # twice the same block
    ("operators.0.name", "operator.7"),
    ("operators.0.name", None),
    ("operators.0.kind", "sideways"),
    ("operators.0.kind", ["unitary"]),
    ("operators.0.kind", "lowrank"),
    ("operators.0.kind", None),
    ("operators.0.tensors", 5),
    ("operators.0.tensors", ["mean"]),
    ("operators.0.tensors", ["mean", "nonsense"]),
    ("operators.0.tensors", [[]]),
    ("operators.0.parameters", ...),
    ("operators.0.parameters", []),
    ("operators.0.parameters", {}),
    ("operators.0.parameters.amplitude", "large"),
    ("operators.0.parameters.amplitude", None),
    ("operators.0.parameters.amplitude", [1.0]),
    ("operators.0.parameters.restore", "no"),
    ("operators.0.parameters.restore", 1),
    ("strength", ...),
    ("strength", "strong"),
    ("strength", "1"),
    ("strength", None),
    ("strength", [1.0]),
    ("strength", True),
    ("positions", ...),
    ("positions", "all"),
    ("positions", []),
    ("positions", {"kind": "sideways"}),
    ("positions", {"colour": "red"}),
    ("positions.kind", None),
    ("positions.kind", ["all"]),
    ("positions.start", "0"),
    ("positions.start", 1.5),
    ("positions.start", -1),
    ("positions.stop", 0),
    ("positions.first_token", "yes"),
    ("model", ...),
    ("model", "llama"),
    ("model", []),
    ("model.n_layers", ...),
    ("model.n_layers", "many"),
    ("model.n_layers", 1),
    ("model.n_layers", 3.5),
    ("model.d_model", 32),
    ("model.d_model", None),
    ("model.name", 7),
    ("model.fingerprint", ["f"]),
    ("lineage", ...),
    ("lineage", "home"),
    ("lineage", [["a", 1]]),
    ("lineage", None),
]


@pytest.mark.parametrize(("path", "value"), BAD_METADATA, ids=str)
def test_bad_metadata_is_refused(path: str, value: Any, tmp_path: Path) -> None:
    file = artefact.write(tmp_path / "i", "intervention", parts()[0], edited(path, value))
    with pytest.raises(ArtefactError, match=r"\A\[load\] expected [^\n]+\Z"):
        Intervention.load(file)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
@pytest.mark.parametrize(
    "path", ["strength", "operators.0.layer", "model.n_layers", "operators.0.parameters.amplitude"]
)
def test_numbers_beyond_json_are_refused(path: str, number: str, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    text = json.dumps(edited(path, "@@")).replace('"@@"', number)
    header = {"format": "cogit", "format_version": "1", "kind": "intervention", "json": text}
    arrays = {name: np.ascontiguousarray(value) for name, value in parts()[0].items()}
    save_file(arrays, tmp_path / "i", metadata=header)
    with pytest.raises(ArtefactError, match=r"\A\[load\] expected [^\n]+\Z"):
        Intervention.load(tmp_path / "i")


BAD_TENSORS: list[tuple[str, Any]] = [
    ("operator.0.mean", ...),
    ("operator.0.mean", np.zeros(D_MODEL + 1)),
    ("operator.0.mean", np.zeros((D_MODEL, 1))),
    ("operator.0.mean", np.zeros(0)),
    ("operator.0.basis", np.zeros((D_MODEL, 6))),
    ("operator.0.basis", turn().basis[:, :4]),
    ("operator.0.basis", turn().basis.T),
    ("operator.0.matrix_real", 2 * np.eye(4)),
    ("operator.0.matrix_real", np.eye(3)),
    ("operator.0.matrix_imag", np.ones((4, 4))),
    ("operator.0.matrix_imag", np.zeros((1,))),
    ("operator.0.matrix_imag", np.zeros((5, 5))),
    ("operator.1.vector", np.zeros(D_MODEL - 1)),
    ("operator.1.vector", np.zeros((2, 2))),
]


@pytest.mark.parametrize(("name", "value"), BAD_TENSORS, ids=lambda x: str(np.shape(x) or x))
def test_bad_tensors_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    tensors, metadata = parts()
    assert name in tensors
    if value is ...:
        del tensors[name]
    else:
        tensors[name] = value
    file = artefact.write(tmp_path / "i", "intervention", tensors, metadata)
    with pytest.raises(ArtefactError, match=r"\A\[load\] expected [^\n]+\Z"):
        Intervention.load(file)


def test_another_kind_of_artefact(tmp_path: Path) -> None:
    file = artefact.write(tmp_path / "s", "subspace", *parts())
    with pytest.raises(ArtefactError, match="expected a file of kind intervention, got subspace"):
        Intervention.load(file)


# ---- the model's identity ----


def test_identities_of_one_shape_are_welcome() -> None:
    other = replace(IDENTITY, name="the same, quantised", architecture="gguf", fingerprint="f")
    IDENTITY.require_same_shape(other)
    for wrong in (replace(IDENTITY, n_layers=4), replace(IDENTITY, d_model=65)):
        with pytest.raises(InterventionError, match=r"^\[intervention\] expected a model with 3 "):
            IDENTITY.require_same_shape(wrong)


def test_identity_round_trips() -> None:
    assert ModelIdentity.from_json(json.loads(json.dumps(IDENTITY.to_json()))) == IDENTITY


def test_fingerprints(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    content = bytearray(np.random.default_rng(0).bytes(3 * 2**20))
    first.write_bytes(content)
    second.write_bytes(b"x")
    base = file_fingerprint([first, second])
    assert base == file_fingerprint([second, first])
    content[-1] ^= 1
    first.write_bytes(content)
    changed = file_fingerprint([first, second])
    first.rename(tmp_path / "c")
    assert len({base, changed, file_fingerprint([tmp_path / "c", second])}) == 3
