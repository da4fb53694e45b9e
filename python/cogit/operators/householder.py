"""Reflection: the components along some directions change sign about the mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit.affine import Affine
from cogit.operators.algebra import about
from cogit.operators.base import (
    ControlSpace,
    Dial,
    Operator,
    as_basis,
    as_vector,
    check_exponent,
    random_basis,
    register,
    same_width,
)
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@register
@dataclass(frozen=True)
class Householder(Operator):
    """h' = h - 2λ V Vᵀ (h - μ).

    directions: (d_model, m) orthonormal V; one column is Householder's reflection, more are the
    reflections in turn. mean: (d_model,) μ, through which the mirror goes.

    λ = 1 is the reflection, its own inverse, and keeps distances from μ. It exchanges the classes
    and leaves neutral tokens where they are. In between λ is no turn: a reflection has no real
    power, and λ = 1/2 is the ablation.
    """

    directions: NDArray[np.float64]
    mean: NDArray[np.float64]

    kind: ClassVar[str] = "householder"
    formula: ClassVar[str] = "h - 2λ V Vᵀ (h - μ)"
    source: ClassVar[str] = "Householder 1958; as a trainable family: Mhammedi et al. 2017"
    dial: ClassVar[Dial] = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", as_basis("directions", self.directions))
        object.__setattr__(self, "mean", as_vector("mean", self.mean))
        same_width("householder", self.mean, self.directions)

    @classmethod
    def fit(cls, subspace: Subspace) -> Householder:
        """Mirror the classes into each other: along the mean difference, about the pooled mean."""
        subspace.require_block_end()
        return cls(subspace.direction[:, None], subspace.mean)

    @property
    def d_model(self) -> int:
        return int(self.mean.size)

    def fold(self, strength: float) -> Affine:
        change = -2.0 * strength * np.eye(self.directions.shape[1])
        return about(self.mean, self.directions, change)

    def power(self, exponent: float) -> Householder:
        """Whole exponents: itself if odd, the identity if even. ValueError for any other."""
        check_exponent(exponent)
        if not float(exponent).is_integer():
            message = (
                f"[power] expected a whole exponent of a reflection, got {exponent:g}: its "
                f"eigenvalue -1 has no other real power; use a rotation"
            )
            raise ValueError(message)
        return self if exponent % 2 else self.identity(self.d_model)

    def span(self) -> NDArray[np.float64]:
        return self.directions

    def randomised(self, seed: int, space: ControlSpace) -> Householder:
        """Random directions. The subspace holds nothing but the directions, so both are one."""
        return Householder(random_basis(self.d_model, self.directions.shape[1], seed), self.mean)

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
