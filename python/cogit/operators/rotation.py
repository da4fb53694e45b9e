"""A real rotation in the plane of two directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import numpy as np

from cogit.affine import Affine
from cogit.entries import entry
from cogit.operators.algebra import about
from cogit.operators.base import (
    ALWAYS,
    ControlSpace,
    Dial,
    Law,
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

PlaneName = Literal["mean", "component"]
# A pooled mean with less than this part outside the mean difference spans no plane with it.
_PARALLEL = 1e-6


@register
@dataclass(frozen=True)
class Rotation(Operator):
    """h' = h + P (R(λθ) - I) Pᵀ (h - μ), R(φ) = [[cos φ, -sin φ], [sin φ, cos φ]].

    plane: (d_model, 2) orthonormal P; the turn goes from the first column to the second.
    angle: θ in degrees at λ = 1. mean: (d_model,) μ, the fixed point. restore: give every token
    its own norm back.

    Unlike the unitary on the lifted state it reads the whole plane from the token, so it has an
    exact inverse at every angle, of condition 1, and strengths add. A whole turn about zero keeps
    norms by itself; a share of its change, where rows have strengths of their own, does not.
    """

    plane: NDArray[np.float64]
    angle: float
    mean: NDArray[np.float64]
    restore: bool = False

    kind: ClassVar[str] = "rotation"
    formula: ClassVar[str] = "h + P (R(λθ) - I) Pᵀ (h - μ)"
    source: ClassVar[str] = (
        "Givens 1958; at a fixed angle, after Vu & Nguyen 2025, arXiv:2510.26243"
    )
    dial: ClassVar[Dial] = "geodesic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "plane", as_basis("plane", self.plane))
        object.__setattr__(self, "mean", as_vector("mean", self.mean))
        object.__setattr__(self, "angle", float(self.angle))
        object.__setattr__(self, "restore", bool(self.restore))
        same_width("rotation", self.mean, self.plane)
        if self.plane.shape[1] != 2 or not np.isfinite(self.angle):
            message = (
                f"[rotation] expected two directions and a finite angle, got "
                f"{self.plane.shape[1]} and {self.angle}"
            )
            raise ValueError(message)

    @classmethod
    def fit(
        cls,
        subspace: Subspace,
        *,
        angle: float = 60.0,
        plane: PlaneName = "mean",
        restore: bool = False,
    ) -> Rotation:
        """Turn toward the mean difference u.

        plane: ``mean`` turns the pooled mean into u about zero, which moves neutral tokens by
        their share of the mean and keeps norms; ``component`` turns u's first contrastive
        component into u about the pooled mean, which leaves neutral tokens where they are.
        """
        subspace.require_block_end()
        u = subspace.direction
        if plane not in get_args(PlaneName):
            message = f"[rotation] expected a plane among mean, component, got {plane!r}"
            raise ValueError(message)
        if plane == "component":
            columns = np.column_stack([subspace.basis[:, 1], u])
            return cls(columns, angle, subspace.mean, restore)
        across = subspace.mean - (subspace.mean @ u) * u
        length = float(np.linalg.norm(across))
        if length <= _PARALLEL * subspace.residual_norm:
            message = (
                f"[rotation] expected a pooled mean outside the mean difference, got {length:.1e} "
                f"of it; use plane='component'"
            )
            raise ValueError(message)
        columns = np.column_stack([across / length, u])
        return cls(columns, angle, np.zeros_like(subspace.mean), restore)

    @property
    def d_model(self) -> int:
        return int(self.mean.size)

    def fold(self, strength: float) -> Affine:
        turned = np.deg2rad(strength * self.angle)
        cosine, sine = np.cos(turned), np.sin(turned)
        change = np.array([[cosine - 1.0, -sine], [sine, cosine - 1.0]])
        return about(self.mean, self.plane, change, restore=self.restore)

    def power(self, exponent: float) -> Rotation:
        """t times the angle."""
        check_exponent(exponent)
        return replace(self, angle=exponent * self.angle)

    def span(self) -> NDArray[np.float64]:
        return self.plane

    def laws(self) -> frozenset[Law]:
        return ALWAYS | {"norm_preserving"} if self.restore else ALWAYS

    def randomised(self, seed: int, space: ControlSpace) -> Rotation:
        """The same angle in a random plane. The plane is the whole subspace: both are one."""
        return replace(self, plane=random_basis(self.d_model, 2, seed))

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"plane": self.plane, "mean": self.mean}

    def parameters(self) -> dict[str, Any]:
        return {"angle": self.angle, "restore": self.restore}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        return cls(
            plane=tensors["plane"],
            angle=entry(parameters, "angle", float),
            mean=tensors["mean"],
            restore=entry(parameters, "restore", bool),
        )

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        """About zero for odd seeds, about a mean with the norm restored for even ones."""
        mean = 0.3 * np.random.default_rng(seed).standard_normal(d_model) * (1 - seed % 2)
        return cls(random_basis(d_model, 2, seed), 50.0, mean, restore=seed % 2 == 0)

    @classmethod
    def identity(cls, d_model: int) -> Self:
        return cls(random_basis(d_model, 2, 0), 0.0, np.ones(d_model), restore=True)
