"""Inverse, real powers and composition, as laws over every registered operator."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _models import D_MODEL, IDENTITY, planted, rows
from cogit import kernels, reference
from cogit.intervention import Intervention
from cogit.operators import (
    Ablation,
    Additive,
    AffineEdit,
    Composed,
    Dense,
    Diagonal,
    Householder,
    Lifted,
    LowRank,
    Operator,
    Rotation,
    Unitary,
    algebra,
    registered,
)
from cogit.operators.algebra import Factors
from cogit.operators.inverse import MAX_CONDITION, Inverse
from cogit.subspace import Subspace, fit_subspace

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

KINDS = list(registered())
# Folds are float32, and a product of two of them doubles the rounding.
FOLDED = 64 * float(np.finfo(np.float32).eps)
# Strengths at which each kind's example has an inverse: an ablation at 1 has none.
INVERTIBLE = (-1.0, -0.4, 0.3, 0.7)
ANGLES = (15.0, 30.0, 45.0, 60.0, 75.0)


def bare(operator: Operator, strength: float, h: Array) -> Array:
    """The operator before any norm restore, in float64."""
    return reference.affine_apply(replace(operator.fold(strength), restore=False), h)


def relative(got: Array, expected: Array) -> float:
    """The largest error of a row, relative to the row."""
    error = np.linalg.norm(np.asarray(got, np.float64) - expected, axis=-1)
    return float((error / np.linalg.norm(expected, axis=-1)).max())


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    return fit_subspace(planted(separation=1.0), 0, k=3)


# ---- inverse ----


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
    """N7, acceptance 3: 1e-5 per token, steered by the compiled kernel in float32."""
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
    """N7, acceptance 3: at 90°, at 60° with strength 1.5, and a full ablation or edit."""
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
    assert algebra.condition(factors) == pytest.approx(np.linalg.cond(full), rel=1e-8)
    assert algebra.condition(factors) < MAX_CONDITION


# ---- strength: what the dial is ----


@pytest.mark.parametrize("kind", KINDS)
def test_a_dial_does_what_its_kind_says(kind: str) -> None:
    """N7: strengths add on the residual stream, or on the lifted state, or scale the change."""
    operator = registered()[kind].example(D_MODEL, 0)
    h = rows(9, D_MODEL).astype(np.float64)
    if operator.dial == "geodesic":
        for a, b in ((0.3, 0.5), (1.2, -0.7), (0.8, -0.8)):
            twice = bare(operator, a, bare(operator, b, h))
            assert relative(twice, bare(operator, a + b, h)) < FOLDED
    elif operator.dial == "lifted":
        assert isinstance(operator, Lifted)
    elif operator.dial == "linear":
        for a in (-0.7, 0.4, 2.0):
            change, whole = bare(operator, a, h) - h, bare(operator, 1.0, h) - h
            np.testing.assert_allclose(change, a * whole, atol=FOLDED * 50)
    else:
        assert kind == "composed"


def lifted() -> list[Any]:
    return [kind for kind in KINDS if isinstance(registered()[kind].example(8, 0), Lifted)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", lifted())
def test_powers_are_unitary_for_every_real_strength(kind: str, seed: int) -> None:
    """N7: U^λ is unitary, U^0 is the identity bit for bit, U^-λ the inverse on the lifted state."""
    operator: Any = registered()[kind].example(16, seed)
    states = operator.states(rows(5, 16, seed))
    np.testing.assert_allclose(np.linalg.norm(states, axis=1), 1.0, atol=1e-12)
    eye = np.eye(states.shape[1])
    np.testing.assert_array_equal(operator.unitary(0.0), eye)
    rng = np.random.default_rng(seed)
    for strength in rng.uniform(-5, 5, 6):
        turned = operator.unitary(strength)
        # 1e-11: a Schur form of up to 20 x 20 in float64.
        np.testing.assert_allclose(turned.conj().T @ turned, eye, atol=1e-11)
        back = (states @ turned.T) @ operator.unitary(-strength).T
        np.testing.assert_allclose(back, states, atol=1e-11)
        half = operator.unitary(strength / 2)
        np.testing.assert_allclose(half @ half, turned, atol=1e-11)


def test_lifted_states_are_the_fold(subspace: Subspace) -> None:
    """What `states` and `unitary` say is what the fold does: the signal rows of Uψ, read back."""
    operator = Unitary.fit(subspace, angle=40.0, gain=1.3)
    h = rows(9, subspace.mean.size).astype(np.float64)
    x = (h - operator.mean) @ operator.basis
    length = np.sqrt(operator.amplitude**2 + (x**2).sum(axis=1))
    turned = length[:, None] * (operator.states(h) @ operator.unitary(0.7).T)[:, 1:]
    after = (reference.affine_apply(operator.fold(0.7), h) - operator.mean) @ operator.basis
    np.testing.assert_allclose(after[:, 0::2] + 1j * after[:, 1::2], turned, atol=1e-5)


# ---- powers ----


@pytest.mark.parametrize("exponent", [-1.3, -1.0, 0.0, 0.4, 1.0, 2.0, 3.7])
@pytest.mark.parametrize(
    "kind", [k for k in KINDS if registered()[k].dial in ("geodesic", "lifted")]
)
def test_power_is_the_fold_at_that_strength(kind: str, exponent: float) -> None:
    """N7: power(t) at strength 1 is the operator at strength t."""
    operator = registered()[kind].example(D_MODEL, 1)
    h = rows(9, D_MODEL).astype(np.float64)
    taken = operator.power(exponent)
    expected = reference.affine_apply(operator.fold(exponent), h)
    assert relative(reference.affine_apply(taken.fold(1.0), h), expected) < FOLDED


@pytest.mark.parametrize("seed", range(3))
def test_powers_of_a_general_affine_map_form_a_group(seed: int) -> None:
    """T^s T^t = T^(s+t), T^1 = T, T^-1 the inverse, in float64; constants included."""
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((2, 3, 16)) / 8
    T = Factors(A, rng.standard_normal(3), B, rng.standard_normal(16))
    h = rng.standard_normal((7, 16))

    def apply(factors: Factors, x: Array) -> Array:
        return factors.linear(x) + factors.constant

    np.testing.assert_allclose(apply(algebra.power(T, 1.0), h), apply(T, h), atol=1e-12)
    np.testing.assert_allclose(apply(algebra.power(T, 0.0), h), h, atol=1e-12)
    undone = apply(algebra.power(T, -1.0), apply(T, h))
    np.testing.assert_allclose(undone, h, atol=1e-11)
    np.testing.assert_allclose(apply(algebra.inverse(T), apply(T, h)), h, atol=1e-12)
    for s, t in ((0.5, 0.5), (0.3, 1.9), (-0.6, 1.1), (2.0, -0.25)):
        both = apply(algebra.power(T, s), apply(algebra.power(T, t), h))
        np.testing.assert_allclose(both, apply(algebra.power(T, s + t), h), atol=1e-10)


def test_powers_of_kinds_that_are_no_group(subspace: Subspace) -> None:
    """N7: a projection's powers are itself, a reflection has whole ones; the rest is refused."""
    for operator in (Ablation.fit(subspace), AffineEdit.fit(subspace)):
        h = rows(5, subspace.mean.size).astype(np.float64)
        once = reference.affine_apply(operator.fold(1.0), h)
        assert relative(reference.affine_apply(operator.fold(1.0), once), once) < FOLDED
        assert operator.power(0.3) is operator
        assert operator.power(0.0).fold(1.0).is_zero()
        with pytest.raises(ValueError, match="a projection has no inverse"):
            operator.power(-1.0)
    mirror = Householder.fit(subspace)
    assert mirror.power(-3.0) is mirror
    assert mirror.power(2.0).fold(1.0).is_zero()
    with pytest.raises(ValueError, match="expected a whole exponent of a reflection"):
        mirror.power(0.5)
    flip = LowRank(np.eye(4)[:1], np.zeros(1), -2 * np.eye(4)[:1], np.zeros(4))
    assert np.allclose(flip.power(2.0).fold(1.0).B, 0.0)
    with pytest.raises(ValueError, match="eigenvalues on the negative axis"):
        flip.power(0.5)
    wipe = LowRank(np.eye(4)[:1], np.zeros(1), -np.eye(4)[:1], np.zeros(4))
    with pytest.raises(ValueError, match="expected an invertible map"):
        wipe.power(-1.0)
    with pytest.raises(ValueError, match="without a norm restore"):
        Composed((Additive.example(4, 0),), restore=True).power(0.5)
    for kind in KINDS:
        with pytest.raises(ValueError, match="expected a finite exponent"):
            registered()[kind].example(4, 0).power(math.nan)


