"""Affine concept editing: a concept's component is set to a level, whatever it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit.affine import Affine
from cogit.entries import entry
from cogit.operators.base import (
    ControlSpace,
    Dial,
    Operator,
    as_vector,
    projection_power,
    random_direction,
    register,
)
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@register
@dataclass(frozen=True)
class AffineEdit(Operator):
    """h' = h + λ (-proj_r(h) + proj_r(r⁻) + α r), with proj_r(x) = r (r·x) / |r|².

    vector: (d_model,) r, the difference of the class means. baseline: (d_model,) r⁻, the mean of
    the negative class. target: α; 0 sets the component along r to the negative class's mean, 1 to
    the positive one's.

    At λ = 1 this is the published affine concept edit (ACE). It is ablation about r⁻ followed by
    the addition of α r: every token ends at the same level, so nothing of the component is left to
    undo, and only λ < 1 has an inverse.
    """

    vector: NDArray[np.float64]
    baseline: NDArray[np.float64]
    target: float = 1.0

    kind: ClassVar[str] = "affine_edit"
    formula: ClassVar[str] = "h + λ (proj_r(r⁻ - h) + α r)"
    source: ClassVar[str] = "Marshall, Scherlis & Belrose 2024, arXiv:2411.09003"
    dial: ClassVar[Dial] = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", as_vector("vector", self.vector))
        object.__setattr__(self, "baseline", as_vector("baseline", self.baseline))
        object.__setattr__(self, "target", float(self.target))
        if self.vector.size != self.baseline.size or not np.isfinite(self.target):
            message = (
                f"[affine_edit] expected vector and baseline of one width and a finite target, "
                f"got {self.vector.size}, {self.baseline.size} and {self.target}"
            )
            raise ValueError(message)

    @classmethod
    def fit(cls, subspace: Subspace, *, target: float = 1.0) -> AffineEdit:
        """r and r⁻ from the class means; ``target`` between them (0 negative, 1 positive)."""
        subspace.require_block_end()
        half = subspace.steering_vector
        return cls(2 * half, subspace.mean - half, target)

    @property
    def d_model(self) -> int:
        return int(self.vector.size)

    @property
    def _unit(self) -> NDArray[np.float64]:
        """r / |r|, or zeros where r is zero: then there is nothing to edit."""
        length = float(np.linalg.norm(self.vector))
        return self.vector / length if length > 0 else self.vector

    def fold(self, strength: float) -> Affine:
        unit = self._unit
        return Affine(
            A=unit[None].astype(np.float32),
            a0=np.array([-(unit @ self.baseline)], np.float32),
            B=(-strength * unit[None]).astype(np.float32),
            c=(strength * self.target * self.vector).astype(np.float32),
        )

    def power(self, exponent: float) -> AffineEdit:
        """A full edit is an affine projection: itself for t > 0, the identity for t = 0."""
        return projection_power(self, exponent)

    def span(self) -> NDArray[np.float64]:
        unit = self._unit
        return unit[:, None] if unit.any() else np.zeros((self.d_model, 0))

    def randomised(self, seed: int, space: ControlSpace) -> AffineEdit:
        """A random direction of the same length, its baseline at the same level along it.

        The direction is the whole subspace, so both kinds of control are one.
        """
        unit = random_direction(self.d_model, seed)
        level = self._unit @ self.baseline - unit @ self.baseline
        vector = np.linalg.norm(self.vector) * unit
        return AffineEdit(vector, self.baseline + level * unit, self.target)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"vector": self.vector, "baseline": self.baseline}

    def parameters(self) -> dict[str, Any]:
        return {"target": self.target}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        return cls(tensors["vector"], tensors["baseline"], entry(parameters, "target", float))

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        rng = np.random.default_rng(seed)
        vector = 4.0 * random_direction(d_model, seed)
        return cls(vector, 0.3 * rng.standard_normal(d_model), 1.5)

    @classmethod
    def identity(cls, d_model: int) -> Self:
        return cls(np.zeros(d_model), np.zeros(d_model))
