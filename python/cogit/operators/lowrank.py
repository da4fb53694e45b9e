"""A literal low-rank affine: whatever was fitted or trained elsewhere, as an operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit.affine import Affine
from cogit.operators.base import ControlSpace, Dial, Operator, as_vector, random_basis, register

if TYPE_CHECKING:
    from numpy.typing import NDArray


@register
@dataclass(frozen=True)
class LowRank(Operator):
    """h' = h + λ (B (A h + a) + c).

    down: (rank, d_model) A. offset: (rank,) a. up: (rank, d_model) Bᵀ. shift: (d_model,) c.
    """

    down: NDArray[np.float64]
    offset: NDArray[np.float64]
    up: NDArray[np.float64]
    shift: NDArray[np.float64]

    kind: ClassVar[str] = "lowrank"
    formula: ClassVar[str] = "h + λ (B (A h + a) + c)"
    source: ClassVar[str] = "Wu et al. 2024 (LoReFT, arXiv:2404.03592) for trained ones"
    dial: ClassVar[Dial] = "linear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shift", as_vector("shift", self.shift))
        for name in ("down", "offset", "up"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        wide = (self.offset.size, self.shift.size)
        if self.down.shape != wide or self.up.shape != wide or self.offset.ndim != 1:
            message = (
                f"[lowrank] expected down and up of shape {wide}, "
                f"got {self.down.shape} and {self.up.shape}"
            )
            raise ValueError(message)

    @property
    def d_model(self) -> int:
        return int(self.shift.size)

    def fold(self, strength: float) -> Affine:
        return Affine(
            A=self.down.astype(np.float32),
            a0=self.offset.astype(np.float32),
            B=(strength * self.up).astype(np.float32),
            c=(strength * self.shift).astype(np.float32),
        )

    def span(self) -> NDArray[np.float64]:
        left, sizes, _ = np.linalg.svd(np.vstack([self.up, self.shift]).T, full_matrices=False)
        return np.asarray(left[:, sizes > 1e-12 * max(1.0, float(sizes.max()))])

    def randomised(self, seed: int, space: ControlSpace) -> LowRank:
        """The same map after a random rotation of its reads, and of its writes.

        ``subspace`` turns the reads within their own span, or reverses the shift at random where
        there are none; ``space`` turns both anywhere.
        """
        rng = np.random.default_rng(seed)
        rank = self.offset.size
        if space == "subspace" and rank == 0:
            return LowRank(self.down, self.offset, self.up, rng.choice([-1.0, 1.0]) * self.shift)
        if space == "subspace":
            turn = random_basis(rank, rank, int(rng.integers(2**31)))
            return LowRank(turn @ self.down, turn @ self.offset, self.up, self.shift)
        turn = random_basis(self.d_model, self.d_model, int(rng.integers(2**31)))
        return LowRank(self.down @ turn, self.offset, self.up @ turn, self.shift @ turn)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"down": self.down, "offset": self.offset, "up": self.up, "shift": self.shift}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        return cls(tensors["down"], tensors["offset"], tensors["up"], tensors["shift"])

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        rng = np.random.default_rng(seed)
        wide = (2, d_model)
        scale = d_model**-0.5
        return cls(
            scale * rng.standard_normal(wide),
            rng.standard_normal(2),
            rng.standard_normal(wide),
            rng.standard_normal(d_model),
        )

    @classmethod
    def identity(cls, d_model: int) -> Self:
        wide = np.zeros((0, d_model))
        return cls(wide, np.zeros(0), wide, np.zeros(d_model))
