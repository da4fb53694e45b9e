"""Operators against their formulas written out in float64, and what cannot be an operator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from _models import D_MODEL, planted, rows
from cogit import reference
from cogit.operators import (
    Ablation,
    Additive,
    Commitment,
    LowRank,
    Operator,
    Random,
    Unitary,
    portable_random,
)
from cogit.operators.base import random_basis, register
from cogit.subspace import Subspace, fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STRENGTHS = (-2.0, -1.0, -0.3, 0.0, 0.37, 1.0, 1.7)
# Folds are float32: each of the few products behind a number is off by half an ulp or less.
FLOAT32 = 16 * float(np.finfo(np.float32).eps)


def check(operator: Operator, strength: float, expected: Array, h: Array) -> None:
    got = reference.affine_apply(operator.fold(strength), h)
    np.testing.assert_allclose(
        got, expected, rtol=0, atol=FLOAT32 * np.linalg.norm(h, axis=1).max()
    )


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    return fit_subspace(planted(), 0, k=3)


@pytest.fixture
def h() -> Array:
    return rows(9, D_MODEL, seed=5).astype(np.float64)


# ---- formulas ----


@pytest.mark.parametrize("strength", STRENGTHS)
def test_additive(h: Array, strength: float) -> None:
    operator = Additive.example(D_MODEL, 3)
    check(operator, strength, h + strength * operator.vector, h)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_ablation(h: Array, strength: float) -> None:
    operator = Ablation.example(D_MODEL, 3)
    first, second = operator.directions.T
    expected = h.copy()
    for direction in (first, second):
        expected -= strength * ((h - operator.mean) @ direction)[:, None] * direction
    check(operator, strength, expected, h)


def test_full_ablation_leaves_the_mean_component(subspace: Subspace) -> None:
    h = rows(4, subspace.mean.size).astype(np.float64)
    for centre in (True, False):
        after = reference.affine_apply(Ablation.fit(subspace, centre=centre).fold(1.0), h)
        level = float(subspace.mean @ subspace.direction) if centre else 0.0
        np.testing.assert_allclose(after @ subspace.direction, level, atol=1e-5)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_lowrank(h: Array, strength: float) -> None:
    operator = LowRank.example(D_MODEL, 3)
    inner = np.stack([h @ row + a for row, a in zip(operator.down, operator.offset, strict=True)])
    change = sum(z[:, None] * row for z, row in zip(inner, operator.up, strict=True))
    check(operator, strength, h + strength * (change + operator.shift), h)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_random(h: Array, strength: float) -> None:
    operator = Random(D_MODEL, 2.5, 11)
    change = reference.affine_apply(operator.fold(strength), h) - h
    np.testing.assert_allclose(np.linalg.norm(change, axis=1), abs(strength) * 2.5, atol=1e-5)
    np.testing.assert_allclose(change, np.broadcast_to(change[0], change.shape), atol=1e-6)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_commitment(h: Array, strength: float) -> None:
    operator = Commitment.draw(D_MODEL, k=16, seed=4)
    z = portable_random.normal(4, 1, 16) / 4.0
    limit = math.sqrt(6.0 / (D_MODEL + 16))
    projection = limit * (2 * portable_random.uniform(4, 2, D_MODEL * 16) - 1)
    vector = [float(np.dot(row, z)) for row in projection.reshape(D_MODEL, 16)]
    check(operator, strength, h + strength * np.array(vector), h)


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_unitary(h: Array, strength: float, restore: bool) -> None:
    """The lifted state written out as complex numbers, the power by SciPy's own function."""
    drawn = Unitary.example(D_MODEL, 3)
    operator = Unitary(drawn.mean, drawn.basis, drawn.matrix, 1.5, restore)
    turned = fractional_matrix_power(operator.matrix, strength)
    expected = h.copy()
    for row in expected:
        x = operator.basis.T @ (row - operator.mean)
        psi = np.array([1.5, *(x[0::2] + 1j * x[1::2])])
        z = (turned @ psi)[1:]
        moved = np.stack([z.real, z.imag], axis=1).reshape(-1)
        norm = np.linalg.norm(row)
        row += operator.basis @ (moved - x)
        if restore:
            row *= norm / np.linalg.norm(row)
    check(operator, strength, expected, h)


