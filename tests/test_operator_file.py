"""Files of trained unitaries: the schema, the importer of the older form, and hostile files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _born import planted_rotation
from _unitaries import gaussian
from cogit import artefact
from cogit.errors import ArtefactError
from cogit.training.born import BornResult, train_born
from cogit.training.born_config import BornConfig
from cogit.training.operator_file import KIND, OperatorConfig, OperatorFile

if TYPE_CHECKING:
    pass

Q = 6


@pytest.fixture(scope="module")
def result() -> BornResult:
    source, target, _ = planted_rotation(n=12, q=Q)
    return train_born(source, target, BornConfig(epochs=4, learning_rate=1e-2))


def made(result: BornResult, **changes: Any) -> OperatorFile:
    facts: dict[str, Any] = {
        "model_name": "a model",
        "model_identifier": "someone/a-model",
        "input_dim": 4,
        "layer": 3,
        "preset": "qwen_tiny",
        "direction": "negative_to_positive",
    }
    return OperatorFile.of(result, **(facts | changes))


# ---- our form ----


def test_the_schema(result: BornResult, tmp_path: Path) -> None:
    """Row Q15: the four entries; the preset and the layer are in it."""
    file = made(result)
    document = OperatorFile.load(file.save(tmp_path / "u.safetensors")).document()
    assert list(document) == ["model_state_dict", "config", "training_history", "timestamp"]
    assert document["config"] == {
        "model_name": "a model",
        "model_identifier": "someone/a-model",
        "quantum_dim": Q,
        "input_dim": 4,
        "preset": "qwen_tiny",
        "layer": 3,
        "family": "dense",
        "rank": 4,
        "direction": "negative_to_positive",
    }
    assert document["training_history"] == {
        "loss_history": list(result.loss_history),
        "fidelity_history": list(result.fidelity_history),
    }
    assert document["timestamp"] == file.timestamp
    assert document["timestamp"].endswith("+00:00")
    assert list(document["model_state_dict"]) == ["free"]
    assert document["model_state_dict"]["free"].shape == (Q, Q)


@pytest.mark.parametrize("family", ["dense", "lowrank", "diagonal"])
@pytest.mark.parametrize("precision", ["complex64", "complex128"])
def test_a_round_trip(tmp_path: Path, family: Any, precision: Any) -> None:
    source, target, _ = planted_rotation(n=12, q=Q)
    config = BornConfig(epochs=2, learning_rate=1e-2, family=family, precision=precision, rank=2)
    trained = train_born(source, target, config)
    file = made(trained)
    again = OperatorFile.load(file.save(tmp_path / "u.safetensors"))
    assert again.config == file.config
    assert again.unitary().dtype == precision
    with torch.no_grad():
        assert np.array_equal(again.unitary(), trained.module.unitary().numpy())
        rows = torch.from_numpy(source).to(trained.module.dtype)
        assert torch.equal(again.module()(rows), trained.module(rows))
    assert (tmp_path / "u.safetensors").read_bytes() == again.save(tmp_path / "v").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": -1}, "expected layer to be a block number"),
        ({"layer": True}, "expected layer to be a block number"),
        ({"preset": "mine"}, "expected preset to be one of tiny, .*, custom, unknown, got mine"),
        ({"input_dim": 0}, "expected input_dim to be a whole number of 1 or more, got 0"),
        ({"direction": "up"}, "expected direction to be one of negative_to_positive"),
        ({"model_name": "x" * 501}, "expected model_name to be a short text"),
    ],
)
def test_entries_that_do_not_fit(result: BornResult, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[operator\] {message}"):
        made(result, **change)


CONFIG = OperatorConfig("a", "b", Q, 4, "custom", 0)
FREE = gaussian(Q, Q, dtype=torch.float32).numpy()


@pytest.mark.parametrize(
    ("state", "config", "message"),
    [
        ({"free": FREE[:5]}, CONFIG, "expected parameters to be"),
        ({"free": FREE, "more": FREE}, CONFIG, "expected parameters to be"),
        ({}, CONFIG, "expected parameters to be"),
        ({"phases": FREE[0]}, CONFIG, "expected parameters to be"),
        ({"free": FREE}, replace(CONFIG, quantum_dim=7), r"expected parameters to be .*\(7, 7\)"),
        ({"free": FREE.astype(np.int32)}, CONFIG, "expected dtype to be float32 or float64"),
        ({"free": FREE * np.float32(np.nan)}, CONFIG, "expected parameters to be finite"),
    ],
)
def test_parameters_that_do_not_fit(state: Any, config: OperatorConfig, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[operator\] {message}"):
        OperatorFile(state, config)


def test_what_is_not_unitary_is_refused(tmp_path: Path) -> None:
    """Nearly parallel axes of great length: the rounding of Woodbury's formula is ε |W|²."""
    x = 3e2 * gaussian(Q, 2, 2, dtype=torch.float32).numpy()
    state = {"x": x, "y": x * np.float32(1.00001)}
    config = replace(CONFIG, family="lowrank", rank=2)
    file = OperatorFile.load(OperatorFile(state, config).save(tmp_path / "u"))
    with pytest.raises(ArtefactError, match=r"^\[operator\] expected a unitary, got max .* from"):
        file.unitary()
    huge = OperatorFile({"free": np.full((Q, Q), 1e200)}, CONFIG)
    try:  # either it is unitary, or it is refused
        unitary = huge.unitary()
    except ArtefactError:
        return
    assert np.abs(unitary.conj().T @ unitary - np.eye(Q)).max() < 1e-4


def edited(path: Path, tensors: dict[str, Any], document: dict[str, Any]) -> Path:
    old_tensors, old = artefact.read(path, KIND)
    return artefact.write(path, KIND, old_tensors | tensors, old | document)


@pytest.mark.parametrize(
    "document",
    [
        {"config": None},
        {"config": {}},
        {"config": {"model_name": "a"}},
        {"config": {**vars(CONFIG), "more": 1}},
        {"config": {**vars(CONFIG), "quantum_dim": 10**9}},
        {"config": {**vars(CONFIG), "quantum_dim": "6"}},
        {"config": {**vars(CONFIG), "family": "mlp"}},
        {"config": {**vars(CONFIG), "family": []}},
        {"config": {**vars(CONFIG), "layer": 1.5}},
        {"training_history": []},
        {"training_history": {"loss_history": [0.1]}},
        {"training_history": {"loss_history": ["x"], "fidelity_history": []}},
        {"timestamp": 5},
        {"timestamp": "x" * 65},
    ],
)
def test_damaged_files_are_refused(
    result: BornResult, tmp_path: Path, document: dict[str, Any]
) -> None:
    path = edited(made(result).save(tmp_path / "u"), {}, document)
    with pytest.raises(ArtefactError, match=r"^\[load\] expected a trained unitary in [^\n]*$"):
        OperatorFile.load(path)


def test_foreign_files_are_refused(result: BornResult, tmp_path: Path) -> None:
    path = made(result).save(tmp_path / "u")
    with pytest.raises(ArtefactError, match=r"^\[load\] expected at most 100 bytes, got"):
        OperatorFile.load(path, max_bytes=100)
    with pytest.raises(FileNotFoundError, match=r"^\[load\] expected a file, got .*not exist"):
        OperatorFile.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="a folder"):
        OperatorFile.load(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ArtefactError, match="expected a whole safetensors file"):
        OperatorFile.load(path)
    other = artefact.write(tmp_path / "v", "subspace", {"free": FREE}, {})
    with pytest.raises(ArtefactError, match=f"expected a file of kind {KIND}, got subspace"):
        OperatorFile.load(other)
