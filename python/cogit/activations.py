"""Activations: states of contrast pairs, one row a text and layer."""

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
from cogit.recording import Recordable, cached_store, make_plan, run_shard
from cogit.selection import Selection
from cogit.store import ActivationStore, Recipe

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Activations", "Recordable", "record"]


@dataclass(frozen=True)
class Activations:
    """States of matched texts at one hook point of some blocks, one row a text.

    positive, negative: (layer, pair, d_model) float32, rows matched.
    layers: the block numbers of the first axis. tail: how many last tokens were averaged (0 where
    the selection is not of that kind). hook_point, select: by their names, see ``HookPoint`` and
    ``Selection``; select is ``tail-K`` unless given.
    """

    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    layers: tuple[int, ...]
    tail: int
    identity: ModelIdentity
    hook_point: str = "resid_post"
    select: str = ""

    def __post_init__(self) -> None:
        if not self.select:
            object.__setattr__(self, "select", f"tail-{self.tail}")
        expected = (len(self.layers), self.positive.shape[1], self.identity.d_model)
        if self.positive.shape != expected or self.negative.shape != expected:
            message = (
                f"[activations] expected two arrays (layer, pair, d_model) = {expected}, "
                f"got {self.positive.shape} and {self.negative.shape}"
            )
            raise ValueError(message)
        if not (np.isfinite(self.positive).all() and np.isfinite(self.negative).all()):
            message = (
                f"[activations] expected finite states, got NaN or infinity from "
                f"{self.identity.name}"
            )
            raise ValueError(message)

    def at(self, layer: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The (pair, d_model) states of both classes at one block; ValueError if not recorded."""
        if layer not in self.layers:
            message = f"[activations] expected a recorded block {self.layers}, got {layer}"
            raise ValueError(message)
        index = self.layers.index(layer)
        return self.positive[index], self.negative[index]

    def save(self, path: str | Path) -> Path:
        tensors = {"positive": self.positive, "negative": self.negative}
        return artefact.write(path, "activations", tensors, self._metadata())

    @classmethod
    def load(cls, path: str | Path) -> Activations:
        """Read a file of ``save``, or a finished store of ``record_to`` with one row a text.

        Raises FileNotFoundError or ArtefactError.
        """
        if Path(path).is_dir():
            return _from_store(ActivationStore.open(path))
        tensors, data = artefact.read(path, "activations")
        try:
            layers = entry(data, "layers", list)
            return cls(
                positive=tensors["positive"],
                negative=tensors["negative"],
                layers=tuple(entry(layers, i, int) for i in range(len(layers))),
                tail=entry(data, "tail", int),
                identity=ModelIdentity.from_json(entry(data, "model", dict)),
                hook_point=entry(data, "hook_point", str),
                select=entry(data, "select", str) if "select" in data else "",
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            message = f"[load] expected activations in {path}, got {error}"
            raise ArtefactError(message) from error

    def _metadata(self) -> dict[str, Any]:
        return {
            "layers": list(self.layers),
            "tail": self.tail,
            "hook_point": self.hook_point,
            "select": self.select,
            "model": self.identity.to_json(),
        }


def record(
    backend: Recordable,
    pairs: Sequence[ContrastPair],
    layers: LayerRange | None = None,
    *,
    tail: int = 4,
    hook_point: str = "resid_post",
    select: Selection | str | None = None,
    cache: str | Path | None = None,
    show_progress: bool = True,
) -> Activations:
    """Run both texts of every pair and keep one row of each: by default the mean of the last four.

    The first token never counts: it is an attention sink with a norm of its own. One pass serves
    all layers. hook_point: where in the block, by the names of ``parse_hook_point``. select:
    ``last``, ``tail-K``, or ``answer`` (what follows the pair's prompt); ``tail`` tokens if it is
    not given. cache: a folder of earlier recordings; one of the same model, texts and settings is
    read instead of recorded, and a new one is kept there.

    Raises ValueError for fewer than two pairs, a bad layer, hook point or selection, a text that is
    too short or too long, a hook point that the architecture does not have, or states that are not
    finite.
    """
    selection = Selection("tail", tail) if select is None else select
    plan = make_plan(backend, pairs, layers, hook_point=hook_point, select=selection)
    recipe = plan.recipe
    _require_one_row(recipe)
    if cache is not None:
        return _from_store(cached_store(backend, plan, cache, show_progress=show_progress))
    rows = np.empty((len(recipe.layers), 2 * len(pairs), recipe.identity.d_model), np.float32)
    for number in track(range(len(recipe.shards)), "recording", show=show_progress):
        for text, found in run_shard(backend, plan, number):
            rows[:, text] = found.states[:, 0]
    return _activations(recipe, rows[:, 0::2], rows[:, 1::2])


def _from_store(store: ActivationStore) -> Activations:
    recipe = store.recipe
    _require_one_row(recipe)
    shape = (len(recipe.layers), recipe.n_pairs, recipe.identity.d_model)
    positive, negative = np.empty(shape, np.float32), np.empty(shape, np.float32)
    for shard in store.shards():
        for rows, target in ((shard.positive, positive), (shard.negative, negative)):
            if rows.pair.tolist() != list(range(shard.first, shard.stop)):
                message = f"[load] expected one row a pair in {store.folder}, got others"
                raise ArtefactError(message)
            target[:, shard.first : shard.stop] = rows.states
    return _activations(recipe, positive, negative)


def _activations(
    recipe: Recipe, positive: NDArray[np.float32], negative: NDArray[np.float32]
) -> Activations:
    tail = {"last": 1, "tail": recipe.select.tail}.get(recipe.select.kind, 0)
    return Activations(
        positive,
        negative,
        recipe.layers,
        tail,
        recipe.identity,
        str(recipe.hook_point),
        str(recipe.select),
    )


def _require_one_row(recipe: Recipe) -> None:
    if not recipe.select.averages:
        message = (
            f"[activations] expected one row a text (last, tail-K or answer), got the selection "
            f"{recipe.select}; record it to a folder and read it by ActivationStore"
        )
        raise ValueError(message)
