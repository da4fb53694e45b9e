"""Dense complex steering: encode by a complex projection, turn by U in U(q), blend, decode.

The route of earlier systems, done for each token on its own and with its norm kept. Because only
scalars of the token are not linear in it, it folds exactly to a real d x d map with a norm restore,
at every blend. It is here for comparison: a map of rank d costs d / r times one of rank r.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from cogit import reference
from cogit.affine import Affine
from cogit.entries import entry
from cogit.operators.base import (
    ALWAYS,
    ControlSpace,
    Dial,
    Law,
    Operator,
    check_exponent,
    register,
)
from cogit.operators.unitary_fits import conjugated, polar, power
from cogit.projection import DECODES, LINEAR_DECODES, RATIO, Projection
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Complex = NDArray[np.complex128]

# Unitaries trained in complex64 deviate by 3e-5.
_UNITARITY = 1e-3


@register
@dataclass(frozen=True)
class Dense(Operator):
    """h' = restore(h + λ Re(h C (Uᵀ - I) C⁺)), which is decode((1 - λ) ψ + λ U ψ), ψ = encode(h).

    projection: C (d_model, q). matrix: (q, q) complex U. decode: ``real_component`` or
    ``real_imag_avg``, of which the second reads Re + Im of the change. ``absolute`` and
    ``born_rule`` do not fold into any affine and are refused; see ``encode_turn_decode``.
    restore: give every token its own norm back, as decoding does; without it the map is linear.
    lossy: allow q < d_model. What the projection cannot hold, d_model - q dimensions, then passes
    by unchanged.

    The strength is the blend, a straight line; ``power`` is the geodesic U^t.
    """

    projection: Projection
    matrix: NDArray[np.complex128]
    decode: str = "real_component"
    restore: bool = True
    lossy: bool = False

    kind: ClassVar[str] = "dense"
    formula: ClassVar[str] = "restore(h + λ Re(h C (Uᵀ - I) C⁺))"
    source: ClassVar[str] = "cogit; random complex encodings with Cayley unitaries"
    dial: ClassVar[Dial] = "linear"

    def __post_init__(self) -> None:
        matrix = np.ascontiguousarray(self.matrix, dtype=np.complex128)
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "restore", bool(self.restore))
        q = self.projection.quantum_dim
        if matrix.shape != (q, q):
            message = f"[dense] expected a matrix of shape {(q, q)}, got {matrix.shape}"
            raise ValueError(message)
        deviation = float(np.abs(matrix.conj().T @ matrix - np.eye(q)).max())
        if not deviation <= _UNITARITY:
            message = f"[dense] expected a unitary matrix, got |UᴴU - I| = {deviation:.1e}"
            raise ValueError(message)
        if self.decode not in LINEAR_DECODES:
            known = "does not fold" if self.decode in DECODES else "is unknown"
            message = (
                f"[dense] expected a decode among {', '.join(LINEAR_DECODES)}, "
                f"got {self.decode!r}, which {known}"
            )
            raise ValueError(message)
        if self.projection.lost_range and not self.lossy:
            message = (
                f"[dense] expected a projection to at least {self.d_model} dimensions, got {q}: "
                f"{self.projection.lost_range} would pass by unsteered; pass lossy=True to allow it"
            )
            raise ValueError(message)

    @classmethod
    def fit(
        cls,
        subspace: Subspace,
        *,
        seed: int = 0,
        ratio: float = RATIO,
        pull: float = 0.2,
        decode: str = "real_component",
        restore: bool = True,
    ) -> Dense:
        """Procrustes on encoded states: polar(Σ φψᴴ / n + pull·I), φ positive and ψ negative ones.

        The states are those of the pairs within the subspace. A pull of 0 leaves U undetermined
        where no pair points, and it then turns those directions at random.
        """
        subspace.require_block_end()
        projection = Projection.draw(subspace.mean.size, ratio=ratio, seed=seed)
        source, target = (
            projection.encode(subspace.mean + x @ subspace.basis.T)[0]
            for x in (subspace.negative, subspace.positive)
        )
        overlap = target.T @ source.conj() / len(source)
        matrix = polar(overlap + pull * np.eye(len(overlap)))
        return cls(projection, matrix, decode, restore)

    @property
    def d_model(self) -> int:
        return self.projection.input_dim

    @cached_property
    def change(self) -> NDArray[np.float64]:
        """The real change at λ = 1, before the restore: h' = h + h change. (d_model, d_model)"""
        wide = self.projection.matrix.astype(np.complex128)
        turned = (
            wide @ (self.matrix.T - np.eye(len(self.matrix)))
        ) @ self.projection.pseudo_inverse
        return turned.real + turned.imag if self.decode == "real_imag_avg" else turned.real

    def fold(self, strength: float) -> Affine:
        d_model = self.d_model
        return Affine(
            A=np.eye(d_model, dtype=np.float32),
            a0=np.zeros(d_model, np.float32),
            B=(strength * self.change).astype(np.float32),
            c=np.zeros(d_model, np.float32),
            restore=self.restore,
        )

    def states(self, h: NDArray[np.floating[Any]]) -> Complex:
        """The encoded unit states of rows. h: (n, d_model). Returns (n, q)."""
        return self.projection.encode(h)[0]

    def unitary(self, strength: float) -> Complex:
        """U^λ, the geodesic; the blend at λ = 1 is U as well. (q, q)"""
        return self.matrix if strength == 1.0 else power(self.matrix, strength)

    def power(self, exponent: float) -> Dense:
        """U^t on the projected state."""
        check_exponent(exponent)
        return replace(self, matrix=power(self.matrix, exponent))

    def span(self) -> NDArray[np.float64]:
        return np.eye(self.d_model)

    def laws(self) -> frozenset[Law]:
        return ALWAYS | {"norm_preserving"} if self.restore else ALWAYS

    def randomised(self, seed: int, space: ControlSpace) -> Dense:
        """The same angles about random axes, or the same U behind another projection."""
        if space == "subspace":
            return replace(self, matrix=conjugated(self.matrix, seed))
        other = Projection.draw(self.d_model, quantum_dim=self.projection.quantum_dim, seed=seed)
        return replace(self, projection=other)

    def tensors(self) -> dict[str, NDArray[Any]]:
        matrix = {"matrix_real": self.matrix.real, "matrix_imag": self.matrix.imag}
        return {**self.projection.tensors(), **matrix}

    def parameters(self) -> dict[str, Any]:
        own = {"decode": self.decode, "restore": self.restore, "lossy": self.lossy}
        return {**self.projection.facts(), **own}

    @classmethod
    def from_parts(cls, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any]) -> Self:
        return cls(
            Projection.from_parts(dict(tensors), dict(parameters)),
            tensors["matrix_real"] + 1j * tensors["matrix_imag"],
            entry(parameters, "decode", str),
            entry(parameters, "restore", bool),
            entry(parameters, "lossy", bool),
        )

    @classmethod
    def example(cls, d_model: int, seed: int) -> Self:
        return cls(*_drawn(d_model, seed))

    @classmethod
    def identity(cls, d_model: int) -> Self:
        eye = np.eye(d_model, dtype=np.complex128)
        return cls(Projection(eye.astype(np.complex64)), eye)