# ---- composition ----


@pytest.mark.parametrize("strength", [-1.0, 0.37, 1.0])
@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", KINDS)
def test_composition_is_one_after_the_other(inner: str, outer: str, strength: float) -> None:
    """N7, acceptance 3: a @ b equals b, then a, to 1e-5 in float32; else it is refused by name."""
    b, a = registered()[inner].example(D_MODEL, 1), registered()[outer].example(D_MODEL, 2)
    folds = [b.fold(strength), a.fold(strength)]
    restores = [fold.restore for fold in folds]
    exact = not any(restores) or (all(restores) and not folds[1].c.any() and outer == "dense")
    if not exact:
        with pytest.raises(ValueError, match=r"^\[composed\] expected operators without a norm"):
            a @ b
        return
    both = a @ b
    fold = both.fold(strength)
    assert fold.rank == sum(part.rank for part in folds)
    h = rows(9, D_MODEL, 5)
    once = kernels.affine_apply_numpy(folds[0], h)
    twice = kernels.affine_apply_numpy(folds[1], once)
    got = kernels.affine_apply_numpy(fold, h)
    assert relative(got, twice.astype(np.float64)) <= 1e-5
    exact_twice = reference.affine_apply(folds[1], reference.affine_apply(folds[0], h))
    assert relative(reference.affine_apply(fold, h), exact_twice) <= 1e-5


