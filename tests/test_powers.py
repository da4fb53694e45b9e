"""Strengths and real powers, as laws over every registered operator."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _models import D_MODEL, planted, rows
from _operators import FOLDED, KINDS, bare, relative
from cogit import reference
from cogit.operators import (
    Ablation,
    Additive,
    AffineEdit,
    Composed,
    Householder,
    Lifted,
    LowRank,
    Unitary,
    algebra,
    registered,
)
from cogit.operators.algebra import Factors
from cogit.subspace import Subspace, fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    return fit_subspace(planted(separation=1.0), 0, k=3)


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


# ---- negative powers and inverses where little or nothing is left ----

SMALL = (2, 3, 5)


@pytest.mark.parametrize("width", SMALL)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_undone_comes_back_or_is_refused(kind: str, width: int) -> None:
    """N7: the inverse and the powers -1, -3 and -0.7 give states back, or say that none can."""
    operator = registered()[kind].example(width, 1)
    h = 4.0 * rows(9, width).astype(np.float64)
    reasons: list[str] = []
    for strength in (0.3, 1.0):
        there = reference.affine_apply(operator.fold(strength), h)
        try:
            inverse = operator.inverse(strength)
        except ValueError as error:
            reasons.append(str(error))
            continue
        known = inverse.determined(there)
        assert relative(inverse.apply(there[known]), h[known]) < 1e-9
    fold = operator.fold(1.0)
    factors = Factors.of(fold)
    for exponent in () if fold.restore else (-1.0, -3.0, -0.7):
        try:
            back = algebra.power(factors, exponent)
        except ValueError as error:
            reasons.append(str(error))
            continue
        forth = algebra.power(factors, -exponent)
        there = forth.linear(h) + forth.constant
        # Float64 rounding times a condition of at most 10⁴, twice over in the power itself.
        assert relative(back.linear(there) + back.constant, h) < 1e-7
    known_reasons = ("[inverse] expected a map with a condition", "[power] expected")
    assert all(reason.startswith(known_reasons) for reason in reasons)


def test_a_fitted_clamp_has_no_negative_power(subspace: Subspace) -> None:
    """Its M is singular but for float32 rounding: the solver found a map of norm 10⁷."""
    clamp = Unitary.fit(subspace, angle=90.0)
    with pytest.raises(ValueError, match="expected an invertible map"):
        (Additive(np.ones(subspace.mean.size)) @ clamp).power(-1.0)


@pytest.mark.parametrize("width", SMALL)
def test_an_ablation_of_the_whole_space_is_refused(width: int) -> None:
    """All singular values are rounding: small beside the identity, whatever their quotient."""
    whole = Ablation(np.eye(width), np.ones(width))
    with pytest.raises(ValueError, match="expected a map with a condition"):
        whole.inverse(1.0)
    tiny = Factors(np.eye(width), np.zeros(width), (1e-8 - 1) * np.eye(width), np.ones(width))
    assert algebra.condition(tiny) == pytest.approx(1e8)
    with pytest.raises(ValueError, match="expected an invertible map"):
        algebra.power(tiny, -1.0)
    grown = replace(tiny, B=99.0 * np.eye(width))
    assert algebra.condition(grown) == pytest.approx(1.0)


@pytest.mark.parametrize("width", SMALL)
@pytest.mark.parametrize("exponent", [-1.0, -2.0])
def test_a_nearly_singular_map_has_no_negative_power(width: int, exponent: float) -> None:
    """A clamp's M is singular but for its float32 rounding, which no solver notices."""
    basis = np.eye(width)[:, :2]
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]], complex)
    clamp = Unitary(np.zeros(width), basis, quarter, 1.0)
    joined = Additive.example(width, 1) @ clamp
    with pytest.raises(ValueError, match="expected an invertible map"):
        joined.power(exponent)
    # Undone once it may be, five times it is not: 0.1⁵ leaves a condition of 10⁵.
    shrink = Factors(np.eye(width)[:1], np.zeros(1), -0.9 * np.eye(width)[:1], np.zeros(width))
    algebra.power(shrink, -1.0)
    with pytest.raises(ValueError, match=r"a condition of 1\.0e\+05"):
        algebra.power(shrink, -5.0)
