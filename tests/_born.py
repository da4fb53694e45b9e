"""States for the Born training: a planted rotation, and states like those of a residual stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from cogit.training.born_pair import BornFit

    Complex = NDArray[np.complex128]
    Real = NDArray[np.float64]


def gaussian(rng: np.random.Generator, *shape: int) -> Complex:
    return np.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def planted_rotation(n: int = 60, q: int = 12, seed: int = 0) -> tuple[Complex, Complex, Complex]:
    """Source rows, target rows, and the unitary between them, far from the identity."""
    rng = np.random.default_rng(seed)
    half = gaussian(rng, q, q) / q**0.5
    hermitian = (half + half.conj().T) / 2
    eye = np.eye(q)
    unitary = np.linalg.inv(eye - 1j * hermitian) @ (eye + 1j * hermitian)
    source = gaussian(rng, n, q)
    return source, source @ unitary.T, np.asarray(unitary)


def residual_states(
    n: int = 40, d: int = 16, separation: float = 0.3, seed: int = 0
) -> tuple[Real, Real]:
    """Matched rows (n, d) of two classes about a large common mean; separation in its length."""
    rng = np.random.default_rng(seed)
    mean, difference = rng.standard_normal((2, d))
    mean *= 1.6 * d**0.5 / np.linalg.norm(mean)
    difference *= separation * np.linalg.norm(mean) / np.linalg.norm(difference)
    common = mean + 0.15 * rng.standard_normal((n, 8)) @ rng.standard_normal((8, d))
    own = 0.35 * rng.standard_normal((2, n, d))
    return common - difference / 2 + own[0], common + difference / 2 + own[1]


def projection(d: int = 16, q: int = 42, seed: int = 5) -> Complex:
    drawn = gaussian(np.random.default_rng(seed), d, q)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=0))


def encoded(rows: Real, matrix: Complex) -> Complex:
    states = rows @ matrix
    return np.asarray(states / np.linalg.norm(states, axis=1, keepdims=True))


def born(unitary: Any, source: Complex, target: Complex) -> float:
    """Mean |<t|U s>|² in double precision, of unit rows."""
    source, target = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (source, target))
    overlaps = np.einsum("nq,nq->n", target.conj(), source @ np.asarray(unitary).T)
    return float((np.abs(overlaps) ** 2).mean())


def parts(fit: BornFit) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    states = fit.results["negative_to_positive"].states
    return (states.source, states.target), (states.held_source, states.held_target)
