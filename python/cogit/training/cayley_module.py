"""Trainable unitaries as torch modules of one interface: dense Cayley, low rank, diagonal phases.

Every module stores only what is free: q² real numbers for a dense unitary, 4qr for a low-rank one,
q for phases. In evaluation mode, and where no gradient can be wanted, the matrix is formed once and
kept. What is kept is compared with the parameters at every use, value for value: neither a loaded
state, nor a step of an optimiser, nor a write by ``.data`` leaves a stale one. The comparison reads
the parameters once, which is less than applying the matrix to a single state.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from cogit.cayley import LowRankCayley, cayley, cayley_power, inverse_cayley, unitarity_deviation
from cogit.hermitian import check_complex, half_the_digits, hermitian, hermitian_parameters

Family = Literal["dense", "lowrank", "diagonal"]

FAMILIES: tuple[Family, ...] = ("dense", "lowrank", "diagonal")
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
SPREAD = 0.01


@dataclass(frozen=True, eq=False)
class _Formed:
    """A power of U as its module keeps it, and the parameters that it was formed from."""

    exponent: float
    parameters: tuple[Tensor, ...]
    factors: tuple[Tensor, ...]

    def serves(self, exponent: float, parameters: list[nn.Parameter]) -> bool:
        # A tensor made in inference mode cannot be saved for a gradient with respect to the states.
        if self.exponent != exponent or (
            self.factors[0].is_inference() and not torch.is_inference_mode_enabled()
        ):
            return False
        return all(_same(kept, now) for kept, now in zip(self.parameters, parameters, strict=True))


class UnitaryModule(nn.Module, ABC):
    """A trainable unitary U on C^q and its real powers.

    Calling it gives U^λ ψ for states ψ (..., q), complex of ``dtype``. In training mode, and where
    gradients are on and a parameter requires one, U is formed at every call with its gradient.
    Otherwise it is formed once and kept until the parameters or λ change or ``train()`` is called.
    """

    family: ClassVar[Family]

    def __init__(self, q: int) -> None:
        super().__init__()
        if type(q) is not int or q < 1:
            message = f"[{type(self).__name__}] expected a dimension q of 1 or more, got {q!r}"
            raise ValueError(message)
        self.q = q
        self._formed: _Formed | None = None

    @property
    def dtype(self) -> torch.dtype:
        """complex64 for parameters in float32, complex128 for float64."""
        real = next(self.parameters()).dtype
        if real not in _COMPLEX:
            message = (
                f"[{type(self).__name__}] expected parameters in float32 or float64, got "
                f"{str(real).removeprefix('torch.')}; convert them with .float()"
            )
            raise TypeError(message)
        return _COMPLEX[real]

    @property
    def free_parameters(self) -> int:
        """How many real numbers are stored and trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, states: Tensor, exponent: float = 1.0) -> Tensor:
        """U^λ ψ for states ψ: (..., q) to (..., q); λ = 0 gives ψ, -λ the inverse of λ.

        Raises TypeError for another dtype than ``dtype``; ValueError for another width, an exponent
        that is not finite, or parameters that are not.
        """
        where = type(self).__name__
        check_complex(states, where, (self.dtype,))
        if states.ndim < 1 or states.shape[-1] != self.q:
            got = tuple(states.shape)
            message = f"[{where}] expected states (..., {self.q}), got {got}; encode them first"
            raise ValueError(message)
        rows = states.reshape(-1, self.q)
        return self._turn(rows, _finite(exponent, where)).reshape(states.shape)

    def adjoint(self, states: Tensor, exponent: float = 1.0) -> Tensor:
        """(U^λ)ᴴ ψ, which is (U^λ)⁻¹ ψ, for states ψ: (..., q) to (..., q)."""
        result: Tensor = self(states, -exponent)
        return result

    def unitary(self, exponent: float = 1.0) -> Tensor:
        """U^λ as a matrix of its own, (q, q) complex; with a gradient where one can be wanted."""
        return self._matrix(_finite(exponent, type(self).__name__))

    def deviation(self) -> float:
        """max |UᴴU - I|."""
        with torch.no_grad():
            return unitarity_deviation(self.unitary())

    def train(self, mode: bool = True) -> Self:
        """As in torch; the kept matrix is dropped."""
        self._formed = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Any], Any], recurse: bool = True) -> Self:
        self._formed = None
        result: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return result

    def _differentiates(self) -> bool:
        """Whether U must carry a gradient, or is about to change."""
        wanted = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        return self.training or wanted

    def _factors(self, exponent: float) -> tuple[Tensor, ...]:
        """What `_form` makes of this exponent ≥ 0, formed anew or as it was kept."""
        if self._differentiates():
            return self._form(exponent)
        parameters = list(self.parameters())
        if self._formed is None or not self._formed.serves(exponent, parameters):
            kept = tuple(parameter.detach().clone() for parameter in parameters)
            with torch.no_grad():
                self._formed = _Formed(exponent, kept, self._form(exponent))
        return self._formed.factors

    @abstractmethod
    def _form(self, exponent: float) -> tuple[Tensor, ...]:
        """U^λ, λ ≥ 0, as the tensors that `_turn` needs."""

    @abstractmethod
    def _turn(self, rows: Tensor, exponent: float) -> Tensor:
        """U^λ ψ for rows (n, q)."""

    @abstractmethod
    def _matrix(self, exponent: float) -> Tensor:
        """U^λ, (q, q), a tensor that the caller may change."""