def encode_turn_decode(
    projection: Projection,
    matrix: Complex,
    h: ArrayLike,
    strength: float = 1.0,
    method: str = "real_component",
) -> NDArray[np.float64]:
    """The route itself, row by row, with any decode: decode((1 - λ) ψ + λ U ψ) at the norm of h.

    projection: C (d_model, q), q >= d_model. matrix: U (q, q). h: (..., d_model). method: as in
    ``Projection.decode``; with ``absolute`` and ``born_rule`` not even λ = 0 gives h back.
    Raises ValueError as ``encode`` and ``decode`` do.
    """
    states, norms = projection.encode(h)
    change = np.asarray(matrix, np.complex128) - np.eye(projection.quantum_dim)
    blended = reference.dense_apply(change, states, 1.0, strength, normalise=True)
    return projection.decode(blended, norms, method)


@functools.lru_cache(maxsize=16)
def _drawn(d_model: int, seed: int) -> tuple[Projection, Complex]:
    """A projection to a few more dimensions and a unitary on up to 64 of them, drawn once."""
    projection = Projection.draw(d_model, ratio=1.25, seed=seed)
    q = projection.quantum_dim
    m = min(q, 64)
    rng = np.random.default_rng(seed)
    frame, inner = (
        np.linalg.qr(rng.standard_normal((n, m)) + 1j * rng.standard_normal((n, m)))[0]
        for n in (q, m)
    )
    return projection, np.eye(q) + frame @ (inner - np.eye(m)) @ frame.conj().T
