"""Unitaries: powers by a real strength, closed-form fits, and random controls of the same size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _models import D_MODEL, planted
from cogit import reference
from cogit.operators import (
    Ablation,
    Additive,
    Operator,
    Unitary,
    fit_operator,
    registered,
)
from cogit.operators.base import random_basis
from cogit.operators.unitary_fits import FITS, conjugated, lift, polar, power
from cogit.subspace import Subspace, fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STRENGTHS = (-2.0, -1.0, -0.3, 0.0, 0.37, 1.0, 1.7)


def unitary(size: int, seed: int) -> NDArray[np.complex128]:
    rng = np.random.default_rng(seed)
    gaussian = rng.standard_normal((size, size)) + 1j * rng.standard_normal((size, size))
    return np.asarray(polar(gaussian))


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    return fit_subspace(planted(), 0, k=3)


# ---- geodesic strength ----


@pytest.mark.parametrize("size", [2, 3, 7])
def test_powers_of_a_unitary(size: int) -> None:
    matrix, eye = unitary(size, size), np.eye(size)
    assert np.array_equal(power(matrix, 0.0), eye)
    np.testing.assert_allclose(power(matrix, 1.0), matrix, atol=1e-13)
    for exponent in np.linspace(-7, 7, 29):
        turned = power(matrix, float(exponent))
        np.testing.assert_allclose(turned.conj().T @ turned, eye, atol=1e-12)
        np.testing.assert_allclose(turned @ power(matrix, -float(exponent)), eye, atol=1e-12)
        both = power(matrix, float(exponent) + 0.3)
        np.testing.assert_allclose(turned @ power(matrix, 0.3), both, atol=1e-12)


def test_powers_of_a_half_turn_and_of_repeated_angles() -> None:
    for diagonal in ([-1.0, 1.0, 1.0], [1j, 1j, 1.0], [-1.0, -1.0, 1j]):
        matrix = conjugated(np.diag(np.array(diagonal, np.complex128)), 3)
        for exponent in (-1.0, 0.25, 1.0, 3.0):
            turned = power(matrix, exponent)
            np.testing.assert_allclose(turned.conj().T @ turned, np.eye(3), atol=1e-12)
        np.testing.assert_allclose(power(matrix, 1.0), matrix, atol=1e-12)


def test_rank_is_the_same_at_every_strength() -> None:
    """So that dialling a strength rebuilds no compute graph."""
    for seed in range(5):
        operator = Unitary.example(D_MODEL, seed)
        assert {operator.fold(strength).rank for strength in STRENGTHS} == {6}


@pytest.mark.parametrize("kind", registered())
def test_strength_zero_folds_to_nothing(kind: str) -> None:
    assert registered()[kind].example(D_MODEL, 0).fold(0.0).is_zero()
    for strength in STRENGTHS:
        assert registered()[kind].identity(D_MODEL).fold(strength).is_zero()


# ---- fits ----


@pytest.mark.parametrize("method", FITS)
def test_fits_are_unitary(subspace: Subspace, method: Any) -> None:
    matrix = Unitary.fit(subspace, method=method).matrix
    assert matrix.shape == (4, 4)
    np.testing.assert_allclose(matrix.conj().T @ matrix, np.eye(4), atol=1e-12)


@pytest.mark.parametrize("method", ["plane", "procrustes", "direct"])
@pytest.mark.parametrize("seed", range(3))
def test_fits_move_neutral_points_to_the_positive_class(method: Any, seed: int) -> None:
    subspace = fit_subspace(planted(seed=seed), 0, k=3)
    operator = Unitary.fit(subspace, method=method, angle=60.0)
    for sign in (1.0, -1.0):
        after = reference.affine_apply(operator.fold(sign), subspace.mean[None])[0]
        moved = sign * float((after - subspace.mean) @ subspace.direction)
        # At least a tenth of the way to the class mean, and not beyond it.
        assert 0.1 * subspace.half_separation < moved < 1.1 * subspace.half_separation


@pytest.mark.parametrize("seed", range(3))
def test_born_reaches_the_highest_fidelity(seed: int) -> None:
    subspace = fit_subspace(planted(seed=seed), 0, k=3)
    amplitude = subspace.half_separation
    source, target = (lift(x, amplitude) for x in (subspace.negative, subspace.positive))

    def fidelity(method: Any) -> float:
        matrix = Unitary.fit(subspace, method=method).matrix
        return float((np.abs((target.conj() * (source @ matrix.T)).sum(axis=1)) ** 2).mean())

    others = {method: fidelity(method) for method in FITS if method != "born"}
    identity = float((np.abs((target.conj() * source).sum(axis=1)) ** 2).mean())
    assert fidelity("born") >= max(*others.values(), identity) - 1e-9


def test_direct_rotation_carries_one_leading_state_to_the_other(subspace: Subspace) -> None:
    matrix = Unitary.fit(subspace, method="direct").matrix
    leading = [
        np.linalg.eigh(states.T @ states.conj())[1][:, -1]
        for states in (
            lift(x, subspace.half_separation) for x in (subspace.negative, subspace.positive)
        )
    ]
    assert abs(np.vdot(leading[1], matrix @ leading[0])) == pytest.approx(1.0, abs=1e-12)


def test_direct_rotation_is_katos_below_a_right_angle(subspace: Subspace) -> None:
    projectors = []
    for coordinates in (subspace.negative, subspace.positive):
        states = lift(coordinates, 3 * subspace.half_separation)
        leading = np.linalg.eigh(states.T @ states.conj())[1][:, -1]
        projectors.append(np.outer(leading, leading.conj()))
    start, end = projectors
    kato = polar(end @ start + (np.eye(4) - end) @ (np.eye(4) - start))
    matrix = Unitary.fit(subspace, method="direct", gain=3.0).matrix
    # The two differ by the phase of a nearly real overlap.
    np.testing.assert_allclose(matrix, kato, atol=2e-2)


def test_pull_draws_procrustes_to_the_identity(subspace: Subspace) -> None:
    distances = [
        np.linalg.norm(Unitary.fit(subspace, method="procrustes", pull=pull).matrix - np.eye(4))
        for pull in (0.0, 0.2, 1.0, 1e6)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-5


def test_fit_operator(subspace: Subspace) -> None:
    assert isinstance(fit_operator(subspace), Unitary)
    assert isinstance(fit_operator(subspace, "ablation", centre=False), Ablation)
    additive = fit_operator(subspace, "additive")
    assert isinstance(additive, Additive)
    np.testing.assert_array_equal(additive.vector, subspace.steering_vector)
    with pytest.raises(ValueError, match=r"^\[fit\] expected an operator among .*'sideways'$"):
        fit_operator(subspace, "sideways")
    with pytest.raises(ValueError, match=r"^\[unitary\] expected a fit among .*'magic'$"):
        fit_operator(subspace, method="magic")


# ---- controls ----


@pytest.mark.parametrize("seed", range(4))
def test_a_control_in_the_subspace_keeps_the_angles(seed: int) -> None:
    operator = Unitary.example(D_MODEL, 3)
    control = operator.randomised(seed, "subspace")
    angles = [np.sort(np.angle(np.linalg.eigvals(m))) for m in (operator.matrix, control.matrix)]
    np.testing.assert_allclose(angles[0], angles[1], atol=1e-12)
    np.testing.assert_array_equal(control.basis, operator.basis)
    assert np.abs(control.matrix - operator.matrix).max() > 0.05
    assert (control.amplitude, control.restore) == (operator.amplitude, operator.restore)


def test_a_control_in_a_random_space_keeps_the_unitary() -> None:
    operator = Unitary.example(D_MODEL, 3)
    controls = [operator.randomised(seed, "space") for seed in range(3)]
    for control in controls:
        np.testing.assert_array_equal(control.matrix, operator.matrix)
        span = control.span()
        np.testing.assert_allclose(span.T @ span, np.eye(6), atol=1e-12)
    # Two random 6-dimensional spaces share 6 · 6 / 64 of a dimension on average.
    shared = np.linalg.norm(controls[0].span().T @ controls[1].span()) ** 2
    assert shared < 2.0


@pytest.mark.parametrize("kind", registered())
@pytest.mark.parametrize("space", ["subspace", "space"])
def test_controls_are_repeatable_and_as_large(kind: str, space: Any) -> None:
    operator = registered()[kind].example(D_MODEL, 0)
    controls = [operator.randomised(seed, space) for seed in (1, 1, 2, 3)]
    assert all(type(control) is type(operator) for control in controls)
    h = np.random.default_rng(0).standard_normal((400, D_MODEL))

    def change(member: Operator) -> Array:
        return reference.affine_apply(member.fold(1.0), h) - h

    changes = [change(control) for control in controls]
    np.testing.assert_array_equal(changes[0], changes[1])
    own = np.linalg.norm(change(operator), axis=1).mean()
    for one in changes:
        # Another part of the same rows is read, so the sizes agree on average, not exactly.
        assert np.linalg.norm(one, axis=1).mean() == pytest.approx(own, rel=0.35)
    if kind != "additive" or space == "space":  # a line holds only two vectors of one length
        assert np.abs(changes[0] - changes[2]).max() > 1e-3


def test_additive_controls_keep_their_length() -> None:
    operator = Additive.example(D_MODEL, 0)
    signs = {
        float(np.sign(operator.randomised(seed, "subspace").vector @ operator.vector))
        for seed in range(10)
    }
    assert signs == {1.0, -1.0}
    for space in ("subspace", "space"):
        control = operator.randomised(5, space)  # type: ignore[arg-type]
        assert np.linalg.norm(control.vector) == pytest.approx(np.linalg.norm(operator.vector))


def test_random_frames_are_uniform() -> None:
    """The mean of Q Qᵀ over frames is the identity times m / d."""
    frames = [random_basis(4, 2, seed) for seed in range(2000)]
    mean = np.mean([q @ q.T for q in frames], axis=0)
    # Entries have a standard deviation of at most 1/2, so 0.011 over 2000 draws.
    np.testing.assert_allclose(mean, np.eye(4) / 2, atol=0.05)
