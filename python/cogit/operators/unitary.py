"""Complex unitary steering on the lifted state: signal coordinates beside a reference amplitude.

x = Qᵀ(h - μ) pairs into z_j = x_2j + i·x_2j+1 ∈ C^k. The lifted state is ψ = (c, z) ∈ C^(k+1) with
a real reference amplitude c. U ∈ U(k+1) acts on ψ; the signal rows are read back: x' = A x + τ with
A the realified U_zz and τ = c·U_z0. Without the reference a rotation about the mean does nothing
to neutral tokens; with it they move by U_z0·c.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit.affine import Affine
from cogit.entries import entry
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
from cogit.operators.unitary_fits import FITS, FitName, conjugated, lift, power
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Above this deviation from Uᴴ U = I the powers would drift; float64 fits reach 1e-14.
_UNITARITY = 1e-8
_RANK = 1e-12


@register
@dataclass(frozen=True)
class Unitary(Operator):
    """h' = h + Q (A_λ x + τ_λ - x), x = Qᵀ(h - μ), from the geodesic power U^λ.

    mean: (d_model,) μ. basis: (d_model, 2k) orthonormal Q. matrix: (k+1, k+1) complex U.
    amplitude: the reference amplitude c = g·s, gain times half the class separation.
    restore: give every token its own norm back afterwards.

    U^λ is unitary for every real λ; λ = 0 is the identity and -λ the inverse on the lifted state.
    The default fit turns by an angle θ in the plane of reference and mean difference u:
    h' = h + u·[(cos λθ - 1)·u·(h - μ) + sin(λθ)·c] + (cos λθ - 1)·v·v·(h - μ), where v is u's
    complex partner, the second basis vector. θ → 0 is the additive vector, 90° a clamp.
    On real activations the complex structure brings nothing over a real rotation of the same plane.
    """

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    matrix: NDArray[np.complex128]
    amplitude: float
    restore: bool = False

    kind: ClassVar[str] = "unitary"
    formula: ClassVar[str] = "h + Q (A_λ Qᵀ(h - μ) + τ_λ - Qᵀ(h - μ)), (A, τ) from U^λ ∈ U(k+1)"
    source: ClassVar[str] = "cogit; rotations: Vu & Nguyen 2025, arXiv:2510.26243"
    dial: ClassVar[Dial] = "lifted"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", as_vector("mean", self.mean))
        object.__setattr__(self, "basis", as_basis("basis", self.basis))
        matrix = np.asarray(self.matrix, dtype=np.complex128)
        object.__setattr__(self, "matrix", matrix)
        size = self.basis.shape[1] // 2 + 1
        if self.basis.shape[0] != self.mean.size or self.basis.shape[1] % 2:
            message = (
                f"[unitary] expected a basis of shape ({self.mean.size}, 2k), "
                f"got {self.basis.shape}"
            )
            raise ValueError(message)
        if matrix.shape != (size, size):
            message = f"[unitary] expected a matrix of shape {(size, size)}, got {matrix.shape}"
            raise ValueError(message)
        deviation = float(np.abs(matrix.conj().T @ matrix - np.eye(size)).max())
        if not deviation <= _UNITARITY:
            message = f"[unitary] expected a unitary matrix, got |UᴴU - I| = {deviation:.1e}"
            raise ValueError(message)
        if not np.isfinite(self.amplitude):
            message = f"[unitary] expected a finite amplitude, got {self.amplitude}"
            raise ValueError(message)
        object.__setattr__(self, "amplitude", float(self.amplitude))
        object.__setattr__(self, "restore", bool(self.restore))

    @classmethod
    def fit(
        cls,
        subspace: Subspace,
        *,
        method: FitName = "plane",
        angle: float = 60.0,
        gain: float = 1.0,
        pull: float = 0.2,
        restore: bool = False,
    ) -> Unitary:
        """Fit in closed form.

        method: ``plane`` (rotation by ``angle`` degrees, the robust default), ``procrustes`` (with
        a pull to the identity), ``direct`` (Kato rotation between the classes' leading states) or
        ``born`` (Born-fidelity ascent, which destroys text and is kept for comparison).
        gain: the reference amplitude in units of half the class separation.
        """
        subspace.require_block_end()
        if method not in FITS:
            message = f"[unitary] expected a fit among {sorted(FITS)}, got {method!r}"
            raise ValueError(message)
        amplitude = gain * subspace.half_separation
        matrix = FITS[method](subspace, amplitude, np.deg2rad(angle), pull)
        return cls(subspace.mean, subspace.basis, matrix, amplitude, restore)

    @property
    def d_model(self) -> int:
        return int(self.mean.size)

    def signal_map(self, strength: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(A, τ) of the signal coordinates at a strength: (2k, 2k) and (2k,)."""
        turned = power(self.matrix, strength)
        shift = np.zeros(self.basis.shape[1])
        shift[0::2] = self.amplitude * turned[1:, 0].real
        shift[1::2] = self.amplitude * turned[1:, 0].imag
        return realified(turned[1:, 1:]), shift

    def fold(self, strength: float) -> Affine:
        linear, shift = self.signal_map(strength)
        left, sizes, right = np.linalg.svd(self._change(linear))
        rank = self._rank()
        down = (self.basis @ right[:rank].T).T
        up = (self.basis @ (left[:, :rank] * sizes[:rank])).T
        return Affine(
            A=down.astype(np.float32),
            a0=(-down @ self.mean).astype(np.float32),
            B=up.astype(np.float32),
            c=(self.basis @ shift).astype(np.float32),
            restore=self.restore,
        )

    def states(self, h: NDArray[np.floating[Any]]) -> NDArray[np.complex128]:
        """The lifted states ψ / |ψ| of rows. h: (n, d_model). Returns (n, k+1)."""
        return lift((np.asarray(h, np.float64) - self.mean) @ self.basis, self.amplitude)

    def unitary(self, strength: float) -> NDArray[np.complex128]:
        """U^λ on the lifted state. (k+1, k+1)"""
        return power(self.matrix, strength)

    def power(self, exponent: float) -> Unitary:
        """U^t on the lifted state: at strength 1 what this one is at strength t."""
        check_exponent(exponent)
        return replace(self, matrix=power(self.matrix, exponent))

    def lifted_product(self, first: Unitary) -> Unitary:
        """``first``, then this one, on one lifted state that is not read back in between.

        The product of the matrices. Where they commute their generators add: its strength λ is
        that of both in turn, as long as each sum of angles stays within 180°; beyond, and where
        they do not commute, its strength is the product's own geodesic. ``self @ first`` reads the
        state back and sets the reference amplitude anew in between, and so is another map.

        Raises ValueError unless both share mean, basis, amplitude and restore.
        """
        same = all(
            np.array_equal(getattr(self, name), getattr(first, name))
            for name in ("mean", "basis", "amplitude", "restore")
        )
        if not same:
            message = (
                "[unitary] expected unitaries on one lifted state, got another mean, basis, "
                "amplitude or restore; compose them with @"
            )
            raise ValueError(message)
        return replace(self, matrix=self.matrix @ first.matrix)

    def span(self) -> NDArray[np.float64]:
        return self.basis

    def laws(self) -> frozenset[Law]:
        return ALWAYS | {"norm_preserving"} if self.restore else ALWAYS

    def randomised(self, seed: int, space: ControlSpace) -> Unitary:
        """The same angles about random axes of the same subspace, or the same U elsewhere."""
        if space == "subspace":
            matrix = conjugated(self.matrix, seed)
            return Unitary(self.mean, self.basis, matrix, self.amplitude, self.restore)
        basis = random_basis(self.d_model, self.basis.shape[1], seed)
        return Unitary(self.mean, basis, self.matrix, self.amplitude, self.restore)

    def tensors(self) -> dict[str, NDArray[Any]]:
        return {
            "mean": self.mean,
            "basis": self.basis,
            "matrix_real": self.matrix.real,
            "matrix_imag": self.matrix.imag,
        }

    def parameters(self) -> dict[str, Any]:
        return {"amplitude": self.amplitude, "restore": self.restore}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        return cls(
            mean=tensors["mean"],
            basis=tensors["basis"],
            matrix=tensors["matrix_real"] + 1j * tensors["matrix_imag"],
            amplitude=entry(parameters, "amplitude", float),
            restore=entry(parameters, "restore", bool),
        )

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        k = max(1, min(3, d_model // 2))
        rng = np.random.default_rng(seed)
        gaussian = rng.standard_normal((k + 1, k + 1)) + 1j * rng.standard_normal((k + 1, k + 1))
        basis = random_basis(d_model, 2 * k, seed)
        matrix = np.linalg.qr(gaussian)[0]
        return cls(rng.standard_normal(d_model), basis, matrix, 1.5, restore=True)

    @classmethod
    def identity(cls, d_model: int) -> Self:
        k = max(1, min(2, d_model // 2))
        matrix = np.eye(k + 1, dtype=np.complex128)
        return cls(np.ones(d_model), random_basis(d_model, 2 * k, 0), matrix, 1.0, restore=True)

    def _change(self, linear: NDArray[np.float64]) -> NDArray[np.float64]:
        change = linear - np.eye(len(linear))
        # Rounding of the powers must not turn an exact identity into a tiny rotation.
        change[np.abs(change) < _RANK] = 0.0
        return np.asarray(change)

    def _rank(self) -> int:
        """Rank of the fold, the same at every strength so that strengths change no graph."""
        generator = np.asarray(self._change(realified(power(self.matrix, 0.37)[1:, 1:])))
        sizes = np.linalg.svd(generator, compute_uv=False)
        return int((sizes > _RANK).sum())


def realified(matrix: NDArray[np.complex128]) -> NDArray[np.float64]:
    """The real (2m, 2n) matrix of a complex (m, n) one, on interleaved real and imaginary parts."""
    real = np.empty((2 * matrix.shape[0], 2 * matrix.shape[1]))
    real[0::2, 0::2] = real[1::2, 1::2] = matrix.real
    real[0::2, 1::2] = -matrix.imag
    real[1::2, 0::2] = matrix.imag
    return real
