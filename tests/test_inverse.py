"""The exact inverse on the residual stream, as a law over every registered operator."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from _models import D_MODEL, planted, rows
from _operators import ANGLES, FOLDED, INVERTIBLE, KINDS, relative
from cogit import kernels, reference
from cogit.operators import (
    Ablation,
    Additive,
    AffineEdit,
    Dense,
    Householder,
    Rotation,
    Unitary,
    algebra,
    registered,
)
from cogit.operators.algebra import Factors
from cogit.operators.inverse import MAX_CONDITION, Inverse
from cogit.subspace import Subspace, fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    return fit_subspace(planted(separation=1.0), 0, k=3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strength", INVERTIBLE)
@pytest.mark.parametrize("kind", KINDS)
def test_inverse_undoes_every_operator(kind: str, strength: float, seed: int) -> None:
    """N7: per token in float64, to the rounding of the fold's own condition."""
    operator = registered()[kind].example(D_MODEL, seed)
    h = 4.0 * rows(9, D_MODEL, seed).astype(np.float64)
    inverse = operator.inverse(strength)
    there = reference.affine_apply(operator.fold(strength), h)
    known = inverse.determined(there)
    assert known.any()
    # float64 rounding (2e-16) times condition, of which the examples reach a few hundred.
    assert relative(inverse.apply(there[known]), h[known]) < 1e-11


@pytest.mark.parametrize("strength", INVERTIBLE)
@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_is_an_operator_unless_norms_are_restored(kind: str, strength: float) -> None:
    """N7: the inverse folds, so that a model can hold it."""
    operator = registered()[kind].example(D_MODEL, 1)
    if operator.fold(1.0).restore:
        with pytest.raises(ValueError, match="expected an operator without a norm restore"):
            operator.inverse_operator(strength)
        return
    h = rows(9, D_MODEL).astype(np.float64)
    back = operator.inverse_operator(strength)
    assert back.fold(1.0).rank == operator.fold(strength).rank
    there = reference.affine_apply(operator.fold(strength), h)
    # The inverse is rounded to float32 here, and multiplies that rounding by its condition.
    bound = FOLDED * operator.inverse(strength).condition
    assert relative(reference.affine_apply(back.fold(1.0), there), h) < bound


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_round_trip_in_float32_up_to_75_degrees(
    subspace: Subspace, angle: float, restore: bool, direction: float
) -> None:
    """N7: 1e-5 per token, steered by the compiled kernel in float32."""
    operator = Unitary.fit(subspace, angle=angle, restore=restore)
    h = rows(200, subspace.mean.size, 3) * np.float32(3)
    there = kernels.affine_apply_numpy(operator.fold(direction), h)
    inverse = operator.inverse(direction)
    assert inverse.condition == pytest.approx(1 / math.cos(math.radians(angle)), rel=1e-4)
    assert inverse.determined(there).all()
    back = inverse.apply(there)
    assert back.dtype == np.float32
    assert relative(back, h.astype(np.float64)) <= 1e-5
    if not restore:
        placed = operator.inverse_operator(direction).fold(1.0)
        assert relative(kernels.affine_apply_numpy(placed, there), h) <= 1e-5


@pytest.mark.parametrize("restore", [False, True])
def test_a_clamp_has_no_inverse(subspace: Subspace, restore: bool) -> None:
    """N7: at 90°, at 60° with strength 1.5, and a full ablation or edit."""
    clamp = Unitary.fit(subspace, angle=90.0, restore=restore)
    third = Unitary.fit(subspace, angle=60.0, restore=restore)
    for operator, strength in (
        (clamp, 1.0),
        (third, 1.5),
        (Ablation.fit(subspace), 1.0),
        (AffineEdit.fit(subspace), 1.0),
        (Householder.fit(subspace), 0.5),
    ):
        with pytest.raises(ValueError, match=r"^\[inverse\] expected a map with a condition"):
            operator.inverse(strength)
    clamp.inverse(0.9)


def test_a_real_rotation_inverts_at_any_angle(subspace: Subspace) -> None:
    for plane in ("mean", "component"):
        operator = Rotation.fit(subspace, angle=90.0, plane=plane)  # type: ignore[arg-type]
        assert operator.inverse(1.0).condition == pytest.approx(1.0, abs=1e-6)
        h = rows(9, subspace.mean.size)
        there = reference.affine_apply(operator.fold(1.0), h)
        assert relative(reference.affine_apply(operator.fold(-1.0), there), h) < FOLDED


def norm_restoring(length: float) -> Inverse:
    """An additive vector of a length with a norm restore: y = |h| (h + v) / |h + v|."""
    vector = np.zeros(4)
    vector[0] = length
    return Inverse(replace(Additive(vector).fold(1.0), restore=True), "a shift")


def test_the_scalar_of_a_restore_is_refused_where_two_states_share_an_image() -> None:
    """On rows longer than the shift one state is before each; on shorter ones two, or none."""
    inverse = norm_restoring(1.0)
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((400, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for length, expected in ((1.5, True), (0.5, False)):
        h = length * directions
        there = reference.affine_apply(inverse.forward, h)
        assert (inverse.determined(there) == expected).all()
        if expected:
            assert relative(inverse.apply(there), h) < 1e-12
        else:
            with pytest.raises(ValueError, match="400 of 400 whose norm is too small"):
                inverse.apply(there)


def test_two_states_really_share_an_image() -> None:
    """What the refusal is about: the ray of y meets the shifted sphere twice."""
    inverse = norm_restoring(1.0)
    shift = np.array([1.0, 0.0, 0.0, 0.0])
    near = 0.5 * np.array([math.cos(1.8), math.sin(1.8), 0.0, 0.0])
    image = reference.affine_apply(inverse.forward, near)
    unit = image / np.linalg.norm(image)
    # The other crossing of the ray with the sphere of radius 1/2 about the shift.
    other = (2 * unit @ shift - np.linalg.norm(near + shift)) * unit - shift
    assert np.linalg.norm(other) == pytest.approx(0.5)
    assert np.linalg.norm(other - near) > 0.2
    np.testing.assert_allclose(reference.affine_apply(inverse.forward, other), image, atol=1e-12)


def test_rows_of_zeros_and_other_shapes() -> None:
    dense = Dense.example(8, 0).inverse(1.0)
    assert not dense.apply(np.zeros((3, 8))).any()
    assert dense.determined(np.zeros((2, 3, 8))).shape == (2, 3)
    assert not norm_restoring(1.0).determined(np.zeros((1, 4))).any()
    assert Inverse(Additive(np.ones(4)).fold(2.0)).apply(np.ones(4)).tolist() == [-1.0] * 4
    with pytest.raises(ValueError, match="expected states of width 8"):
        dense.apply(np.zeros((3, 7)))
    assert dense.apply(np.empty((0, 8), np.float32)).shape == (0, 8)


@pytest.mark.parametrize("rank", [1, 3, 12, 30])
def test_condition_is_that_of_the_full_matrix(rank: int) -> None:
    rng = np.random.default_rng(rank)
    A, B = rng.standard_normal((2, rank, 24)) / 5
    factors = Factors(A, np.zeros(rank), B, np.zeros(24))
    full = np.eye(24) + A.T @ B
    sizes = np.linalg.svd(full, compute_uv=False)
    expected = max(1.0, sizes[0]) / sizes[-1]
    assert algebra.condition(factors) == pytest.approx(expected, rel=1e-8)
    assert algebra.condition(factors) < MAX_CONDITION
