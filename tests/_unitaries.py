"""Definitions of Cayley unitaries in NumPy, and generators whose gradients are hard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cogit.hermitian import hermitian
from cogit.operators.unitary_fits import polar

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Complex = NDArray[np.complex128]

# Sums of q ≤ 60 products of numbers near 1 in complex128 (ε = 2e-16), with room for conditions
# of a few hundred.
EXACT = 1e-12


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def generator(size: int, seed: int = 0, norm: float | None = None) -> Tensor:
    matrix = hermitian(gaussian(size, size, seed=seed, dtype=torch.float64))
    return matrix if norm is None else matrix * norm / torch.linalg.matrix_norm(matrix, 2)


def dense_cayley(matrix: Complex) -> Complex:
    """The definition, with an explicit inverse."""
    eye = np.eye(len(matrix))
    return np.asarray(np.linalg.inv(eye - 1j * matrix) @ (eye + 1j * matrix))


def dense_low_rank(x: Complex, y: Complex) -> Complex:
    skew = x @ y.conj().T - y @ x.conj().T
    eye = np.eye(len(x))
    return np.asarray(np.linalg.inv(eye + skew / 2) @ (eye - skew / 2))


def low_rank_generator(x: Tensor, y: Tensor) -> Tensor:
    return 0.5j * (x @ y.mH - y @ x.mH)


def close(found: Tensor, expected: Tensor | Complex, tolerance: float = EXACT) -> None:
    expected = expected if isinstance(expected, np.ndarray) else expected.detach().numpy()
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=0, atol=tolerance)


def with_angles(angles: list[float], seed: int = 3) -> Tensor:
    """A unitary of given eigenvalue angles about random axes."""
    axes = polar(gaussian(len(angles), len(angles), seed=seed).numpy())
    return torch.from_numpy((axes * np.exp(1j * np.array(angles))) @ axes.conj().T)


# X and Y of full rank; of more columns than their span, or than q; dependent; zero.
PAIRS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
    "plain": lambda: (gaussian(9, 2, seed=1), gaussian(9, 2, seed=2)),
    "wide": lambda: (0.4 * gaussian(5, 4, seed=1), 0.4 * gaussian(5, 4, seed=2)),
    "wider_than_q": lambda: (0.4 * gaussian(3, 4, seed=1), 0.4 * gaussian(3, 4, seed=2)),
    "equal": lambda: (gaussian(7, 2, seed=1), gaussian(7, 2, seed=1)),
    "repeated_column": lambda: (gaussian(7, 1, seed=1).expand(7, 2).clone(), gaussian(7, 2)),
    "zero_column": lambda: (gaussian(7, 2) * torch.tensor([1.0, 0.0]), gaussian(7, 2, seed=1)),
    "start": lambda: (gaussian(7, 2), torch.zeros(7, 2, dtype=torch.complex128)),
    "zero": lambda: (0 * gaussian(7, 2), 0 * gaussian(7, 2)),
}
# Repeated eigenvalues, where differentiating an eigendecomposition gives NaN.
GENERATORS: dict[str, Tensor] = {
    "plain": generator(4),
    "zero": torch.zeros(4, 4, dtype=torch.complex128),
    "identity": torch.eye(4, dtype=torch.complex128),
    "repeated": torch.diag(torch.tensor([2.0, 2.0, -2.0, 0.0], dtype=torch.complex128)),
    # Nearly equal: a quotient of differences would lose nine digits here.
    "near": torch.diag(torch.tensor([1.0, 1.0 + 1e-9, 0.0, -1e-9], dtype=torch.complex128)),
}
