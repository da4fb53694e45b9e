"""A unitary on the lifted state whose generator is trained: low-rank Cayley, geodesic powers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cogit.cayley import LowRankCayley
from cogit.operators import Unitary

if TYPE_CHECKING:
    from numpy.typing import NDArray

# An eigenvalue within this angle of -1 has no generator that training could start from.
_HALF_TURN = 1e-3
_NEGLIGIBLE = 1e-9


class LiftedUnitary:
    """U = cayley of X Yᴴ - Y Xᴴ on C^(k+1), and the reference amplitude c, as real leaves.

    X, Y: (k+1, rank, 2) float64, real and imaginary parts. log_gain: (1,) float64; c is the
    starting amplitude times its exponential. All require gradients; float64, since k+1 is small.
    """

    def __init__(self, start: Unitary, rank: int | None = None) -> None:
        """Start at a unitary. rank: of the generator, k+1 unless given.

        Raises ValueError where the start has an eigenvalue near -1, or a generator of more
        directions than ``rank``.
        """
        size = len(start.matrix)
        kept = size if rank is None else rank
        if not 1 <= kept <= size:
            message = f"[lifted] expected 1 <= rank <= {size}, got {kept}"
            raise ValueError(message)
        first, second = _factors(start.matrix, kept)
        self.start = start
        self.X, self.Y = (_leaf(factor) for factor in (first, second))
        self.log_gain = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def leaves(self) -> dict[str, Tensor]:
        """The trained tensors by name."""
        return {"X": self.X, "Y": self.Y, "log_gain": self.log_gain}

    def signal_map(self, strength: float) -> tuple[Tensor, Tensor]:
        """(A, τ) of U^λ on the signal coordinates, (2k, 2k) and (2k,) float64, differentiable.

        The same as `Unitary.signal_map`, which is the definition.
        """
        turned = self._cayley().dense(strength)
        amplitude = self.start.amplitude * torch.exp(self.log_gain)
        shift = torch.view_as_real(amplitude * turned[1:, 0]).reshape(-1)
        return _realified(turned[1:, 1:]), shift

    def operator(self) -> Unitary:
        """What has been learned so far, as an ordinary operator."""
        with torch.no_grad():
            matrix = self._cayley().dense().numpy()
            amplitude = self.start.amplitude * math.exp(float(self.log_gain[0]))
        return Unitary(
            self.start.mean, self.start.basis, matrix, amplitude, restore=self.start.restore
        )

    def load(self, leaves: dict[str, NDArray[np.float64]]) -> None:
        """Take over saved values; ValueError where shapes differ."""
        for name, leaf in self.leaves().items():
            if leaves[name].shape != tuple(leaf.shape):
                message = f"shape {tuple(leaf.shape)} of {name}, got {leaves[name].shape}"
                raise ValueError(message)
            with torch.no_grad():
                leaf.copy_(torch.from_numpy(np.array(leaves[name])))

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Copies of the trained tensors."""
        return {name: leaf.detach().numpy().copy() for name, leaf in self.leaves().items()}

    def _cayley(self) -> LowRankCayley:
        return LowRankCayley(torch.view_as_complex(self.X), torch.view_as_complex(self.Y))


def _factors(
    matrix: NDArray[np.complex128], rank: int
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """X, Y (q, rank) with U = (I + K/2)⁻¹ (I - K/2) for K = X Yᴴ - Y Xᴴ.

    U = V exp(iθ) Vᴴ has K = V diag(iκ) Vᴴ with κ = -2 tan(θ/2), so Y holds eigenvectors and X
    their multiples by iκ/2. Where κ = 0 the column of Y still gives X a gradient.
    """
    from scipy.linalg import schur

    triangle, vectors = schur(matrix, output="complex")
    angles = np.angle(np.diag(triangle))
    if np.abs(angles).max() > np.pi - _HALF_TURN:
        message = (
            "[lifted] expected a unitary without a half turn to start from, got an eigenvalue at "
            "-1; start from a smaller angle or strength"
        )
        raise ValueError(message)
    sizes = -2 * np.tan(angles / 2)
    order = np.argsort(-np.abs(sizes), kind="stable")
    if len(order) > rank and np.abs(sizes[order[rank:]]).max() > _NEGLIGIBLE:
        needed = int((np.abs(sizes) > _NEGLIGIBLE).sum())
        message = f"[lifted] expected rank >= {needed} for this start, got {rank}; raise it"
        raise ValueError(message)
    chosen = vectors[:, order[:rank]]
    return chosen * (0.5j * sizes[order[:rank]]), chosen


def _leaf(values: NDArray[np.complex128]) -> Tensor:
    parts = np.stack([values.real, values.imag], axis=-1)
    return torch.from_numpy(np.ascontiguousarray(parts)).requires_grad_()


def _realified(matrix: Tensor) -> Tensor:
    """The real (2m, 2n) matrix of a complex (m, n) one, on interleaved real and imaginary parts."""
    real, imaginary = matrix.real, matrix.imag
    columns = [torch.stack([real, -imaginary], dim=-1), torch.stack([imaginary, real], dim=-1)]
    rows, width = matrix.shape
    return torch.stack(columns, dim=1).reshape(2 * rows, 2 * width)
