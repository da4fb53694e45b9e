"""The checkpoint of a refinement: safetensors and JSON lines, never pickle.

A folder with ``checkpoint.safetensors`` (trained tensors, the best ones so far, Adam's moments, the
step) and ``history.jsonl`` (one row a step, one an evaluation). Both are written whole or not at
all, the history first: rows beyond the checkpoint's step are dropped on resume.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tensors = dict[str, NDArray[np.float64]]

KIND = "refinement"
CHECKPOINT, HISTORY = "checkpoint.safetensors", "history.jsonl"
_MAX_HISTORY = 2**28


@dataclass
class Progress:
    """Where a refinement stands.

    step: steps done. best: the trained tensors of the best evaluation, best_factor its strength as
    a multiple of the start's, best_effect its contrast, in nats per pair; best is None before the
    first one within the budget. stale: evaluations since then. stopped: ended early.
    """

    step: int = 0
    stale: int = 0
    best_effect: float = -np.inf
    best_factor: float = 1.0
    best_step: int = 0
    best: Tensors | None = None
    stopped: bool = False


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    progress: Progress
    leaves: Tensors
    moments: Tensors
    history: list[dict[str, Any]]


def save(
    folder: Path,
    progress: Progress,
    leaves: Mapping[str, NDArray[np.float64]],
    moments: Mapping[str, NDArray[np.float64]],
    history: list[dict[str, Any]],
    run: str,
) -> None:
    """Write both files. run: a digest of everything that must not differ on resume."""
    lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in history)
    artefact.write_bytes(folder / HISTORY, lines.encode())
    tensors = {
        **{f"leaf.{name}": value for name, value in leaves.items()},
        **{f"moment.{name}": value for name, value in moments.items()},
        **{f"best.{name}": value for name, value in (progress.best or {}).items()},
    }
    metadata = {
        "run": run,
        "step": progress.step,
        "stale": progress.stale,
        "stopped": progress.stopped,
        "has_best": progress.best is not None,
        "best_effect": progress.best_effect if progress.best is not None else 0.0,
        "best_factor": progress.best_factor,
        "best_step": progress.best_step,
    }
    artefact.write(folder / CHECKPOINT, KIND, tensors, metadata)


def require_none(folder: Path) -> None:
    """FileExistsError where a folder holds a checkpoint, which a new run would overwrite."""
    file = folder / CHECKPOINT
    if file.exists():
        message = (
            f"[refine] expected a folder without a checkpoint, got {file}; resume it or move it"
        )
        raise FileExistsError(message)


def load(folder: Path, run: str) -> Saved:
    """Read a checkpoint. FileNotFoundError where none is; ArtefactError where it is another's."""
    path = folder / CHECKPOINT
    tensors, data = artefact.read(path, KIND)
    try:
        if entry(data, "run", str) != run:
            message = (
                f"[resume] expected the checkpoint of this run in {folder}, got one of another "
                f"model, start, data, settings or seed; name another folder or start anew"
            )
            raise ArtefactError(message)
        has_best = entry(data, "has_best", bool)
        progress = Progress(
            step=entry(data, "step", int),
            stale=entry(data, "stale", int),
            stopped=entry(data, "stopped", bool),
            best_effect=entry(data, "best_effect", float) if has_best else -np.inf,
            best_factor=entry(data, "best_factor", float),
            best_step=entry(data, "best_step", int),
            best=_part(tensors, "best.") if has_best else None,
        )
    except (KeyError, TypeError, IndexError) as error:
        message = f"[resume] expected a refinement's checkpoint in {path}, got {error}"
        raise ArtefactError(message) from error
    history = _read_history(folder / HISTORY, progress.step)
    return Saved(progress, _part(tensors, "leaf."), _part(tensors, "moment."), history)


def _part(tensors: Mapping[str, NDArray[Any]], prefix: str) -> Tensors:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _read_history(path: Path, step: int) -> list[dict[str, Any]]:
    """Rows up to a step; ArtefactError where the file is absent, broken or too short."""
    try:
        if path.stat().st_size > _MAX_HISTORY:
            message = f"[resume] {path} is larger than {_MAX_HISTORY // 2**20} MiB, the limit"
            raise ArtefactError(message)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        kept = [row for row in rows if entry(row, "step", int) <= step]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, ArtefactError):
            raise
        message = f"[resume] expected the loss curve of the checkpoint in {path}, got {error}"
        raise ArtefactError(message) from error
    if sum("loss" in row for row in kept) != step:
        message = f"[resume] expected {step} steps in {path}, got another number; start anew"
        raise ArtefactError(message)
    return kept
