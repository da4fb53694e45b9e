"""Commitments: a seeded draw in a small space, projected once and added to every token."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit.affine import Affine
from cogit.entries import entry
from cogit.operators import portable_random
from cogit.operators.base import ControlSpace, Dial, Operator, as_vector, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger(__name__)
_DRAW, _PROJECTION = 1, 2
_MAX_K = 4096


@register
@dataclass(frozen=True)
class Commitment(Operator):
    """h' = h + λ W_c z*, with z* ~ N(0, I/k) and W_c Xavier-uniform, both from one seed.

    vector: (d_model,) float64 W_c z*, about sqrt(2 d / (d + k)) long. It is computed when the
    commitment is drawn, once per episode; every layer and token then shares it. Draw again, with
    another seed, to commit anew.
    """

    vector: NDArray[np.float64]
    k: int
    seed: int

    kind: ClassVar[str] = "commitment"
    formula: ClassVar[str] = "h + λ W_c z*, z* ~ N(0, I/k)"
    source: ClassVar[str] = "cogit; Xavier: Glorot & Bengio 2010"
    dial: ClassVar[Dial] = "geodesic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", as_vector("vector", self.vector))
        object.__setattr__(self, "k", int(self.k))
        object.__setattr__(self, "seed", int(self.seed))
        if not 1 <= self.k <= _MAX_K:
            message = f"[commitment] expected 1 <= k <= {_MAX_K}, got {self.k}"
            raise ValueError(message)

    @classmethod
    def draw(cls, d_model: int, *, k: int = 64, seed: int = 0) -> Commitment:
        """Draw z*, project it, and log that it was done."""
        if not 1 <= k <= _MAX_K:
            message = f"[commitment] expected 1 <= k <= {_MAX_K}, got {k}"
            raise ValueError(message)
        z = portable_random.normal(seed, _DRAW, k) / np.sqrt(k)
        limit = np.sqrt(6.0 / (d_model + k))
        projection = limit * (2.0 * portable_random.uniform(seed, _PROJECTION, d_model * k) - 1.0)
        vector = np.zeros(d_model)
        # Summed in a fixed order: a matrix product's order, and so its last bit, is the machine's.
        for column, draw in zip(projection.reshape(d_model, k).T, z, strict=True):
            vector += column * draw
        _LOG.info(
            "commitment drawn: seed %d, k %d, |z*| %.4f, |W_c z*| %.4f",
            seed,
            k,
            np.linalg.norm(z),
            np.linalg.norm(vector),
        )
        return cls(vector, k, seed)

    @property
    def d_model(self) -> int:
        return int(self.vector.size)

    def fold(self, strength: float) -> Affine:
        empty = np.zeros((0, self.d_model), np.float32)
        vector = (strength * self.vector).astype(np.float32)
        return Affine(empty, np.zeros(0, np.float32), empty, vector)

    def span(self) -> NDArray[np.float64]:
        norm = np.linalg.norm(self.vector)
        return self.vector[:, None] / norm if norm > 0 else np.zeros((self.d_model, 0))

    def randomised(self, seed: int, space: ControlSpace) -> Commitment:
        """Another draw of the same length: a commitment has no subspace of its own to stay in."""
        other = Commitment.draw(self.d_model, k=self.k, seed=seed)
        scale = np.linalg.norm(self.vector) / np.linalg.norm(other.vector)
        return Commitment(scale * other.vector, self.k, seed)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"vector": self.vector}

    def parameters(self) -> dict[str, Any]:
        return {"k": self.k, "seed": self.seed}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        k, seed = entry(parameters, "k", int), entry(parameters, "seed", int)
        return cls(tensors["vector"], k, seed)

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        drawn = Commitment.draw(d_model, k=8, seed=seed)
        return cls(drawn.vector, drawn.k, drawn.seed)

    @classmethod
    def identity(cls, d_model: int) -> Self:
        return cls(np.zeros(d_model), 1, 0)
