"""The five laws, over every registered operator, in float64 and in the compiled kernel.

A law takes plain functions from rows to rows, so that two ways in which steering systems really
were broken, and a third made up for the remaining law, go through the same checks and must fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from _models import rows
from cogit import kernels, reference
from cogit.operators import Operator, registered
from cogit.operators.base import ALWAYS, Law, random_basis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.affine import Affine

    Rows = NDArray[np.floating]
    Apply = Callable[[Rows, float], Rows]
    Run = Callable[[Affine, NDArray[np.float32], float], Rows]

WIDTHS = (2, 5, 64, 896)
STRENGTHS = (-1.0, 0.37, 1.0, 2.5)
# Folds are float32, so what leaves the span is the rounding of B: an ulp for each of its products.
ROUNDING = 32 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Subject:
    """What the laws need: the map, the same before any norm restore, and its family's identity."""

    apply: Apply
    bare: Apply
    identity: Apply
    span: NDArray[np.float64]  # (d_model, m)


def strength_zero(subject: Subject, h: Rows, strength: float) -> None:
    """Strength 0 returns the input bit for bit."""
    after = subject.apply(h, 0.0)
    assert after.astype(np.float64).tobytes() == h.astype(np.float64).tobytes()


def rowwise(subject: Subject, h: Rows, strength: float) -> None:
    """Positions do not mix: a row alone, or among others, becomes what it became in the batch."""
    together = subject.apply(h, strength)
    alone = np.concatenate([subject.apply(h[i : i + 1], strength) for i in range(len(h))])
    assert_close(alone, together, h)
    others = h.copy()
    others[1:] = 7.0 - 3.0 * h[1:]
    assert_close(subject.apply(others, strength)[:1], together[:1], h[:1])


def identity(subject: Subject, h: Rows, strength: float) -> None:
    """The identity changes nothing at any strength."""
    assert np.array_equal(subject.identity(h, strength), h)


def outside_untouched(subject: Subject, h: Rows, strength: float) -> None:
    """Before a restore, the component outside the operator's span is the input's."""
    after = subject.bare(h, strength)
    change = after - h
    leak = change - change @ subject.span @ subject.span.T
    assert_close(leak, np.zeros_like(leak), np.maximum(np.abs(h), np.abs(after)))


def norm_preserving(subject: Subject, h: Rows, strength: float) -> None:
    """Every row keeps its norm."""
    before, after = (np.linalg.norm(x, axis=1) for x in (h, subject.apply(h, strength)))
    np.testing.assert_allclose(after, before, rtol=ROUNDING)


LAWS: dict[Law, Callable[[Subject, Rows, float], None]] = {
    "strength_zero": strength_zero,
    "rowwise": rowwise,
    "identity": identity,
    "outside_untouched": outside_untouched,
    "norm_preserving": norm_preserving,
}


def assert_close(got: Rows, expected: Rows, scale: Rows) -> None:
    """Equal to within the rounding of rows as long as ``scale``'s."""
    distance = np.linalg.norm(got - expected, axis=1)
    assert (distance <= ROUNDING * np.linalg.norm(scale, axis=1)).all()


def broken_laws(subject: Subject, h: Rows) -> set[Law]:
    """The laws that a map breaks, at any of the strengths."""
    broken: set[Law] = set()
    for law, check in LAWS.items():
        for strength in STRENGTHS:
            try:
                check(subject, h, strength)
            except AssertionError:
                broken.add(law)
    return broken


# ---- every registered operator ----


def by_reference(affine: Affine, h: NDArray[np.float32], factor: float) -> Rows:
    return reference.affine_apply(affine, h, None if factor == 1 else np.full(len(h), factor))


def by_kernel(affine: Affine, h: NDArray[np.float32], factor: float) -> Rows:
    factors = None if factor == 1 else np.full(len(h), factor, np.float32)
    return kernels.affine_apply_numpy(affine, h, factors)


RUNS: dict[str, Run] = {"reference": by_reference, "kernel": by_kernel}


def folded(operator: Operator, run: Run) -> Subject:
    """The strength goes into the fold, as an intervention's does."""

    def applying(member: Operator, *, bare: bool = False) -> Apply:
        def apply(h: Rows, strength: float) -> Rows:
            affine = member.fold(strength)
            return run(replace(affine, restore=False) if bare else affine, h, 1.0)

        return apply

    neutral = type(operator).identity(operator.d_model)
    return Subject(
        applying(operator), applying(operator, bare=True), applying(neutral), operator.span()
    )


def masked(operator: Operator, run: Run) -> Subject:
    """The strength multiplies each row's change, as a window of positions does."""

    def applying(affine: Affine) -> Apply:
        return lambda h, strength: run(affine, h, strength)

    fold = operator.fold(1.0)
    neutral = type(operator).identity(operator.d_model).fold(1.0)
    bare = replace(fold, restore=False)
    return Subject(applying(fold), applying(bare), applying(neutral), operator.span())


