"""Composition, as a law over every pair of registered operators."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from _models import D_MODEL, IDENTITY, planted, rows
from _operators import FOLDED, KINDS, bare, relative
from cogit import kernels, reference
from cogit.intervention import Intervention
from cogit.operators import (
    Ablation,
    Additive,
    Composed,
    Diagonal,
    LowRank,
    Unitary,
    registered,
)
from cogit.subspace import Subspace, fit_subspace

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    return fit_subspace(planted(separation=1.0), 0, k=3)


@pytest.mark.parametrize("strength", [-1.0, 0.37, 1.0])
@pytest.mark.parametrize("outer", KINDS)
@pytest.mark.parametrize("inner", KINDS)
def test_composition_is_one_after_the_other(inner: str, outer: str, strength: float) -> None:
    """N7: a @ b equals b, then a, to 1e-5 in float32; else it is refused by name."""
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
    assert fold.rank == min(D_MODEL, sum(part.rank for part in folds))
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
