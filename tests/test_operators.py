"""Operators against their formulas written out in float64, and what cannot be an operator."""

from __future__ import annotations

import dataclasses
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
    AffineEdit,
    Commitment,
    Diagonal,
    Householder,
    LowRank,
    Operator,
    Random,
    Rotation,
    Unitary,
    fit_operator,
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


@pytest.mark.parametrize("strength", STRENGTHS)
def test_affine_edit(h: Array, strength: float) -> None:
    operator = AffineEdit.example(D_MODEL, 3)
    r, baseline = operator.vector, operator.baseline

    def project(x: Array) -> Array:
        return np.outer(x @ r, r) / (r @ r)

    edited = h - project(h) + project(baseline[None]) + 1.5 * r
    check(operator, strength, h + strength * (edited - h), h)


def test_affine_edit_sets_the_level(subspace: Subspace) -> None:
    """Target 0 is the negative class's mean component, 1 the positive one's, for every token."""
    h = 5.0 * rows(9, subspace.mean.size).astype(np.float64)
    u, half = subspace.direction, subspace.half_separation
    for target in (0.0, 0.5, 1.0):
        operator = AffineEdit.fit(subspace, target=target)
        after = reference.affine_apply(operator.fold(1.0), h) - subspace.mean
        np.testing.assert_allclose(after @ u, (2 * target - 1) * half, atol=1e-5)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_householder(h: Array, strength: float) -> None:
    operator = Householder.example(D_MODEL, 3)
    expected = h.copy()
    for direction in operator.directions.T:
        expected -= 2 * strength * ((h - operator.mean) @ direction)[:, None] * direction
    check(operator, strength, expected, h)


def test_a_reflection_exchanges_the_classes(subspace: Subspace) -> None:
    """H is orthogonal about the mean, its own inverse, and sends one class mean to the other."""
    fold = Householder.fit(subspace).fold(1.0)
    means = subspace.mean + np.outer([1, -1], subspace.steering_vector)
    np.testing.assert_allclose(reference.affine_apply(fold, means), means[::-1], atol=1e-5)
    h = rows(9, subspace.mean.size).astype(np.float64)
    once = reference.affine_apply(fold, h)
    np.testing.assert_allclose(reference.affine_apply(fold, once), h, atol=1e-5)
    lengths = [np.linalg.norm(x - subspace.mean, axis=1) for x in (h, once)]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-6)


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_rotation(h: Array, strength: float, restore: bool) -> None:
    drawn = Rotation.example(D_MODEL, 2)
    operator = Rotation(drawn.plane, drawn.angle, drawn.mean, restore)
    first, second = operator.plane.T
    turned = math.radians(50.0) * strength
    x, y = ((h - operator.mean) @ v for v in (first, second))
    expected = h + np.outer(math.cos(turned) * x - math.sin(turned) * y - x, first)
    expected += np.outer(math.sin(turned) * x + math.cos(turned) * y - y, second)
    if restore:
        expected *= (np.linalg.norm(h, axis=1) / np.linalg.norm(expected, axis=1))[:, None]
    check(operator, strength, expected, h)


def test_rotation_fits(subspace: Subspace) -> None:
    """About zero norms stay, and neutral tokens move toward u; about the mean they stay."""
    h = rows(9, subspace.mean.size).astype(np.float64)
    after = reference.affine_apply(Rotation.fit(subspace, angle=40.0).fold(1.0), h)
    np.testing.assert_allclose(
        np.linalg.norm(after, axis=1), np.linalg.norm(h, axis=1), rtol=FLOAT32
    )
    neutral = subspace.mean[None]
    moved = {
        plane: reference.affine_apply(fit_operator(subspace, "rotation", plane=plane).fold(1.0), x)
        for plane, x in (("mean", neutral), ("component", neutral))
    }
    assert (moved["mean"] - neutral)[0] @ subspace.direction > 1.0
    np.testing.assert_allclose(moved["component"], neutral, atol=1e-5)
    with pytest.raises(ValueError, match="expected a plane among mean, component, got 'other'"):
        fit_operator(subspace, "rotation", plane="other")
    flat = dataclasses.replace(subspace, mean=2.0 * subspace.direction)
    with pytest.raises(ValueError, match="use plane='component'"):
        Rotation.fit(flat)


@pytest.mark.parametrize("restore", [False, True])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_diagonal(h: Array, strength: float, restore: bool) -> None:
    drawn = Diagonal.example(D_MODEL, 3)
    operator = Diagonal(drawn.mean, drawn.basis, drawn.phases, restore)
    x = (h - operator.mean) @ operator.basis
    z = (x[:, 0::2] + 1j * x[:, 1::2]) * np.exp(1j * strength * operator.phases)
    moved = np.stack([z.real, z.imag], axis=2).reshape(len(h), -1)
    expected = h + (moved - x) @ operator.basis.T
    if restore:
        expected *= (np.linalg.norm(h, axis=1) / np.linalg.norm(expected, axis=1))[:, None]
    check(operator, strength, expected, h)


def test_diagonal_fit_is_the_best_phase(subspace: Subspace) -> None:
    """No other phases bring the negative states closer to their positive partners."""
    operator = Diagonal.fit(subspace)
    positive, negative = (
        x[:, 0::2] + 1j * x[:, 1::2] for x in (subspace.positive, subspace.negative)
    )

    def distance(phases: Array) -> float:
        return float(np.linalg.norm(negative * np.exp(1j * phases) - positive))

    for step in np.random.default_rng(0).uniform(-3, 3, (20, operator.phases.size)):
        assert distance(operator.phases) <= distance(operator.phases + step)
    assert abs(operator.phases[0]) > 3.0  # the classes lie opposite each other: about π


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
        "affine edit widths": lambda: AffineEdit(np.ones(8), np.ones(7)),
        "affine edit target": lambda: AffineEdit(np.ones(8), np.ones(8), math.nan),
        "householder skew": lambda: Householder(np.ones((8, 2)), np.zeros(8)),
        "householder widths": lambda: Householder(basis, np.zeros(7)),
        "rotation columns": lambda: Rotation(basis, 10.0, np.zeros(8)),
        "rotation widths": lambda: Rotation(basis[:, :2], 10.0, np.zeros(7)),
        "rotation angle": lambda: Rotation(basis[:, :2], math.inf, np.zeros(8)),
        "diagonal phases": lambda: Diagonal(np.zeros(8), basis, np.zeros(3)),
        "diagonal NaN": lambda: Diagonal(np.zeros(8), basis, np.full(2, math.nan)),
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
