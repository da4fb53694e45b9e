"""Mean and covariance of states at every layer, for both classes, without keeping a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.identity import ModelIdentity
from cogit.layers import LayerRange
from cogit.pairs import ContrastPair
from cogit.progress import track
from cogit.recording import Recordable, make_plan, run_shard
from cogit.running import RunningMoments
from cogit.selection import Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KIND = "moments"
_SIDES = ("positive", "negative")


@dataclass(frozen=True)
class ActivationMoments:
    """Running moments of both classes, one at each of ``layers``; float64."""

    positive: tuple[RunningMoments, ...]
    negative: tuple[RunningMoments, ...]
    layers: tuple[int, ...]
    identity: ModelIdentity
    hook_point: str
    select: str

    def at(self, layer: int) -> tuple[RunningMoments, RunningMoments]:
        """Both classes at one block; ValueError if it was not recorded."""
        if layer not in self.layers:
            message = f"[moments] expected a recorded block {self.layers}, got {layer}"
            raise ValueError(message)
        index = self.layers.index(layer)
        return self.positive[index], self.negative[index]

    def save(self, path: str | Path) -> Path:
        """Counts, means (layer, d) and covariances (layer, d, d) or variances (layer, d)."""
        tensors: dict[str, NDArray[Any]] = {}
        for side, parts in zip(_SIDES, (self.positive, self.negative), strict=True):
            tensors[f"{side}_count"] = np.asarray([m.count for m in parts], np.int64)
            tensors[f"{side}_mean"] = np.stack([m.mean for m in parts])
            tensors[f"{side}_second"] = np.stack(
                [m.variance() if m.diagonal else m.covariance() for m in parts]
            )
        metadata = {
            "layers": list(self.layers),
            "hook_point": self.hook_point,
            "select": self.select,
            "model": self.identity.to_json(),
        }
        return artefact.write(path, _KIND, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> ActivationMoments:
        """Raises FileNotFoundError or ArtefactError."""
        tensors, data = artefact.read(path, _KIND)
        try:
            layers = entry(data, "layers", list)
            parts = [
                tuple(
                    RunningMoments.of(int(count), mean, second)
                    for count, mean, second in zip(
                        *(tensors[f"{side}_{name}"] for name in ("count", "mean", "second")),
                        strict=True,
                    )
                )
                for side in _SIDES
            ]
            if {len(part) for part in parts} != {len(layers)}:
                message = f"expected moments of {len(layers)} blocks"
                raise ValueError(message)
            return cls(
                parts[0],
                parts[1],
                tuple(entry(layers, i, int) for i in range(len(layers))),
                ModelIdentity.from_json(entry(data, "model", dict)),
                entry(data, "hook_point", str),
                entry(data, "select", str),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            message = f"[load] expected moments in {path}, got {error}"
            raise ArtefactError(message) from error


def record_moments(
    backend: Recordable,
    pairs: Sequence[ContrastPair],
    layers: LayerRange | None = None,
    *,
    hook_point: str = "resid_post",
    select: Selection | str = "all",
    diagonal: bool = False,
    show_progress: bool = True,
) -> ActivationMoments:
    """Mean and covariance (``diagonal``: variance) of the selected states of both classes.

    Rows are dropped as soon as they are counted; memory is one batch and 8·d² bytes a block and
    class, or 8·d. ``after-first`` leaves out the first tokens, whose norms may outweigh all others.
    Raises ValueError as ``record``.
    """
    plan = make_plan(backend, pairs, layers, hook_point=hook_point, select=select)
    recipe = plan.recipe
    width = recipe.identity.d_model
    sides = [tuple(RunningMoments(width, diagonal=diagonal) for _ in recipe.layers) for _ in _SIDES]
    for number in track(range(len(recipe.shards)), "recording", show=show_progress):
        for text, rows in run_shard(backend, plan, number):
            for moments, states in zip(sides[text % 2], rows.states, strict=True):
                moments.update(states)
    return ActivationMoments(
        sides[0],
        sides[1],
        recipe.layers,
        recipe.identity,
        str(recipe.hook_point),
        str(recipe.select),
    )
