"""Training that is stopped and goes on ends where it would have ended (row Q14)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _born import planted_rotation, projection, residual_states
from cogit import artefact
from cogit.errors import ArtefactError
from cogit.training.born import BornResult, train_born
from cogit.training.born_config import BornConfig
from cogit.training.born_pair import fit_born
from cogit.training.checkpoint import KIND

if TYPE_CHECKING:
    from collections.abc import Callable

# Unrelated states and large steps: restless, so that the learning rate falls on the way and the
# scheduler's state counts.
SOURCE, TARGET = (planted_rotation(n=24, q=6, seed=seed)[0] for seed in (0, 1))
CONFIG = BornConfig(epochs=30, learning_rate=0.3, patience=1, batch_size=4)


class StopError(Exception):
    """Stands for whatever ends a run in the middle."""


def stop_at(name: str, epoch: int) -> Callable[[str, int, float], None]:
    def stop(current: str, number: int, _: float) -> None:
        if (current, number) == (name, epoch):
            raise StopError

    return stop


@pytest.fixture(scope="module")
def whole() -> BornResult:
    result = train_born(SOURCE, TARGET, CONFIG)
    assert result.learning_rate < CONFIG.learning_rate / 2
    return result


def same(one: BornResult, other: BornResult) -> None:
    """To the last bit, which is more than the 1e-6 of row Q14."""
    assert one.loss_history == other.loss_history
    assert one.fidelity_history == other.fidelity_history
    assert one.learning_rate == other.learning_rate
    assert torch.equal(one.module.unitary(), other.module.unitary())
    assert (one.fidelity, one.transport) == (other.fidelity, other.transport)


@pytest.mark.parametrize(
    ("name", "epoch"), [("born", 7), ("born", 17), ("born", 30), ("shuffled", 1), ("shuffled", 23)]
)
def test_a_stopped_run_ends_at_the_same_place(
    whole: BornResult, tmp_path: Path, name: str, epoch: int
) -> None:
    """Row Q14: between two checkpoints, at one, and in the control's training."""
    folder = tmp_path / "run"
    with pytest.raises(StopError):
        train_born(
            SOURCE,
            TARGET,
            CONFIG,
            checkpoint=folder,
            checkpoint_every=5,
            on_epoch=stop_at(name, epoch),
        )
    seen: list[tuple[str, int]] = []
    result = train_born(
        SOURCE,
        TARGET,
        CONFIG,
        checkpoint=folder,
        checkpoint_every=5,
        resume=True,
        on_epoch=lambda current, number, _: seen.append((current, number)),
    )
    same(result, whole)
    first = epoch - epoch % 5 + 1
    assert (name, first) in seen or first > 30
    assert (name, first - 1) not in seen


def test_a_killed_process_is_resumed(whole: BornResult, tmp_path: Path) -> None:
    """Row Q14: killed without a warning, as a machine that goes down."""
    folder = tmp_path / "run"
    code = f"""
import os, signal
from _born import planted_rotation
from cogit.training.born import train_born
from cogit.training.born_config import BornConfig
source, target = (planted_rotation(n=24, q=6, seed=seed)[0] for seed in (0, 1))
config = BornConfig(epochs=30, learning_rate=0.3, patience=1, batch_size=4)
def on_epoch(name, number, loss):
    if number == 14:
        os.kill(os.getpid(), signal.SIGKILL)
train_born(source, target, config, checkpoint={str(folder)!r}, checkpoint_every=3,
           on_epoch=on_epoch)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    assert [file.name for file in folder.iterdir()] == ["born.safetensors"]
    result = train_born(SOURCE, TARGET, CONFIG, checkpoint=folder, checkpoint_every=3, resume=True)
    same(result, whole)


@pytest.mark.parametrize("family", ["lowrank", "diagonal"])
def test_other_families_resume(tmp_path: Path, family: Any) -> None:
    config = replace(CONFIG, family=family, rank=2, epochs=12)
    with pytest.raises(StopError):
        train_born(
            SOURCE,
            TARGET,
            config,
            checkpoint=tmp_path,
            checkpoint_every=4,
            on_epoch=stop_at("born", 10),
        )
    result = train_born(SOURCE, TARGET, config, checkpoint=tmp_path, resume=True)
    same(result, train_born(SOURCE, TARGET, config))


def test_both_directions_resume(tmp_path: Path) -> None:
    states = residual_states(n=12)
    config = BornConfig(epochs=6, learning_rate=5e-3)
    calls = 0

    def stop(name: str, number: int, _: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 15:  # in the second direction
            raise StopError

    with pytest.raises(StopError):
        fit_born(
            *states,
            config,
            projection=projection(),
            checkpoint=tmp_path,
            checkpoint_every=2,
            on_epoch=stop,
        )
    resumed = fit_born(*states, config, projection=projection(), checkpoint=tmp_path, resume=True)
    plain = fit_born(*states, config, projection=projection())
    for direction, result in plain.results.items():
        same(resumed.results[direction], result)
    assert resumed.polarity == plain.polarity


def test_more_epochs_are_a_longer_run(whole: BornResult, tmp_path: Path) -> None:
    train_born(SOURCE, TARGET, replace(CONFIG, epochs=12), checkpoint=tmp_path)
    same(train_born(SOURCE, TARGET, CONFIG, checkpoint=tmp_path, resume=True), whole)
    short = replace(CONFIG, epochs=12)
    with pytest.raises(
        ValueError, match=r"^\[resume\] expected at most 12 finished epochs, got 30"
    ):
        train_born(SOURCE, TARGET, short, checkpoint=tmp_path, resume=True)


# ---- the file ----


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A folder with a checkpoint of epoch 5."""
    with pytest.raises(StopError):
        train_born(
            SOURCE,
            TARGET,
            CONFIG,
            checkpoint=tmp_path,
            checkpoint_every=5,
            on_epoch=stop_at("born", 6),
        )
    return tmp_path


