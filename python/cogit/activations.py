"""Activations: residual-stream states of contrast pairs, one row a text and layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError
from cogit.identity import ModelIdentity
from cogit.layers import LayerRange
from cogit.pairs import ContrastPair, require_pairs
from cogit.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 32


class Recordable(Protocol):
    """What recording needs of a backend."""

    @property
    def identity(self) -> ModelIdentity: ...

    def tokenize(self, text: str) -> list[int]: ...

    def residuals(
        self, sequences: Sequence[Sequence[int]], layers: Sequence[int]
    ) -> list[NDArray[np.float32]]: ...


@dataclass(frozen=True)
class Activations:
    """States of matched texts at some blocks' ends (hook point ``resid_post``).

    positive, negative: (layer, pair, d_model) float32, rows matched.
    layers: the block numbers of the first axis. tail: how many last tokens were averaged.
    """

    positive: NDArray[np.float32]
    negative: NDArray[np.float32]
    layers: tuple[int, ...]
    tail: int
    identity: ModelIdentity

    def __post_init__(self) -> None:
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
        tensors, data = artefact.read(path, "activations")
        try:
            layers = entry(data, "layers", list)
            return cls(
                positive=tensors["positive"],
                negative=tensors["negative"],
                layers=tuple(entry(layers, i, int) for i in range(len(layers))),
                tail=entry(data, "tail", int),
                identity=ModelIdentity.from_json(entry(data, "model", dict)),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            message = f"[load] expected activations in {path}, got {error}"
            raise ArtefactError(message) from error

    def _metadata(self) -> dict[str, Any]:
        return {
            "layers": list(self.layers),
            "tail": self.tail,
            "hook_point": "resid_post",
            "model": self.identity.to_json(),
        }


def record(
    backend: Recordable,
    pairs: Sequence[ContrastPair],
    layers: LayerRange | None = None,
    *,
    tail: int = 4,
    show_progress: bool = True,
) -> Activations:
    """Run both texts of every pair and keep the mean state of their last ``tail`` tokens.

    The first token never counts: it is an attention sink with a norm of its own. One pass serves
    all layers. Raises ValueError for fewer than two pairs, a bad layer, a text of one token, or
    states that are not finite.
    """
    if tail < 1:
        message = f"[record] expected tail >= 1, got {tail}"
        raise ValueError(message)
    blocks = (layers or LayerRange(None)).resolve(backend.identity.n_layers)
    texts = [text for pair in require_pairs(pairs) for text in (pair.positive, pair.negative)]
    sequences = [backend.tokenize(text) for text in texts]
    for text, ids in zip(texts, sequences, strict=True):
        if len(ids) < 2:
            message = f"[record] expected texts of at least 2 tokens, got {text!r}"
            raise ValueError(message)
    rows = np.empty((len(blocks), len(texts), backend.identity.d_model), np.float32)
    for start in track(range(0, len(texts), _CHUNK), "recording", show=show_progress):
        chunk = sequences[start : start + _CHUNK]
        for offset, states in enumerate(backend.residuals(chunk, blocks)):
            first = max(1, states.shape[1] - tail)
            rows[:, start + offset] = states[:, first:].mean(axis=1)
    return Activations(rows[:, 0::2], rows[:, 1::2], blocks, tail, backend.identity)