def test_composition_keeps_order_factors_and_nests(tmp_path: Path) -> None:
    a, b, c = (
        Ablation.example(D_MODEL, 1),
        LowRank.example(D_MODEL, 2),
        Additive.example(D_MODEL, 3),
    )
    h = rows(9, D_MODEL).astype(np.float64)
    nested, flat = (a @ b) @ c, Composed((c, b, a))
    assert isinstance(nested, Composed)
    assert nested.parts == flat.parts
    twisted = reference.affine_apply((b @ a).fold(1.0), h)
    assert relative(twisted, reference.affine_apply((a @ b).fold(1.0), h)) > 1e-2
    scaled = Composed((b, a), (0.4, -1.5))
    expected = bare(a, -1.5 * 0.8, bare(b, 0.4 * 0.8, h))
    assert relative(reference.affine_apply(scaled.fold(0.8), h), expected) < FOLDED
    outer = Composed((scaled, c), (2.0, 1.0))
    assert outer.strengths == (0.8, -3.0, 1.0)
    saved = Intervention({1: outer}, IDENTITY)
    loaded = Intervention.load(saved.save(tmp_path / "i.safetensors"))
    assert loaded.content_hash == saved.content_hash
    np.testing.assert_array_equal(loaded.folds()[1].A, saved.folds()[1].A)