def resume(folder: Path, config: BornConfig = CONFIG, source: Any = SOURCE) -> BornResult:
    return train_born(source, TARGET, config, checkpoint=folder, resume=True)


def test_a_checkpoint_is_tensors_and_json(stopped: Path) -> None:
    """Row Q12: the curves are in it. Row Q14: and everything that changes."""
    tensors, metadata = artefact.read(stopped / "born.safetensors", KIND)
    assert set(tensors) == {
        "generator",
        "model.free",
        "optimiser.0.step",
        "optimiser.0.exp_avg",
        "optimiser.0.exp_avg_sq",
    }
    assert metadata["epoch"] == len(metadata["loss_history"]) == 5
    assert len(metadata["fidelity_history"]) == 5
    assert metadata["settings"] == CONFIG.settings()
    assert set(metadata["scheduler"]) == {
        "best",
        "num_bad_epochs",
        "cooldown_counter",
        "last_epoch",
    }


def test_a_failed_write_leaves_the_last_checkpoint(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row Q14: written whole or not at all."""
    before = (stopped / "born.safetensors").read_bytes()

    def fail(self: Path, target: Path) -> Path:
        message = "no space"
        raise OSError(message)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        resume(stopped)
    assert (stopped / "born.safetensors").read_bytes() == before
    assert len(list(stopped.iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 7},
        {"learning_rate": 0.1},
        {"batch_size": 5},
        {"weight_decay": 0.0},
        {"held_out": 0.3},
        {"centred": True},
        {"family": "diagonal"},
        {"precision": "complex128"},
    ],
)
def test_other_settings_are_refused(stopped: Path, change: dict[str, Any]) -> None:
    name = next(iter(change))
    with pytest.raises(
        ArtefactError, match=rf"^\[resume\] .*got others \({name} .* -> .*\); start"
    ):
        resume(stopped, replace(CONFIG, **change))


def test_other_data_are_refused(stopped: Path) -> None:
    other = SOURCE.copy()
    other[3, 2] += 1e-3
    with pytest.raises(ArtefactError, match=r"^\[resume\] expected the states that"):
        resume(stopped, source=other)


def test_a_folder_is_not_overwritten_and_nothing_is_made_up(stopped: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match=r"^\[born\] expected a folder without a checkpoint"):
        train_born(SOURCE, TARGET, CONFIG, checkpoint=stopped)
    with pytest.raises(FileNotFoundError, match=r"^\[resume\] expected a checkpoint .*not exist"):
        resume(tmp_path / "absent")


def rewritten(folder: Path, tensors: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Another file in place of the checkpoint; None leaves an entry out."""
    file = folder / "born.safetensors"
    old_tensors, old_metadata = artefact.read(file, KIND)
    new = {k: v for k, v in (old_tensors | tensors).items() if v is not None}
    more = {k: v for k, v in (old_metadata | metadata).items() if v is not None}
    artefact.write(file, KIND, new, more)


HOSTILE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no parameters": ({"model.free": None}, {}),
    "more parameters": ({"model.other": np.zeros(3, np.float32)}, {}),
    "another shape": ({"model.free": np.zeros((5, 5), np.float32)}, {}),
    "another dtype": ({"model.free": np.zeros((6, 6))}, {}),
    "no slot": ({"optimiser.0.exp_avg": None}, {}),
    "a slot of another shape": ({"optimiser.0.exp_avg": np.zeros((6, 5), np.float32)}, {}),
    "two steps": ({"optimiser.0.step": np.zeros(2, np.float32)}, {}),
    "no generator": ({"generator": None}, {}),
    "a short generator": ({"generator": np.zeros(3, np.uint8)}, {}),
    "another generator": ({"generator": np.zeros(5056, np.float32)}, {}),
    "no epoch": ({}, {"epoch": None}),
    "a negative epoch": ({}, {"epoch": -5}),
    "an epoch of text": ({}, {"epoch": "5"}),
    "short curves": ({}, {"loss_history": [0.1]}),
    "curves of text": ({}, {"loss_history": ["0.1"] * 5}),
    "no settings": ({}, {"settings": None}),
    "settings as a list": ({}, {"settings": []}),
    "no rates": ({}, {"learning_rates": []}),
    "no scheduler": ({}, {"scheduler": {}}),
    "a scheduler of text": ({}, {"scheduler": "best"}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_damaged_checkpoints_are_refused(stopped: Path, case: str) -> None:
    rewritten(stopped, *HOSTILE[case])
    with pytest.raises(ArtefactError, match=r"^\[resume\] expected [^\n]*$"):
        resume(stopped)


def test_files_that_are_no_checkpoints_are_refused(stopped: Path) -> None:
    file = stopped / "born.safetensors"
    whole = file.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"]["kind"] = "subspace"
    other = json.dumps(header).encode()
    for data in (
        whole[: len(whole) // 2],
        b"",
        b"\x80\x04\x95",
        len(other).to_bytes(8, "little") + other + whole[8 + length :],
    ):
        file.write_bytes(data)
        with pytest.raises(ArtefactError, match=r"^\[load\] [^\n]*$"):
            resume(stopped)
