"""Diagonal phases: each complex coordinate of the contrastive subspace turns by its own angle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

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
)
from cogit.operators.unitary_fits import lift
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@register
@dataclass(frozen=True)
class Diagonal(Operator):
    """z_j' = exp(iλφ_j) z_j for z_j = x_2j + i x_2j+1, x = Qᵀ(h - μ).

    mean: (d_model,) μ. basis: (d_model, 2k) orthonormal Q. phases: (k,) φ in radians.
    restore: give every token its own norm back.

    The cheapest unitary, k numbers where a dense one has k². It never mixes coordinates and has no
    reference amplitude, so it leaves neutral tokens where they are; phases of π exchange classes.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    phases: NDArray[np.float64]
    restore: bool = False

    kind: ClassVar[str] = "diagonal"
    formula: ClassVar[str] = "h + Q (diag(exp(iλφ)) - I) Qᵀ(h - μ), on complex pairs"
    source: ClassVar[str] = "cogit; diagonal factors of unitaries: Arjovsky et al. 2016"
    dial: ClassVar[Dial] = "geodesic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", as_vector("mean", self.mean))
        object.__setattr__(self, "basis", as_basis("basis", self.basis))
        object.__setattr__(self, "phases", as_vector("phases", self.phases))
        object.__setattr__(self, "restore", bool(self.restore))
        if self.basis.shape != (self.mean.size, 2 * self.phases.size):
            message = (
                f"[diagonal] expected a basis of shape {(self.mean.size, 2 * self.phases.size)}, "
                f"got {self.basis.shape}"
            )
            raise ValueError(message)

    @classmethod
    def fit(cls, subspace: Subspace, *, restore: bool = False) -> Diagonal:
        """Procrustes within the family: φ_j = arg Σ z⁺_j z̄⁻_j over the pairs."""
        subspace.require_block_end()
        positive, negative = (
            x[:, 0::2] + 1j * x[:, 1::2] for x in (subspace.positive, subspace.negative)
        )
        phases = np.angle((positive * negative.conj()).sum(axis=0))
        return cls(subspace.mean, subspace.basis, phases, restore)

    @property
    def d_model(self) -> int:
        return int(self.mean.size)

    def fold(self, strength: float) -> Affine:
        turned = strength * self.phases
        change = np.zeros((2 * turned.size, 2 * turned.size))
        even, odd = np.arange(0, len(change), 2), np.arange(1, len(change), 2)
        change[even, even] = change[odd, odd] = np.cos(turned) - 1.0
        change[odd, even] = np.sin(turned)
        change[even, odd] = -np.sin(turned)
        return about(self.mean, self.basis, change, restore=self.restore)

    def power(self, exponent: float) -> Diagonal:
        """t times the phases."""
        check_exponent(exponent)
        return replace(self, phases=exponent * self.phases)

    def states(self, h: NDArray[np.floating[Any]]) -> NDArray[np.complex128]:
        """z / |z| of rows. h: (n, d_model). Returns (n, k); a row at the mean stays zero."""
        return lift((np.asarray(h, np.float64) - self.mean) @ self.basis, 0.0)[:, 1:]

    def unitary(self, strength: float) -> NDArray[np.complex128]:
        """diag(exp(iλφ)). (k, k)"""
        return np.diag(np.exp(1j * strength * self.phases))

    def span(self) -> NDArray[np.float64]:
        return self.basis

    def laws(self) -> frozenset[Law]:
        return ALWAYS | {"norm_preserving"} if self.restore else ALWAYS

    def randomised(self, seed: int, space: ControlSpace) -> Diagonal:
        """The same phases on randomly paired axes of the same subspace, or of a random one."""
        width = self.basis.shape[1]
        if space == "subspace":
            return replace(self, basis=self.basis @ random_basis(width, width, seed))
        return replace(self, basis=random_basis(self.d_model, width, seed))

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {"mean": self.mean, "basis": self.basis, "phases": self.phases}

    def parameters(self) -> dict[str, Any]:
        return {"restore": self.restore}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        restore = entry(parameters, "restore", bool)
        return cls(tensors["mean"], tensors["basis"], tensors["phases"], restore)

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        k = max(1, min(3, d_model // 2))
        rng = np.random.default_rng(seed)
        phases = rng.uniform(0.4, 1.2, k) * rng.choice([-1.0, 1.0], k)
        return cls(0.3 * rng.standard_normal(d_model), random_basis(d_model, 2 * k, seed), phases)

    @classmethod
    def identity(cls, d_model: int) -> Self:
        k = max(1, min(2, d_model // 2))
        return cls(np.ones(d_model), random_basis(d_model, 2 * k, 0), np.zeros(k), restore=True)