def test_one_restore_after_all_parts() -> None:
    parts = (LowRank.example(D_MODEL, 2), Additive.example(D_MODEL, 3))
    both = Composed(parts, restore=True)
    h = rows(9, D_MODEL).astype(np.float64)
    after = reference.affine_apply(both.fold(0.7), h)
    moved = bare(parts[1], 0.7, bare(parts[0], 0.7, h))
    scale = np.linalg.norm(h, axis=1) / np.linalg.norm(moved, axis=1)
    assert relative(after, moved * scale[:, None]) < FOLDED
    inverse = both.inverse(0.7)
    known = inverse.determined(after)
    assert relative(inverse.apply(after[known]), h[known]) < 1e-9


def test_the_inverse_of_a_composition_is_that_of_its_parts_in_reverse() -> None:
    a, b = Diagonal.example(D_MODEL, 1), LowRank.example(D_MODEL, 2)
    h = rows(9, D_MODEL).astype(np.float64)
    there = reference.affine_apply((a @ b).fold(0.5), h)
    apart = b.inverse(0.5).apply(a.inverse(0.5).apply(there))
    assert relative(apart, h) < FOLDED
    assert relative((a @ b).inverse(0.5).apply(there), h) < 1e-11
    undo = Composed((Composed((b, a), (0.5, 0.5)), (a @ b).inverse_operator(0.5)))
    assert relative(reference.affine_apply(undo.fold(1.0), h), h) < FOLDED


def test_generators_add_where_unitaries_commute(subspace: Subspace) -> None:
    """N7: the product on one lifted state; angles of one plane add, other planes do not commute."""
    first, second = (Unitary.fit(subspace, angle=angle) for angle in (35.0, 40.0))
    product = second.lifted_product(first)
    whole = Unitary.fit(subspace, angle=75.0)
    for strength in (-1.0, 0.3, 1.0, 1.7):
        both = second.unitary(strength) @ first.unitary(strength)
        np.testing.assert_allclose(product.unitary(strength), both, atol=1e-12)
        np.testing.assert_allclose(product.unitary(strength), whole.unitary(strength), atol=1e-12)
    other = replace(first, matrix=first.randomised(0, "subspace").matrix)
    mixed = other.lifted_product(second)
    np.testing.assert_allclose(mixed.matrix, other.matrix @ second.matrix, atol=1e-12)
    apart = other.unitary(0.5) @ second.unitary(0.5)
    assert np.abs(mixed.unitary(0.5) - apart).max() > 1e-3
    assert np.abs(mixed.matrix - second.lifted_product(other).matrix).max() > 1e-3
    # Reading back in between sets the reference anew: another map on the residual stream.
    h = rows(9, subspace.mean.size).astype(np.float64)
    through = reference.affine_apply((second @ first).fold(1.0), h)
    assert relative(through, reference.affine_apply(product.fold(1.0), h)) > 1e-3
    with pytest.raises(ValueError, match="expected unitaries on one lifted state"):
        second.lifted_product(replace(first, amplitude=9.0))


def bad_compositions() -> dict[str, Any]:
    one = Additive.example(8, 0)
    saved = Composed((one, one))
    tensors, parameters = saved.tensors(), saved.parameters()
    inside = {"kind": "composed", "tensors": [], "parameters": {}}
    return {
        "none": lambda: Composed(()),
        "widths": lambda: Composed((one, Additive.example(9, 0))),
        "strengths": lambda: Composed((one,), (1.0, 2.0)),
        "infinite": lambda: Composed((one,), (math.inf,)),
        "many": lambda: Composed((one,) * 65),
        "nested many": lambda: Composed((Composed((one,) * 40), Composed((one,) * 40))),
        "nested file": lambda: Composed.from_parts(tensors, {**parameters, "parts": [inside]}),
        "long file": lambda: Composed.from_parts(tensors, {**parameters, "parts": [inside] * 65}),
    }


@pytest.mark.parametrize("case", bad_compositions())
def test_refused_compositions(case: str) -> None:
    with pytest.raises(ValueError, match=r"expected|parts"):
        bad_compositions()[case]()


def test_only_operators_compose() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        Additive.example(8, 0) @ 3  # type: ignore[operator]
