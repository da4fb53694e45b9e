"""The complex projection C (d, q): residual-stream rows to unit states in C^q, and back.

Encode: ψ = h C / |h C|, beside the norm |h|. Decode: a linear or other reading of ψ C⁺ (the
pseudo-inverse), brought to the norm that the row had. The columns of C have unit norm. It is drawn
on the host from a seed, so that every device gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import artefact
from cogit.entries import entry
from cogit.errors import ArtefactError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Complex = NDArray[np.complex128]
    Real = NDArray[np.float64]

RATIO = 2.604
_KIND = "projection"
_MAX_ENTRIES = 2**30
# complex64 columns have unit norm to 1e-7; what is read from elsewhere may be half precision.
_UNIT = 1e-3
# How far C C⁺ may be from I; a decoded row is off by as much.
_INVERSE = 1e-5


def _real_component(z: Complex) -> Real:
    return z.real


def _real_imag_avg(z: Complex) -> Real:
    return (z.real + z.imag) / 2


def _absolute(z: Complex) -> Real:
    return np.abs(z)


def _born_rule(z: Complex) -> Real:
    return z.real**2 + z.imag**2


LINEAR_DECODES: dict[str, Callable[[Complex], Real]] = {
    "real_component": _real_component,
    "real_imag_avg": _real_imag_avg,
}
"""Readings that undo the encoding, norm included, and fold into a real matrix."""
DECODES: dict[str, Callable[[Complex], Real]] = {
    **LINEAR_DECODES,
    "absolute": _absolute,
    "magnitude": _absolute,
    "born_rule": _born_rule,
}
"""All readings. ``absolute`` (alias ``magnitude``) and ``born_rule`` lose the signs of a row."""


@dataclass(frozen=True)
class Projection:
    """A complex projection with unit columns.

    matrix: (input_dim, quantum_dim) complex64 C. seed: what it was drawn from, or None.

    Raises ValueError for another shape, values that are not finite, and columns of another norm.
    """

    matrix: NDArray[np.complex64]
    seed: int | None = None

    def __post_init__(self) -> None:
        matrix = np.ascontiguousarray(self.matrix, dtype=np.complex64)
        if matrix.ndim != 2 or matrix.size == 0:
            message = f"[projection] expected a matrix (input_dim, quantum_dim), got {matrix.shape}"
            raise ValueError(message)
        norms = np.linalg.norm(matrix.astype(np.complex128), axis=0)
        if not (np.abs(norms - 1.0) <= _UNIT).all():
            message = (
                f"[projection] expected columns of unit norm, got norms between "
                f"{norms.min():.4g} and {norms.max():.4g}"
            )
            raise ValueError(message)
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def draw(
        cls,
        input_dim: int,
        *,
        quantum_dim: int | None = None,
        ratio: float = RATIO,
        seed: int = 0,
    ) -> Projection:
        """Complex Gaussian columns of unit norm. quantum_dim: round(ratio · input_dim) by default.

        Drawn by NumPy on the host in float64 and summed in a fixed order: the same seed gives the
        same bits, wherever the states are.
        """
        width = round(ratio * input_dim) if quantum_dim is None else quantum_dim
        if input_dim < 1 or width < 1 or input_dim * width > _MAX_ENTRIES:
            message = (
                f"[projection] expected 1 <= input_dim, quantum_dim and at most {_MAX_ENTRIES} "
                f"entries, got {input_dim} and {width}"
            )
            raise ValueError(message)
        rng = np.random.default_rng(seed)
        real, imag = rng.standard_normal((2, input_dim, width))
        squares = np.add.reduce(real * real + imag * imag, axis=0)
        matrix = (real + 1j * imag) / np.sqrt(squares)
        return cls(matrix.astype(np.complex64), seed)

    @property
    def input_dim(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def quantum_dim(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def ratio(self) -> float:
        """quantum_dim / input_dim."""
        return self.quantum_dim / self.input_dim

    @property
    def lost_range(self) -> int:
        """How many of the input's dimensions no state holds: input_dim - quantum_dim, or 0."""
        return max(0, self.input_dim - self.quantum_dim)

    @cached_property
    def pseudo_inverse(self) -> Complex:
        """C⁺ (quantum_dim, input_dim). ValueError where C has not full rank."""
        wide = self.matrix.astype(np.complex128)
        adjoint = wide.conj().T
        try:
            if self.lost_range:
                inverse = np.linalg.solve(adjoint @ wide, adjoint)
                product = inverse @ wide
            else:
                inverse = np.linalg.solve(wide @ adjoint, wide).conj().T
                product = wide @ inverse
            full = np.abs(product - np.eye(len(product))).max() <= _INVERSE
        except np.linalg.LinAlgError:
            full = False
        if not full:
            message = (
                f"[projection] expected {self.input_dim} x {self.quantum_dim} entries of full "
                f"rank, got dependent ones; draw another"
            )
            raise ValueError(message)
        return np.asarray(inverse)

    def encode(self, h: ArrayLike) -> tuple[Complex, Real]:
        """Unit states (..., quantum_dim) and norms (...,) of rows (..., input_dim).

        Each row on its own, in complex128. A row of zeros becomes a state of zeros.
        """
        rows = np.asarray(h, dtype=np.float64)
        self._require(rows, self.input_dim, "rows")
        states = rows @ self.matrix.astype(np.complex128)
        return _scaled(states, np.ones(rows.shape[:-1])), np.linalg.norm(rows, axis=-1)

    def decode(
        self,
        states: ArrayLike,
        norms: ArrayLike,
        method: str = "real_component",
        *,
        lossy: bool = False,
    ) -> Real:
        """Rows (..., input_dim) of the given norms (...,) from states (..., quantum_dim).

        method: ``real_component``, ``real_imag_avg`` (with a quantum_dim of at least input_dim
        both undo ``encode``, norm included), ``absolute`` = ``magnitude`` or ``born_rule``, the
        squares (both lose signs: decode(encode(h)) is |h|, or h² at the norm of h).
        lossy: needed where quantum_dim < input_dim: ``lost_range`` dimensions do not come back.

        Raises ValueError for an unknown method, another width, and a loss that was not asked for.
        """
        if method not in DECODES:
            message = f"[decode] expected a method among {', '.join(DECODES)}, got {method!r}"
            raise ValueError(message)
        if self.lost_range and not lossy:
            message = (
                f"[decode] expected quantum_dim >= {self.input_dim}, got {self.quantum_dim}: "
                f"{self.lost_range} dimensions are lost; draw a wider projection or pass lossy=True"
            )
            raise ValueError(message)
        psi = np.asarray(states, dtype=np.complex128)
        self._require(psi, self.quantum_dim, "states")
        rows = DECODES[method](psi @ self.pseudo_inverse)
        return _scaled(rows, np.asarray(norms, dtype=np.float64))

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file."""
        return artefact.write(path, _KIND, self.tensors(), self.facts())

    @classmethod
    def load(cls, path: str | Path) -> Projection:
        """Read a file written by ``save``; ArtefactError where dimensions do not fit."""
        tensors, data = artefact.read(path, _KIND)
        try:
            return cls.from_parts(tensors, data)
        except (KeyError, TypeError, ValueError) as error:
            message = f"[load] expected a projection in {path}, got {error}"
            raise ArtefactError(message) from error

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The arrays to save; safetensors readers know real ones everywhere."""
        return {"projection_real": self.matrix.real, "projection_imag": self.matrix.imag}

    def facts(self) -> dict[str, Any]:
        """The JSON values to save beside them."""
        return {
            "input_dim": self.input_dim,
            "quantum_dim": self.quantum_dim,
            "seed": self.seed,
            "ratio": self.ratio,
        }

    @classmethod
    def from_parts(cls, tensors: dict[str, NDArray[Any]], data: dict[str, Any]) -> Projection:
        """The inverse of ``tensors`` and ``facts``; KeyError, TypeError or ValueError."""
        shape = (entry(data, "input_dim", int), entry(data, "quantum_dim", int))
        real, imag = tensors["projection_real"], tensors["projection_imag"]
        if real.shape != shape or imag.shape != shape:
            message = f"expected parts of shape {shape}, got {real.shape} and {imag.shape}"
            raise ValueError(message)
        seed = None if data["seed"] is None else entry(data, "seed", int)
        return cls(real + np.complex64(1j) * imag, seed)

    def _require(self, values: NDArray[Any], width: int, what: str) -> None:
        if values.ndim == 0 or values.shape[-1] != width:
            message = (
                f"[projection] expected {what} of width {width} for {self.input_dim} x "
                f"{self.quantum_dim}, got shape {values.shape}"
            )
            raise ValueError(message)


def _scaled(rows: NDArray[Any], norms: Real) -> NDArray[Any]:
    """Rows brought to norms; zeros stay."""
    own = np.linalg.norm(rows, axis=-1)
    return np.asarray(rows * (norms / np.where(own == 0.0, 1.0, own))[..., None])