@pytest.mark.parametrize("d_model", WIDTHS)
@pytest.mark.parametrize("dial", [folded, masked])
@pytest.mark.parametrize("path", RUNS)
@pytest.mark.parametrize("kind", registered())
def test_laws(kind: str, path: str, dial: Callable[[Operator, Run], Subject], d_model: int) -> None:
    if kind == "dense":  # a map of full rank: products of 896 x 896 for every row are seconds
        d_model = min(d_model, 128)
    for seed in range(3):
        operator = registered()[kind].example(d_model, seed)
        subject = dial(operator, RUNS[path])
        h = rows(7, d_model, seed)
        claimed = operator.laws()
        assert claimed >= ALWAYS
        assert not broken_laws(subject, h) & claimed


@pytest.mark.parametrize("path", RUNS)
@pytest.mark.parametrize("kind", registered())
def test_laws_on_extreme_rows(kind: str, path: str) -> None:
    """Rows of zeros, of signed zeros, and of very large and very small norm."""
    operator = registered()[kind].example(64, 0)
    h = rows(5, 64)
    h *= np.array([0.0, -0.0, 1e4, 1e-6, 1.0], np.float32)[:, None]
    subject = folded(operator, RUNS[path])
    assert np.array_equal(subject.apply(h, 0.0), h)
    for strength in STRENGTHS:
        identity(subject, h, strength)
        if "norm_preserving" in operator.laws():
            norm_preserving(subject, h, strength)


@pytest.mark.parametrize("kind", registered())
def test_operators_do_something(kind: str) -> None:
    """The laws would hold for a map that never acts."""
    operator = registered()[kind].example(64, 0)
    h = rows(7, 64)
    for strength in STRENGTHS:
        change = reference.affine_apply(operator.fold(strength), h) - h
        assert (np.linalg.norm(change, axis=1) > 1e-3).all()
    assert not operator.fold(1.0).is_zero()


def test_every_operator_names_its_formula_and_source() -> None:
    for kind, cls in registered().items():
        assert cls.kind == kind
        assert cls.formula
        assert cls.source
        assert (cls.__doc__ or "").strip()


# ---- maps that break the laws ----


def rotation(d_model: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An orthogonal matrix that turns within a plane, and the plane's basis."""
    plane = random_basis(d_model, 2, 0)
    cosine, sine = np.cos(1.0), np.sin(1.0)
    turned = np.array([[cosine, -sine], [sine, cosine]])
    return np.eye(d_model) + plane @ (turned - np.eye(2)) @ plane.T, plane


def average_and_broadcast(matrix: NDArray[np.float64]) -> Apply:
    """One state for all positions: their mean, steered, blended into every row."""

    def apply(h: Rows, strength: float) -> Rows:
        steered = h.mean(axis=0, keepdims=True) @ matrix.T
        return h + strength * (steered - h)

    return apply


def normalise_and_never_restore(matrix: NDArray[np.float64]) -> Apply:
    """A unit state is steered, and put back at unit length."""

    def apply(h: Rows, strength: float) -> Rows:
        steered = h / np.linalg.norm(h, axis=1, keepdims=True) @ matrix.T
        return h + strength * (steered - h)

    return apply


def through_half_precision(matrix: NDArray[np.float64]) -> Apply:
    """A correct map whose input is rounded to float16 on the way, whatever the strength."""

    def apply(h: Rows, strength: float) -> Rows:
        rounded = h.astype(np.float16).astype(np.float64)
        return rounded + strength * (rounded @ matrix.T - rounded)

    return apply


def correct(matrix: NDArray[np.float64]) -> Apply:
    """The same rotation as the broken maps', done right: per row, norm restored."""

    def apply(h: Rows, strength: float) -> Rows:
        steered = h + strength * (h @ (matrix - np.eye(len(matrix))).T)
        scale = np.linalg.norm(h, axis=1) / np.linalg.norm(steered, axis=1)
        return steered * np.where((steered == h).all(axis=1), 1.0, scale)[:, None]

    return apply


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            average_and_broadcast,
            {"rowwise", "identity", "outside_untouched", "norm_preserving"},
        ),
        (normalise_and_never_restore, {"identity", "outside_untouched", "norm_preserving"}),
        (
            through_half_precision,
            {"strength_zero", "identity", "outside_untouched", "norm_preserving"},
        ),
    ],
)
def test_broken_maps_are_caught(
    family: Callable[[NDArray[np.float64]], Apply], expected: set[Law]
) -> None:
    matrix, plane = rotation(64)
    apply = family(matrix)
    subject = Subject(apply, apply, family(np.eye(64)), plane)
    assert broken_laws(subject, rows(7, 64)) == expected


def test_the_same_rotation_done_right_passes() -> None:
    matrix, plane = rotation(64)

    def bare(h: Rows, strength: float) -> Rows:
        return h + strength * (h @ (matrix - np.eye(64)).T)

    subject = Subject(correct(matrix), bare, correct(np.eye(64)), plane)
    assert broken_laws(subject, rows(7, 64)) == set()


def test_every_law_can_fail() -> None:
    caught: set[Law] = set()
    matrix, plane = rotation(64)
    for family in (average_and_broadcast, normalise_and_never_restore, through_half_precision):
        apply = family(matrix)
        caught |= broken_laws(Subject(apply, apply, family(np.eye(64)), plane), rows(7, 64))
    assert caught == set(LAWS)