class DenseCayley(UnitaryModule):
    """U = (I - iH)⁻¹ (I + iH) with a dense Hermitian H = A + iB.

    free: (q, q) real; Re H in the lower triangle with the diagonal, Im H in the strict upper one
    (see `cogit.hermitian.hermitian`). Drawn as spread · N(0, 1) from ``seed`` on the CPU, the same
    on every device. Two free squares A and B, of which one triangle each is used, train alike: the
    unused halves have no gradient.

    In training, U ψ comes from one solve for the states at hand, 2 (I - iH)⁻¹ ψ - ψ, which costs a
    fraction of forming U.
    """

    family: ClassVar[Family] = "dense"

    def __init__(
        self, q: int, *, spread: float = SPREAD, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(q)
        self.free = nn.Parameter(_normal((q, q), spread, seed, dtype))

    @classmethod
    def from_generator(cls, generator: Tensor) -> DenseCayley:
        """The module whose H is this Hermitian matrix (q, q). Raises as `check_hermitian` does."""
        free = hermitian_parameters(generator)
        module = cls(len(free), dtype=free.dtype, spread=0.0)
        module.free = nn.Parameter(free.clone())
        return module

    @classmethod
    def from_unitary(cls, unitary: Tensor) -> DenseCayley:
        """The module whose U is this unitary (q, q). Raises as `inverse_cayley` does."""
        with torch.no_grad():
            return cls.from_generator(inverse_cayley(unitary))

    def generator(self) -> Tensor:
        """H, (q, q) complex, exactly Hermitian, with its gradient."""
        return hermitian(self.free)

    def _form(self, exponent: float) -> tuple[Tensor, ...]:
        generator = self.generator()
        return (cayley(generator) if exponent == 1.0 else cayley_power(generator, exponent),)

    def _turn(self, rows: Tensor, exponent: float) -> Tensor:
        if abs(exponent) == 1.0 and len(rows) < self.q and self._differentiates():
            eye = torch.eye(self.q, dtype=rows.dtype, device=rows.device)
            solved: Tensor = torch.linalg.solve(eye - exponent * 1j * self.generator(), rows.T)
            return 2 * solved.T - rows
        (matrix,) = self._factors(abs(exponent))
        return rows @ (matrix.T if exponent >= 0 else matrix.conj())

    def _matrix(self, exponent: float) -> Tensor:
        (matrix,) = self._factors(abs(exponent))
        return matrix.clone() if exponent >= 0 else matrix.mH.resolve_conj().clone()


class LowRankUnitary(UnitaryModule):
    """U = (I + K/2)⁻¹ (I - K/2) with K = X Yᴴ - Y Xᴴ (see `cogit.cayley.LowRankCayley`).

    x, y: (q, rank, 2) real, the real and imaginary parts of X and Y. X is drawn from ``seed`` with
    columns near unit norm, Y is zero: the identity, with a gradient. No (q, q) matrix is formed
    except by `unitary`.
    """

    family: ClassVar[Family] = "lowrank"

    def __init__(
        self, q: int, rank: int = 4, *, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(q)
        if type(rank) is not int or rank < 1:
            message = f"[LowRankUnitary] expected a rank of 1 or more, got {rank!r}"
            raise ValueError(message)
        self.rank = rank
        self.x = nn.Parameter(_normal((q, rank, 2), (2 * q) ** -0.5, seed, dtype))
        self.y = nn.Parameter(torch.zeros(q, rank, 2, dtype=dtype))

    def _form(self, exponent: float) -> tuple[Tensor, ...]:
        axes = (torch.view_as_complex(part) for part in (self.x, self.y))
        return LowRankCayley(*axes).change(exponent)

    def _turn(self, rows: Tensor, exponent: float) -> Tensor:
        left, right = self._change(exponent)
        return rows + (rows @ right.conj()) @ left.T

    def _matrix(self, exponent: float) -> Tensor:
        left, right = self._change(exponent)
        return torch.eye(self.q, dtype=left.dtype, device=left.device) + left @ right.mH

    def _change(self, exponent: float) -> tuple[Tensor, Tensor]:
        """(left, right) with U^λ - I = left @ rightᴴ; the inverse is the adjoint."""
        left, right = self._factors(abs(exponent))
        return (left, right) if exponent >= 0 else (right, left)


class DiagonalPhases(UnitaryModule):
    """U = diag(exp(iθ)): q phases, each component turned by itself.

    phases: (q,) real, in radians, drawn as spread · N(0, 1). Powers go by the principal angles
    (-π, π], as those of the other families do.
    """

    family: ClassVar[Family] = "diagonal"

    def __init__(
        self, q: int, *, spread: float = SPREAD, seed: int = 0, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(q)
        self.phases = nn.Parameter(_normal((q,), spread, seed, dtype))

    def _form(self, exponent: float) -> tuple[Tensor, ...]:
        if not bool(torch.isfinite(self.phases.detach()).all()):
            message = "[DiagonalPhases] expected finite phases, got NaN or infinity"
            raise ValueError(message)
        # As in geodesic_power, rounding just above π does not turn a half turn around.
        snap = half_the_digits(self.phases.dtype)
        turns = torch.ceil((self.phases.detach() - snap) / (2 * math.pi) - 0.5)
        angles = exponent * (self.phases - 2 * math.pi * turns)
        return (torch.complex(angles.cos(), angles.sin()),)

    def _turn(self, rows: Tensor, exponent: float) -> Tensor:
        return rows * self._diagonal(exponent)

    def _matrix(self, exponent: float) -> Tensor:
        return torch.diag(self._diagonal(exponent))

    def _diagonal(self, exponent: float) -> Tensor:
        (diagonal,) = self._factors(abs(exponent))
        return diagonal if exponent >= 0 else diagonal.conj().resolve_conj()


def make_unitary(
    family: Family,
    q: int,
    *,
    rank: int = 4,
    spread: float = SPREAD,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> UnitaryModule:
    """A module of one family at its start. ValueError, listing the families, for another."""
    if family not in FAMILIES:
        message = f"[unitary] expected a family of {', '.join(FAMILIES)}; got {family!r}"
        raise ValueError(message)
    if family == "lowrank":
        return LowRankUnitary(q, rank, seed=seed, dtype=dtype)
    made = DenseCayley if family == "dense" else DiagonalPhases
    return made(q, spread=spread, seed=seed, dtype=dtype)


def _normal(shape: tuple[int, ...], scale: float, seed: int, dtype: torch.dtype) -> Tensor:
    if dtype not in _COMPLEX:
        message = f"[unitary] expected parameters in float32 or float64, got {dtype}"
        raise TypeError(message)
    # Drawn in one dtype, so that both precisions start at the same place.
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (scale * drawn).to(dtype)


def _same(kept: Tensor, now: Tensor) -> bool:
    if (kept.shape, kept.dtype, kept.device) != (now.shape, now.dtype, now.device):
        return False
    return torch.equal(kept, now)


def _finite(exponent: float, where: str) -> float:
    if not math.isfinite(exponent):
        message = f"[{where}] expected a finite exponent, got {exponent}; choose a real strength"
        raise ValueError(message)
    return float(exponent)
