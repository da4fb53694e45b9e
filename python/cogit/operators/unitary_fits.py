"""Closed-form unitaries on the lifted state, and the matrix functions that they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.subspace import Subspace

    Complex = NDArray[np.complex128]

FitName = Literal["plane", "procrustes", "direct", "born"]
_BORN_STEPS = 200
_BORN_GAIN = 1e-9
_PARALLEL = 1e-12


def plane(subspace: Subspace, amplitude: float, angle: float, pull: float) -> Complex:
    """The rotation by ``angle`` in the plane of the reference and the mean difference."""
    size = subspace.basis.shape[1] // 2 + 1
    matrix = np.eye(size, dtype=np.complex128)
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    return matrix


def procrustes(subspace: Subspace, amplitude: float, angle: float, pull: float) -> Complex:
    """polar(ΦΨᴴ / n + pull·I): negative states Ψ to positive ones Φ, drawn to the identity."""
    source, target = _lifted(subspace, amplitude)
    overlap = target.T @ source.conj() / len(source)
    return polar(overlap + pull * np.eye(len(overlap)))


def direct(subspace: Subspace, amplitude: float, angle: float, pull: float) -> Complex:
    """The direct rotation (Kato) that carries the leading state of one class density to the other.

    Kato's formula polar(QP + (1-Q)(1-P)) chooses the states' phases by a positive overlap, and so
    turns the wrong way once they are more than 90° apart. Here their reference amplitudes are
    positive instead; where the overlap is positive too, both rotations are the same.
    """
    source, target = _lifted(subspace, amplitude)
    start, end = _leading_state(source), _leading_state(target)
    overlap = np.vdot(start, end)
    across = end - overlap * start
    length = float(np.linalg.norm(across))
    matrix = np.eye(len(start), dtype=np.complex128)
    if length < _PARALLEL:
        return matrix
    plane_basis = np.column_stack([start, across / length])
    turned = np.array([[overlap, -length], [length, overlap.conj()]])
    return polar(matrix + plane_basis @ (turned - np.eye(2)) @ plane_basis.conj().T)


def born(subspace: Subspace, amplitude: float, angle: float, pull: float) -> Complex:
    """Ascent of the mean Born fidelity |<φ|Uψ>|² by U ← polar(Σ aᵢ φᵢ ψᵢᴴ), aᵢ = <φᵢ|Uψᵢ>.

    It leaves the phase between reference and signal free, reaches high fidelity and still breaks
    text: a comparison, not a recommendation.
    """
    source, target = _lifted(subspace, amplitude)
    matrix: Complex = np.eye(source.shape[1], dtype=np.complex128)
    last = -1.0
    for _ in range(_BORN_STEPS):
        overlaps = (target.conj() * (source @ matrix.T)).sum(axis=1)
        fidelity = float((np.abs(overlaps) ** 2).mean())
        if fidelity - last < _BORN_GAIN:
            break
        last = fidelity
        matrix = polar((target * overlaps[:, None]).T @ source.conj())
    return matrix


FITS: dict[str, Callable[[Subspace, float, float, float], Complex]] = {
    "plane": plane,
    "procrustes": procrustes,
    "direct": direct,
    "born": born,
}


def polar(matrix: Complex) -> Complex:
    """The unitary factor of the polar decomposition: the closest unitary matrix."""
    left, _, right = np.linalg.svd(matrix)
    return np.asarray(left @ right)


def power(matrix: Complex, exponent: float) -> Complex:
    """The geodesic power U^λ by the complex Schur form, principal angles; exactly I at λ = 0."""
    if exponent == 0.0:
        return np.eye(len(matrix), dtype=np.complex128)
    from scipy.linalg import schur

    triangle, vectors = schur(matrix, output="complex")
    angles = np.angle(np.diag(triangle))
    return np.asarray((vectors * np.exp(1j * exponent * angles)) @ vectors.conj().T)


def conjugated(matrix: Complex, seed: int) -> Complex:
    """V U Vᴴ with a Haar-random V: the same rotation angles about random axes."""
    rng = np.random.default_rng(seed)
    shape = matrix.shape
    gaussian = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    q, r = np.linalg.qr(gaussian)
    haar = q * (np.diag(r) / np.abs(np.diag(r)))
    return polar(haar @ matrix @ haar.conj().T)


def _lifted(subspace: Subspace, amplitude: float) -> tuple[Complex, Complex]:
    """Unit lifted states (pair, k+1) of the negative and the positive class."""
    return lift(subspace.negative, amplitude), lift(subspace.positive, amplitude)


def lift(coordinates: NDArray[np.float64], amplitude: float) -> Complex:
    """(n, 2k) signal coordinates to unit states (n, k+1) with the reference amplitude first."""
    signal = coordinates[:, 0::2] + 1j * coordinates[:, 1::2]
    reference = np.full((len(signal), 1), amplitude, dtype=np.complex128)
    states = np.concatenate([reference, signal], axis=1)
    return np.asarray(states / np.linalg.norm(states, axis=1, keepdims=True))


def _leading_state(states: Complex) -> Complex:
    """The first eigenvector of a class density, with a positive reference amplitude."""
    density = states.T @ states.conj() / len(states)
    leading = np.linalg.eigh(density)[1][:, -1]
    return np.asarray(leading * np.exp(-1j * np.angle(leading[0])))
