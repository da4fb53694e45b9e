"""Training states on disk: stop anywhere, go on from the last one, end at the same place.

One file holds parameters, optimiser, scheduler, the generator of the shuffles, the epoch and the
curves, as safetensors with JSON: no pickle. It is written whole or not at all, and it is refused
where the settings or the data are not those it was made with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KIND = "training_checkpoint"
# What ReduceLROnPlateau changes as it goes; the rest of it are settings.
_PLATEAU: dict[str, type] = {
    "best": float,
    "num_bad_epochs": int,
    "cooldown_counter": int,
    "last_epoch": int,
}


@dataclass(frozen=True)
class TrainingState:
    """Everything that changes while training: read by `save_checkpoint`, set by `load_checkpoint`.

    generator: the CPU generator that draws the order of the rows.
    """

    module: nn.Module
    optimiser: Optimizer
    scheduler: ReduceLROnPlateau
    generator: torch.Generator


@dataclass(frozen=True)
class Progress:
    """How far training has come: finished epochs, and one mean loss and fidelity an epoch."""

    epoch: int
    loss_history: tuple[float, ...]
    fidelity_history: tuple[float, ...]


def save_checkpoint(
    path: str | Path,
    state: TrainingState,
    progress: Progress,
    *,
    settings: Mapping[str, Any],
    data: str,
) -> Path:
    """Write a checkpoint, atomically.

    settings: what must be the same to go on, as JSON values; data: a fingerprint of the states.
    Raises ArtefactError where a parameter is not finite and FileNotFoundError without a folder.
    """
    tensors: dict[str, NDArray[np.generic]] = {"generator": state.generator.get_state().numpy()}
    for name, value in state.module.state_dict().items():
        tensors[f"model.{name}"] = value.detach().cpu().numpy()
    optimiser = state.optimiser.state_dict()
    for index, slots in optimiser["state"].items():
        for name, value in slots.items():
            tensors[f"optimiser.{index}.{name}"] = value.detach().cpu().numpy()
    scheduler = state.scheduler.state_dict()
    metadata = {
        "settings": dict(settings),
        "data": data,
        "epoch": progress.epoch,
        "loss_history": list(progress.loss_history),
        "fidelity_history": list(progress.fidelity_history),
        "learning_rates": [group["lr"] for group in optimiser["param_groups"]],
        "scheduler": {key: scheduler[key] for key in _PLATEAU},
    }
    return artefact.write(path, KIND, tensors, metadata)


def load_checkpoint(
    path: str | Path,
    state: TrainingState,
    *,
    settings: Mapping[str, Any],
    data: str,
) -> Progress:
    """Bring a fresh training state to where the checkpoint was written.

    Everything is checked before anything is changed. Raises FileNotFoundError where there is none,
    ArtefactError for a file that is damaged, foreign, of other settings, other data or other
    shapes.
    """
    tensors, metadata = artefact.read(path, KIND)
    try:
        _require_same(path, metadata, dict(settings), data)
        progress = _progress(metadata)
        rates = entry(metadata, "learning_rates", list)
        groups = state.optimiser.state_dict()["param_groups"]
        if len(rates) != len(groups):
            message = f"expected {len(groups)} learning rates, got {len(rates)}"
            raise ValueError(message)
        for index, group in enumerate(groups):
            group["lr"] = entry(rates, index, float)
        plateau = entry(metadata, "scheduler", dict)
        changed: dict[str, Any] = {key: entry(plateau, key, kind) for key, kind in _PLATEAU.items()}
        model = _model_tensors(tensors, state.module)
        slots = _optimiser_tensors(tensors, state.module)
        shuffle = torch.from_numpy(tensors["generator"].copy())
        state.generator.set_state(shuffle)  # the one that checks itself comes first
    except ArtefactError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        message = f"[resume] expected a checkpoint of this training in {path}: {reason}"
        raise ArtefactError(message) from error
    state.module.load_state_dict(model)
    state.optimiser.load_state_dict({"state": slots, "param_groups": groups})
    changed["_last_lr"] = [group["lr"] for group in groups]
    state.scheduler.load_state_dict(changed)
    return progress


def _require_same(
    path: str | Path, metadata: Mapping[str, Any], settings: dict[str, Any], data: str
) -> None:
    stored = entry(metadata, "settings", dict)
    if stored != settings:
        names = sorted(
            key
            for key in stored.keys() | settings.keys()
            if key not in stored or key not in settings or stored[key] != settings[key]
        )
        told = ", ".join(f"{key} {stored.get(key)!r} -> {settings.get(key)!r}" for key in names)
        message = (
            f"[resume] expected the settings that {path} was made with, got others ({told}); "
            f"start anew in another folder"
        )
        raise ArtefactError(message)
    if entry(metadata, "data", str) != data:
        message = (
            f"[resume] expected the states that {path} was made with, got others; "
            f"start anew in another folder"
        )
        raise ArtefactError(message)


def _progress(metadata: Mapping[str, Any]) -> Progress:
    epoch = entry(metadata, "epoch", int)
    curves = []
    for name in ("loss_history", "fidelity_history"):
        values = entry(metadata, name, list)
        if len(values) != epoch or epoch < 1:
            message = f"expected one entry of {name} for each of {epoch} epochs, got {len(values)}"
            raise ValueError(message)
        curves.append(tuple(entry(values, i, float) for i in range(epoch)))
    return Progress(epoch, curves[0], curves[1])


def _model_tensors(tensors: artefact.Tensors, module: nn.Module) -> dict[str, Tensor]:
    expected = module.state_dict()
    found = {
        name.removeprefix("model."): torch.from_numpy(value)
        for name, value in tensors.items()
        if name.startswith("model.")
    }
    if found.keys() != expected.keys():
        message = f"expected parameters {sorted(expected)}, got {sorted(found)}"
        raise ValueError(message)
    for name, value in expected.items():
        _require_form(name, found[name], value.shape, value.dtype)
    return found


def _optimiser_tensors(
    tensors: artefact.Tensors, module: nn.Module
) -> dict[int, dict[str, Tensor]]:
    """Adam's slots of every parameter, by its number."""
    parameters = list(module.parameters())
    slots: dict[int, dict[str, Tensor]] = {}
    for index, parameter in enumerate(parameters):
        slots[index] = {}
        for name in ("step", "exp_avg", "exp_avg_sq"):
            value = torch.from_numpy(tensors[f"optimiser.{index}.{name}"])
            # The container keeps no arrays without axes.
            value = value.reshape(()) if name == "step" else value
            shape = torch.Size() if name == "step" else parameter.shape
            dtype = torch.float32 if name == "step" else parameter.dtype
            _require_form(f"optimiser.{index}.{name}", value, shape, dtype)
            slots[index][name] = value
    return slots


def _require_form(name: str, value: Tensor, shape: torch.Size, dtype: torch.dtype) -> None:
    if value.shape != shape or value.dtype != dtype:
        message = (
            f"expected {name} of shape {tuple(shape)} in {dtype}, "
            f"got {tuple(value.shape)} in {value.dtype}"
        )
        raise ValueError(message)
