"""Starts, settings and checkpoints that a refinement refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _planted import PLANTED_LAYER, planted_backend
from _refine import SETTINGS, planted_data, small_start
from cogit.backends.transformers import TransformersBackend
from cogit.errors import ArtefactError
from cogit.evaluation.teacher_forced import Budget
from cogit.intervention import Intervention
from cogit.operators import Additive
from cogit.positions import Positions
from cogit.training import refine_state
from cogit.training.through_model import Refined, RefineData, RefineSettings, refine


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return planted_backend()


@pytest.fixture(scope="module")
def start(backend: TransformersBackend) -> Intervention:
    return small_start(backend)


@pytest.fixture(scope="module")
def data() -> RefineData:
    return planted_data()


@pytest.fixture(scope="module")
def whole(
    backend: TransformersBackend,
    start: Intervention,
    data: RefineData,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Refined, Path]:
    """An uninterrupted run and its checkpoint folder."""
    folder = tmp_path_factory.mktemp("whole")
    return refine(backend, start, data, SETTINGS, checkpoint=folder), folder


def test_other_starts_are_refused(
    backend: TransformersBackend, start: Intervention, data: RefineData
) -> None:
    additive = replace(start, operators={PLANTED_LAYER: Additive(np.ones(start.identity.d_model))})
    with pytest.raises(TypeError, match=r"^\[refine\] expected unitary operators .* got additive$"):
        refine(backend, additive, data, SETTINGS)
    for positions in (Positions("generated"), Positions(first_token=True)):
        with pytest.raises(ValueError, match=r"^\[refine\] expected an intervention on all tokens"):
            refine(backend, replace(start, positions=positions), data, SETTINGS)
    with backend.steer(start), pytest.raises(ValueError, match="got one that steers"):
        refine(backend, start, data, SETTINGS)
    with pytest.raises(ValueError, match=r"^\[refine\] expected pairs and neutral texts"):
        refine(backend, start, replace(data, pairs=[]), SETTINGS)
    with pytest.raises(ValueError, match=r"^\[resume\] expected a checkpoint folder"):
        refine(backend, start, data, SETTINGS, resume=True)
    with pytest.raises(FileNotFoundError):
        refine(backend, start, data, SETTINGS, checkpoint=Path(), resume=True)


def test_a_checkpoint_is_not_overwritten(
    backend: TransformersBackend, start: Intervention, data: RefineData, whole: tuple[Refined, Path]
) -> None:
    _, folder = whole
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        FileExistsError, match=r"^\[refine\] expected a folder without a checkpoint"
    ):
        refine(backend, start, data, SETTINGS, checkpoint=folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_budget_that_nothing_meets_is_refused(
    backend: TransformersBackend, start: Intervention, data: RefineData
) -> None:
    strict = replace(data, budget=Budget(neutral_kl=0.0))
    with pytest.raises(ValueError, match=r"^\[refine\] expected a strength within .*got none in 2"):
        refine(backend, start, strict, replace(SETTINGS, steps=2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"strengths": (0.0, 1.0)},
        {"strengths": (1.0, 0.5)},
        {"kl_price": -1.0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"batch_pairs": 0},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^\[refine\] expected"):
        RefineSettings(**wrong)


def test_checkpoints_of_other_runs_are_refused(
    backend: TransformersBackend, start: Intervention, data: RefineData, whole: tuple[Refined, Path]
) -> None:
    _, folder = whole
    others = [
        (start, data, replace(SETTINGS, seed=3)),
        (start.at_strength(0.5), data, SETTINGS),
        (start, replace(data, check_pairs=data.check_pairs[1:]), SETTINGS),
    ]
    for begun, texts_, settings in others:
        with pytest.raises(ArtefactError, match=r"^\[resume\] expected the checkpoint of this run"):
            refine(backend, begun, texts_, settings, checkpoint=folder, resume=True)


def _damage_history(folder: Path, text: str) -> None:
    (folder / "history.jsonl").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["", "{}\n", "[1]\n", "not json\n", '{"step": 1, "loss": 2}\n', "[" * 50_000 + "\n"]
)
def test_damaged_curves_are_refused(tmp_path: Path, text: str) -> None:
    progress = refine_state.Progress(step=2)
    leaves = {"0.X": np.zeros((2, 2, 2))}
    refine_state.save(tmp_path, progress, leaves, {}, [{"step": 1, "loss": 1.0}], "run")
    _damage_history(tmp_path, text)
    with pytest.raises(ArtefactError, match=r"^\[resume\] expected"):
        refine_state.load(tmp_path, "run")


def test_damaged_checkpoints_are_refused(
    backend: TransformersBackend,
    start: Intervention,
    data: RefineData,
    whole: tuple[Refined, Path],
    tmp_path: Path,
) -> None:
    _, folder = whole
    for name in ("checkpoint.safetensors", "history.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    content = (folder / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtefactError, match=r"^\[load\] expected a whole safetensors file"):
        refine(backend, start, data, SETTINGS, checkpoint=tmp_path, resume=True)
    # Whole, of this run, with tensors of another shape.
    run = json.loads(_header(content)["json"])["run"]
    history = [{"step": i + 1, "loss": 1.0} for i in range(4)]
    wrong = {f"{PLANTED_LAYER}.{name}": np.zeros(3) for name in ("X", "Y", "log_gain")}
    refine_state.save(tmp_path, refine_state.Progress(step=4), wrong, {}, history, run)
    with pytest.raises(ArtefactError, match=r"^\[resume\] expected the tensors of this run"):
        refine(backend, start, data, SETTINGS, checkpoint=tmp_path, resume=True)


def _header(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    return found
