"""Ablation: a direction's component is taken out, or set to its mean."""

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
    as_basis,
    as_vector,
    projection_power,
    random_basis,
    register,
)
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@register
@dataclass(frozen=True)
class Ablation(Operator):
    """h' = h - λ D Dᵀ (h - μ).

    directions: (d_model, m) orthonormal D. mean: (d_model,) μ; with the contrast's mean the
    component is set to neutral, with zeros it is removed.
    """

    directions: NDArray[np.float64]
    mean: NDArray[np.float64]

    kind: ClassVar[str] = "ablation"
    formula: ClassVar[str] = "h - λ D Dᵀ (h - μ)"
    source: ClassVar[str] = "Arditi et al. 2024, arXiv:2406.11717; mean ablation: Wang et al. 2022"
    dial: ClassVar[Dial] = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", as_basis("directions", self.directions))
        object.__setattr__(self, "mean", as_vector("mean", self.mean))
        if self.directions.shape[0] != self.mean.size:
            message = (
                f"[ablation] expected directions and mean of one width, got "
                f"{self.directions.shape[0]} and {self.mean.size}"
            )
            raise ValueError(message)

    @classmethod
    def fit(cls, subspace: Subspace, *, centre: bool = True) -> Ablation:
        """Ablate the mean-difference direction, about the contrast's mean or about zero."""
        subspace.require_block_end()
        mean = subspace.mean if centre else np.zeros_like(subspace.mean)
        return cls(subspace.direction[:, None], mean)

    @property
    def d_model(self) -> int:
        return int(self.mean.size)

    def fold(self, strength: float) -> Affine:
        down = self.directions.T
        zeros = np.zeros(self.d_model, np.float32)
        return Affine(
            A=down.astype(np.float32),
            a0=(-down @ self.mean).astype(np.float32),
            B=(-strength * down).astype(np.float32),
            c=zeros,
        )

    def power(self, exponent: float) -> Ablation:
        """A full ablation is a projection: itself for t > 0, the identity for t = 0, no other."""
        return projection_power(self, exponent)

    def span(self) -> NDArray[np.float64]:
        return self.directions

    def randomised(self, seed: int, space: ControlSpace) -> Ablation:
        """Random directions. The subspace holds nothing but the directions, so both are one."""
        return Ablation(random_basis(self.d_model, self.directions.shape[1], seed), self.mean)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"directions": self.directions, "mean": self.mean}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        return cls(tensors["directions"], tensors["mean"])

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        mean = np.random.default_rng(seed).standard_normal(d_model)
        return cls(random_basis(d_model, 2, seed), mean)

    @classmethod
    def identity(cls, d_model: int) -> Self:
        return cls(np.zeros((d_model, 0)), np.zeros(d_model))
