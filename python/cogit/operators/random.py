"""The random control: a rotation or a vector that knows nothing of any contrast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit.affine import Affine
from cogit.entries import entry
from cogit.operators.base import ControlSpace, Dial, Operator, random_direction, register

if TYPE_CHECKING:
    from numpy.typing import NDArray


@register
@dataclass(frozen=True)
class Random(Operator):
    """h' = h + λ ℓ r, with r uniform over the unit sphere, from a seed.

    length: ℓ, in units of the residual stream; match it to the operator under test. For controls
    of the same family as an operator use its ``randomised``.
    """

    width: int
    length: float
    seed: int

    kind: ClassVar[str] = "random"
    formula: ClassVar[str] = "h + λ ℓ r, r uniform over the sphere"
    source: ClassVar[str] = "cogit"
    dial: ClassVar[Dial] = "geodesic"

    def __post_init__(self) -> None:
        for name, kind in (("width", int), ("length", float), ("seed", int)):
            object.__setattr__(self, name, kind(getattr(self, name)))
        if self.width < 1 or not np.isfinite(self.length) or self.length < 0:
            message = (
                f"[random] expected width >= 1 and a finite length >= 0, got {self.width} "
                f"and {self.length}"
            )
            raise ValueError(message)

    @property
    def d_model(self) -> int:
        return self.width

    def fold(self, strength: float) -> Affine:
        empty = np.zeros((0, self.width), np.float32)
        vector = strength * self.length * random_direction(self.width, self.seed)
        return Affine(empty, np.zeros(0, np.float32), empty, vector.astype(np.float32))

    def span(self) -> NDArray[np.float64]:
        return random_direction(self.width, self.seed)[:, None]

    def randomised(self, seed: int, space: ControlSpace) -> Random:
        """Another direction of the same length."""
        return Random(self.width, self.length, seed)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {}

    def parameters(self) -> dict[str, Any]:
        return {"width": self.width, "length": self.length, "seed": self.seed}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        return cls(
            width=entry(parameters, "width", int),
            length=entry(parameters, "length", float),
            seed=entry(parameters, "seed", int),
        )

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        return cls(d_model, 0.7, seed)

    @classmethod
    def identity(cls, d_model: int) -> Self:
        return cls(d_model, 0.0, 0)
