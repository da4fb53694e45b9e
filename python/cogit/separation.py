"""Separation of two classes of unit states by Born fidelity: nine statistics, without bias.

A state is a ray: rows are divided by their norm, and the fidelity of two rows is |⟨a|b⟩|². The
*within* fidelity of a class is its mean over pairs of two different states, the *cross* fidelity
its mean over pairs with one state of each class: like is compared with like, and the gap (within
minus cross) is zero on average where the classes have one distribution.

Matched pairs (row i of both classes made from one prompt) share variation, which would raise the
cross fidelity alone. The cross pairs (i, i) are therefore left out, as the self pairs are. The gap
is then sᵀGs / n(n-1) for labels s = ±1 swapped within pairs, with a diagonal of zero: its mean over
all swaps is zero exactly, whatever the states are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Lower bounds of the gap for each rating, as the source system had them.
_RATINGS = ((0.05, "excellent"), (0.02, "good"), (0.01, "moderate"))
# Squared norm below which the mean of unit states has no direction: far above rounding.
_NO_CENTROID = 1e-12


@dataclass(frozen=True)
class SeparationStatistics:
    """Nine numbers; fidelities lie in 0..1.

    centroid_fidelity: |⟨c₊|c₋⟩|² of the normalised class means; 0 where a mean is zero.
    centroid_cosine_similarity: the real part of ⟨c₊|c₋⟩, in -1..1.
    pos_class_consistency, pos_class_std: mean and standard deviation of the fidelity within the
    positive class; neg_class_consistency, neg_class_std: within the negative one.
    cross_class_fidelity, cross_class_std: the same between the classes.
    separation_gap: mean of both consistencies minus cross_class_fidelity.
    """

    centroid_fidelity: float
    centroid_cosine_similarity: float
    pos_class_consistency: float
    pos_class_std: float
    neg_class_consistency: float
    neg_class_std: float
    cross_class_fidelity: float
    cross_class_std: float
    separation_gap: float

    def to_json(self) -> dict[str, float]:
        """The nine values by name."""
        return asdict(self)


@dataclass(frozen=True)
class Overlaps:
    """Inner products of unit states: all that the statistics need.

    positive: (n₊, n₊) ⟨pᵢ|pⱼ⟩. negative: (n₋, n₋). cross: (n₊, n₋) ⟨pᵢ|nⱼ⟩. Real or complex.
    """

    positive: NDArray[Any]
    negative: NDArray[Any]
    cross: NDArray[Any]

    @classmethod
    def of_states(cls, positive: ArrayLike, negative: ArrayLike) -> Overlaps:
        """From rows (n, width), real or complex, of any length but zero.

        Raises ValueError for other shapes, one state a class, zero rows, NaN and infinity.
        """
        plus, minus = _unit_rows("positive", positive), _unit_rows("negative", negative)
        if plus.shape[1] != minus.shape[1]:
            message = (
                f"[separation] expected states of one width, got {plus.shape[1]} and "
                f"{minus.shape[1]}"
            )
            raise ValueError(message)
        return cls(plus.conj() @ plus.T, minus.conj() @ minus.T, plus.conj() @ minus.T)

    @classmethod
    def of_gram(cls, gram: NDArray[np.float64]) -> Overlaps:
        """From the Gram matrix (2n, 2n) of real rows: n positive ones, then n negative ones.

        Raises ValueError where a row has no length.
        """
        lengths = np.sqrt(np.diag(gram).clip(min=0.0))
        if not (lengths > 0).all():
            message = "[separation] expected states with a direction, got one of zero norm"
            raise ValueError(message)
        unit = gram / np.outer(lengths, lengths)
        half = len(gram) // 2
        return cls(unit[:half, :half], unit[half:, half:], unit[:half, half:])


def separation_statistics(
    positive: ArrayLike, negative: ArrayLike, *, matched: bool = True
) -> SeparationStatistics:
    """The nine statistics, pairwise on both sides of the gap.

    positive, negative: (n, width) real or complex rows; they are normalised first.
    matched: row i of both belongs to one pair, and the cross pairs (i, i) are left out; False for
    unmatched states, whose numbers may differ.

    Raises ValueError for shapes that do not fit, zero rows and values that are not finite.
    """
    return statistics_of(Overlaps.of_states(positive, negative), matched=matched)


def biased_separation_statistics(positive: ArrayLike, negative: ArrayLike) -> SeparationStatistics:
    """The nine statistics of the source system, BIASED: for comparison with its figures only.

    Its consistency is the fidelity of a state to its own class's centroid, which the state itself
    pulled towards it, and which is purer than any state; its cross fidelity is between single
    states. The gap is therefore positive on pure noise, by about 1/n and more: it is no evidence of
    two classes. Arguments and errors as for ``separation_statistics``.
    """
    return biased_statistics_of(Overlaps.of_states(positive, negative))


def statistics_of(
    overlaps: Overlaps, *, matched: bool = True, groups: NDArray[np.int64] | None = None
) -> SeparationStatistics:
    """``separation_statistics`` from inner products.

    groups: (n,) of matched pairs, two at least; states of one group are not compared, as the pairs
    of ``group_pairs`` repeat a text, whose fidelity to itself is 1.
    """
    n_plus, n_minus = overlaps.cross.shape
    if matched and n_plus != n_minus:
        message = (
            f"[separation] expected as many positive as negative states of matched pairs, got "
            f"{n_plus} and {n_minus}; give matched=False for unmatched states"
        )
        raise ValueError(message)
    cross = _fidelity(overlaps.cross)
    apart = [_apart(n, groups) for n in (n_plus, n_minus)]
    return _collect(
        overlaps,
        _fidelity(overlaps.positive)[apart[0]],
        _fidelity(overlaps.negative)[apart[1]],
        cross[apart[0]] if matched else cross.ravel(),
    )


def biased_statistics_of(overlaps: Overlaps) -> SeparationStatistics:
    """``biased_separation_statistics`` from inner products: state to centroid, BIASED."""
    own = []
    for products in (overlaps.positive, overlaps.negative):
        own.append(_fidelity(products.mean(axis=1)) / _centroid_square(products))
    return _collect(overlaps, own[0], own[1], _fidelity(overlaps.cross).ravel())


def swap_form(
    overlaps: Overlaps, groups: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], int]:
    """G (n, n) and m, for which the gap of matched pairs with labels s = ±1 is sᵀGs / m.

    m is n(n-1), less what pairs of one group would add (see ``statistics_of``).
    """
    within = (_fidelity(overlaps.positive) + _fidelity(overlaps.negative)) / 2
    cross = _fidelity(overlaps.cross)
    form = within - (cross + cross.T) / 2
    apart = _apart(len(form), groups)
    form[~apart] = 0.0
    return np.asarray(form), int(apart.sum())


def rate_gap(gap: float) -> str:
    """The source system's word for a gap: excellent above 5 %, good 2 %, moderate 1 %, else poor.

    A word, no evidence: see ``sweep_layers`` for a test.
    """
    return next((word for bound, word in _RATINGS if gap > bound), "poor")


def _collect(
    overlaps: Overlaps,
    positive: NDArray[np.float64],
    negative: NDArray[np.float64],
    cross: NDArray[np.float64],
) -> SeparationStatistics:
    squares = _centroid_square(overlaps.positive) * _centroid_square(overlaps.negative)
    cosine = complex(overlaps.cross.mean()) / squares**0.5
    within = (float(positive.mean()), float(negative.mean()))
    between = float(cross.mean())
    return SeparationStatistics(
        centroid_fidelity=abs(cosine) ** 2,
        centroid_cosine_similarity=cosine.real,
        pos_class_consistency=within[0],
        pos_class_std=float(positive.std()),
        neg_class_consistency=within[1],
        neg_class_std=float(negative.std()),
        cross_class_fidelity=between,
        cross_class_std=float(cross.std()),
        separation_gap=sum(within) / 2 - between,
    )


def _unit_rows(name: str, states: ArrayLike) -> NDArray[Any]:
    rows = np.asarray(states)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] == 0:
        message = f"[separation] expected at least 2 {name} states (n, width), got {rows.shape}"
        raise ValueError(message)
    rows = rows.astype(np.complex128 if np.iscomplexobj(rows) else np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        message = f"[separation] expected finite {name} states with a direction, got others"
        raise ValueError(message)
    return np.asarray(rows / lengths)


def _centroid_square(products: NDArray[Any]) -> float:
    """|mean of the unit states|²; infinite, so that overlaps with it are 0, where it is zero."""
    square = float(products.mean().real)
    return square if square > _NO_CENTROID else np.inf


def _fidelity(products: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(products.real**2 + products.imag**2, dtype=np.float64)


def _apart(n: int, groups: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """(n, n): which states are compared, all but those with themselves or within one group."""
    numbers = np.arange(n) if groups is None else groups
    return np.asarray(numbers[:, None] != numbers[None, :])