@pytest.mark.parametrize("angle", [15.0, 60.0, 90.0])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_plane_rotation(subspace: Subspace, strength: float, angle: float) -> None:
    """h + u [(cos λθ - 1) u·(h - μ) + sin(λθ) c], and its complex partner turned by cos λθ alone.

    The partner is the second basis vector: i·u is orthogonal to u, and a complex rotation scales
    both parts of a coordinate. Without a component along it the formula is that of one direction.
    """
    operator = Unitary.fit(subspace, method="plane", angle=angle, gain=1.3)
    u, partner = subspace.basis[:, 0], subspace.basis[:, 1]
    turned, c = math.radians(angle) * strength, 1.3 * subspace.half_separation
    h = 2 * rows(9, u.size).astype(np.float64)
    x = h - subspace.mean
    along = (math.cos(turned) - 1) * (x @ u) + math.sin(turned) * c
    expected = h + along[:, None] * u
    flat = h - np.outer(x @ partner, partner)
    check(operator, strength, flat + along[:, None] * u, flat)
    expected += ((math.cos(turned) - 1) * (x @ partner))[:, None] * partner
    check(operator, strength, expected, h)
    assert operator.fold(strength).rank == 2


def test_a_small_plane_rotation_is_the_additive_vector(subspace: Subspace) -> None:
    angle = 1e-3
    operator = Unitary.fit(subspace, angle=angle, gain=1 / math.radians(angle))
    h = rows(5, subspace.mean.size).astype(np.float64)
    change = reference.affine_apply(operator.fold(1.0), h) - h
    np.testing.assert_allclose(
        change, np.broadcast_to(subspace.steering_vector, h.shape), atol=1e-5
    )


def test_a_right_angle_clamps(subspace: Subspace) -> None:
    """Every token's component along u becomes the reference amplitude."""
    operator = Unitary.fit(subspace, angle=90.0)
    h = rows(5, subspace.mean.size).astype(np.float64)
    after = reference.affine_apply(operator.fold(1.0), h) - subspace.mean
    np.testing.assert_allclose(after @ subspace.direction, subspace.half_separation, atol=1e-5)


# ---- what cannot be an operator ----


def bad_operators() -> dict[str, Any]:
    eye, basis, nan = np.eye(4), random_basis(8, 4, 0), np.full(8, np.nan)
    three = np.eye(3, dtype=np.complex128)
    return {
        "additive matrix": lambda: Additive(eye),
        "additive empty": lambda: Additive(np.zeros(0)),
        "additive NaN": lambda: Additive(nan),
        "ablation skew": lambda: Ablation(np.ones((8, 2)), np.zeros(8)),
        "ablation widths": lambda: Ablation(basis, np.zeros(7)),
        "ablation wide": lambda: Ablation(np.ones((2, 8)), np.zeros(2)),
        "ablation NaN": lambda: Ablation(np.full((8, 1), np.nan), np.zeros(8)),
        "lowrank shapes": lambda: LowRank(eye, np.zeros(3), eye, np.zeros(4)),
        "lowrank scalar": lambda: LowRank(
            np.ones((1, 4)), np.float64(1.0), np.ones((1, 4)), np.ones(4)
        ),
        "random width": lambda: Random(0, 1.0, 0),
        "random length": lambda: Random(8, -1.0, 0),
        "random NaN": lambda: Random(8, math.nan, 0),
        "commitment k": lambda: Commitment.draw(8, k=0),
        "commitment large k": lambda: Commitment(np.zeros(8), 4097, 0),
        "unitary odd": lambda: Unitary(np.zeros(8), basis[:, :3], three, 1.0),
        "unitary size": lambda: Unitary(np.zeros(8), basis, np.eye(2, dtype=complex), 1.0),
        "unitary scaled": lambda: Unitary(np.zeros(8), basis, 1.001 * three, 1.0),
        "unitary NaN": lambda: Unitary(np.zeros(8), basis, np.nan * three, 1.0),
        "unitary amplitude": lambda: Unitary(np.zeros(8), basis, three, math.inf),
        "unitary mean": lambda: Unitary(np.zeros(9), basis, three, 1.0),
    }


@pytest.mark.parametrize("case", bad_operators())
def test_refused(case: str) -> None:
    with pytest.raises(ValueError, match=r"^\[\w+\] expected [^\n]+, got [^\n]+$"):
        bad_operators()[case]()


def test_a_strength_beyond_float32_is_refused() -> None:
    with (
        np.errstate(over="ignore"),
        pytest.raises(ValueError, match=r"^\[Affine\] expected finite values in c"),
    ):
        Additive(np.ones(4)).fold(1e300)


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(ValueError, match="expected a new kind, got 'additive' twice"):
        register(Additive)
