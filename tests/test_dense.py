"""The dense complex route against its fold, and against the low-rank families."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _models import planted, rows
from cogit import kernels, reference
from cogit.cayley import LowRankCayley
from cogit.operators import Dense, Diagonal, Rotation, Unitary
from cogit.operators.base import random_basis
from cogit.operators.dense import encode_turn_decode
from cogit.operators.unitary_fits import conjugated
from cogit.projection import DECODES, LINEAR_DECODES, Projection
from cogit.subspace import fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Complex = NDArray[np.complex128]

D, Q = 24, 40
STRENGTHS = (-0.5, 0.05, 0.5, 1.0, 1.5)
# The fold is float32, of sums of D products.
FOLDED = 256 * float(np.finfo(np.float32).eps)


def haar(size: int, seed: int = 0) -> Complex:
    rng = np.random.default_rng(seed)
    gaussian = rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))
    return np.asarray(np.linalg.qr(gaussian)[0])


def dense(q: int = Q, **options: Any) -> Dense:
    return Dense(Projection.draw(D, quantum_dim=q, seed=1), haar(q), **options)


def assert_rows_close(got: Array, expected: Array, tolerance: float) -> None:
    error = np.linalg.norm(got - expected, axis=-1)
    assert (error <= tolerance * np.linalg.norm(expected, axis=-1)).all()


@pytest.mark.parametrize("q", [D, Q])
@pytest.mark.parametrize("decode", LINEAR_DECODES)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_route_folds_exactly(decode: str, strength: float, q: int) -> None:
    """Q7: encode, turn, blend and decode for each token is one real map with the norm restored."""
    operator = dense(q, decode=decode)
    h = 7.0 * rows(30, D).astype(np.float64) + 3.0
    route = encode_turn_decode(operator.projection, operator.matrix, h, strength, decode)
    # A square projection's condition of some hundreds multiplies the float32 of the fold.
    condition = np.linalg.cond(operator.projection.matrix)
    exact = h + strength * h @ operator.change
    exact *= (np.linalg.norm(h, axis=1) / np.linalg.norm(exact, axis=1))[:, None]
    assert_rows_close(exact, route, 1e-12 * condition**2)
    folded = reference.affine_apply(operator.fold(strength), h)
    assert_rows_close(folded, route, FOLDED * condition)


def test_without_a_restore_the_map_is_linear() -> None:
    operator = dense(restore=False)
    h = rows(9, D).astype(np.float64)
    scaled = reference.affine_apply(operator.fold(0.7), 3.0 * h)
    assert_rows_close(scaled, 3.0 * reference.affine_apply(operator.fold(0.7), h), 1e-12)


@pytest.mark.parametrize("method", sorted(set(DECODES) - set(LINEAR_DECODES)))
def test_decodes_that_do_not_fold(method: str) -> None:
    """Q7: refused as an operator by name, there as a function, and really not affine."""
    with pytest.raises(ValueError, match=f"got '{method}', which does not fold"):
        dense(decode=method)
    operator = dense()
    h = rows(9, D).astype(np.float64)
    there, back = (
        encode_turn_decode(operator.projection, operator.matrix, x, 0.5, method) for x in (h, -h)
    )
    # A linear map would send -h to minus what it sends h to.
    np.testing.assert_allclose(back, there, atol=1e-9)
    assert (there >= 0).all()
    with pytest.raises(ValueError, match="got 'phase', which is unknown"):
        dense(decode="phase")


def test_a_narrow_projection_passes_by_what_it_cannot_hold() -> None:
    """Q7: q < d is refused unless asked, and then the lost range is untouched."""
    narrow = Projection.draw(D, quantum_dim=10, seed=1)
    with pytest.raises(ValueError, match="14 would pass by unsteered"):
        Dense(narrow, haar(10))
    operator = Dense(narrow, haar(10), restore=False, lossy=True)
    seen = np.concatenate([narrow.matrix.real, narrow.matrix.imag], axis=1)
    lost = np.linalg.svd(seen, full_matrices=True)[0][:, 20:]
    assert lost.shape == (D, 4)  # real rows that the complex projection sends to zero
    h = rows(9, D) @ lost @ lost.T
    after = reference.affine_apply(operator.fold(1.0), h)
    np.testing.assert_allclose(after, h, atol=1e-5)
    assert dense(10, lossy=True).projection.lost_range == 14


def tight_frame(d_model: int, q: int) -> Projection:
    """Rows of a Fourier matrix: unit columns, and C Cᴴ = (q / d) I exactly."""
    phases = np.outer(np.arange(d_model), np.arange(q)) / q
    return Projection((np.exp(2j * np.pi * phases) / np.sqrt(d_model)).astype(np.complex64))


@pytest.mark.parametrize("q", [D, Q, 2 * Q])
def test_dense_and_low_rank_agree_on_a_planted_rotation(q: int) -> None:
    """Q10: the same rotation by rank 2, by a unitary on C^q, and by real powers of both."""
    plane = random_basis(D, 2, 5)
    low = Rotation(plane, 50.0, np.zeros(D), restore=True)
    projection = tight_frame(D, q)
    # An isometry of C^d into C^q turns the real rotation into a unitary that the route undoes.
    isometry = projection.matrix.astype(np.complex128) * np.sqrt(D / q)
    turn = replace(low, restore=False)

    def lift(strength: float) -> Complex:
        fold = turn.fold(strength)
        change = (fold.A.T.astype(np.float64) @ fold.B.astype(np.float64)).T
        return np.eye(q) + isometry.T @ change @ isometry.conj()

    operator = Dense(projection, lift(1.0))
    h = rows(30, D).astype(np.float64)
    expected = reference.affine_apply(low.fold(1.0), h)
    assert_rows_close(reference.affine_apply(operator.fold(1.0), h), expected, FOLDED)
    assert_rows_close(encode_turn_decode(projection, lift(1.0), h), expected, FOLDED)
    for strength in (-1.0, 0.3, 1.6):
        taken = reference.affine_apply(operator.power(strength).fold(1.0), h)
        assert_rows_close(taken, reference.affine_apply(low.fold(strength), h), 4 * FOLDED)
    cheap = kernels.affine_apply_numpy(low.fold(1.0), h.astype(np.float32))
    full = kernels.affine_apply_numpy(operator.fold(1.0), h.astype(np.float32))
    assert_rows_close(full.astype(np.float64), cheap.astype(np.float64), FOLDED)


def test_diagonal_is_the_dense_unitary_on_the_same_subspace() -> None:
    """Q10: k phases against a (k + 1, k + 1) matrix that leaves the reference alone."""
    diagonal = Diagonal.example(D, 3)
    matrix = np.diag([1.0, *np.diag(diagonal.unitary(1.0))])
    unitary = Unitary(diagonal.mean, diagonal.basis, matrix, 2.0)
    h = rows(30, D).astype(np.float64)
    for strength in (-1.2, 0.4, 1.0):
        a, b = (reference.affine_apply(x.fold(strength), h) for x in (diagonal, unitary))
        assert_rows_close(a, b, FOLDED)


def multiply_adds(*factors: Any) -> int:
    """Every weight of a factor is used once a token."""
    return sum(int(np.prod(factor.shape)) for factor in factors)


def test_operation_counts() -> None:
    """Q10: O(q r) for factors of U - I, O(q²) dense; O(d r) and O(d²) once folded."""
    rank, counts = 4, {}
    for q in (64, 128, 256):
        X, Y = (torch.randn(q, rank, dtype=torch.complex64) / q for _ in range(2))
        low = LowRankCayley(X, Y)
        counts[q] = multiply_adds(*low.change(1.0)), multiply_adds(low.dense(1.0))
        assert counts[q] == (2 * q * 2 * rank, q * q)
    assert counts[256][0] / counts[64][0] == 4
    assert counts[256][1] / counts[64][1] == 16
    for width in (32, 64):
        thin, full = Unitary.example(width, 0).fold(1.0), Dense.example(width, 0).fold(1.0)
        assert multiply_adds(thin.A, thin.B) == 2 * 6 * width
        assert multiply_adds(full.B) == width * width


def test_fit_turns_one_class_toward_the_other() -> None:
    """Procrustes on encoded states: the negative class moves toward the positive one."""
    subspace = fit_subspace(planted(separation=3.0), 0, k=2)
    operator = Dense.fit(subspace, seed=0, ratio=1.5)
    negative = subspace.mean + subspace.negative @ subspace.basis.T
    moved = reference.affine_apply(operator.fold(1.0), negative) - negative
    toward = (moved @ subspace.direction).mean()
    random = [
        reference.affine_apply(operator.randomised(seed, "subspace").fold(1.0), negative)
        for seed in range(4)
    ]
    chance = max(((x - negative) @ subspace.direction).mean() for x in random)
    assert toward > 0.2 * subspace.half_separation
    assert toward > chance


def test_inverse_of_the_dense_route() -> None:
    """N7: exact, although it restores norms: its map has no constant part."""
    operator = dense()
    h = rows(30, D)
    there = reference.affine_apply(operator.fold(0.5), h)
    inverse = operator.inverse(0.5)
    assert inverse.determined(there).all()
    assert_rows_close(np.asarray(inverse.apply(there)), h.astype(np.float64), 1e-10)


def test_refused() -> None:
    projection = Projection.draw(D, quantum_dim=Q, seed=1)
    for matrix in (np.eye(D), 1.1 * haar(Q), np.full((Q, Q), np.nan)):
        with pytest.raises(ValueError, match=r"^\[dense\] expected a "):
            Dense(projection, matrix)
    turned = conjugated(haar(Q), 3)
    np.testing.assert_allclose(turned.conj().T @ turned, np.eye(Q), atol=1e-12)
