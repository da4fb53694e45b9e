"""Additive steering: the same vector is added to every token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit.affine import Affine
from cogit.operators.base import (
    ControlSpace,
    Dial,
    Operator,
    as_vector,
    check_exponent,
    random_direction,
    register,
)
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@register
@dataclass(frozen=True)
class Additive(Operator):
    """h' = h + λ v.

    vector: (d_model,) v, in units of the residual stream. Fitted from a contrast it is half the
    difference of the class means, so that λ = 1 moves a neutral token to the positive mean.
    """

    vector: NDArray[np.float64]

    kind: ClassVar[str] = "additive"
    formula: ClassVar[str] = "h + λ v"
    source: ClassVar[str] = "Turner et al. 2023, arXiv:2308.10248; Panickssery et al. 2023"
    dial: ClassVar[Dial] = "geodesic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", as_vector("vector", self.vector))

    @classmethod
    def fit(cls, subspace: Subspace) -> Additive:
        """The mean-difference vector of a contrast."""
        subspace.require_block_end()
        return cls(subspace.steering_vector)

    @property
    def d_model(self) -> int:
        return int(self.vector.size)

    def fold(self, strength: float) -> Affine:
        empty = np.zeros((0, self.d_model), np.float32)
        vector = (strength * self.vector).astype(np.float32)
        return Affine(empty, np.zeros(0, np.float32), empty, vector)

    def power(self, exponent: float) -> Additive:
        """t times the vector."""
        check_exponent(exponent)
        return Additive(exponent * self.vector)

    def span(self) -> NDArray[np.float64]:
        norm = np.linalg.norm(self.vector)
        return self.vector[:, None] / norm if norm > 0 else np.zeros((self.d_model, 0))

    def randomised(self, seed: int, space: ControlSpace) -> Additive:
        """A vector of the same length: reversed at random within its line, or anywhere."""
        if space == "subspace":
            sign = np.random.default_rng(seed).choice([-1.0, 1.0])
            return Additive(sign * self.vector)
        return Additive(np.linalg.norm(self.vector) * random_direction(self.d_model, seed))

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"vector": self.vector}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        return cls(tensors["vector"])

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        return cls(0.3 * np.random.default_rng(seed).standard_normal(d_model))

    @classmethod
    def identity(cls, d_model: int) -> Self:
        return cls(np.zeros(d_model))
