"""The undo ratio: what is left of an edit after it was taken back, for each token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import reference
from cogit.evaluation.statistics import Interval, bootstrap_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.affine import Affine
    from cogit.operators import Inverse

    Rows = NDArray[np.floating[Any]]
    Back = Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.bool_]]]

# An edit below this part of a token's norm is as good as none, and its undo ratio is noise.
FLOOR = 1e-3


@dataclass(frozen=True)
class Undo:
    """|S⁻S⁺h - h| / |S⁺h - h|: 0 undoes the edit, 1 leaves as much as it changed.

    ratio: sum over sum of the tokens of a prompt, with an interval over prompts; None where no
    token counts, and ``note`` says why. median: of single tokens. edit: mean |S⁺h - h| / |h|.
    n_tokens: all; n_counted: those above the floor of 10⁻³ and with a known state before them.
    """

    ratio: Interval | None
    median: float | None
    edit: float
    n_tokens: int
    n_counted: int
    note: str = ""


@dataclass(frozen=True)
class Draws:
    """A random control: the undo ratio of several draws."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    edit: float

    @classmethod
    def of(cls, values: Sequence[float], n: int, edit: float = 0.0) -> Draws:
        """The values that could be had of ``n`` draws."""
        if not values:
            return cls(None, None, None, n, edit)
        return cls(float(np.mean(values)), min(values), max(values), n, edit)


def by_affine(affine: Affine) -> Back:
    """Take back by another map, such as the opposite strength."""

    def back(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return reference.affine_apply(affine, rows), np.ones(len(rows), np.bool_)

    return back


def by_inverse(inverse: Inverse) -> Back:
    """Take back by the exact inverse, where a token determines what it was."""

    def back(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        known = inverse.determined(rows)
        before = rows.copy()
        before[known] = inverse.apply(rows[known])
        return before, known

    return back


def undo_ratio(
    forward: Affine,
    back: Back,
    states: Sequence[Rows],
    *,
    shuffle: int | None = None,
    factors: Sequence[NDArray[np.float64]] | None = None,
) -> Undo:
    """How much of an edit is left after taking it back. states: (token, d_model) for each prompt.

    The edit itself is made in float32 and the rest in float64. shuffle: a seed; what comes back is
    then compared with another token's state, a control that undoes nothing. factors: (token,) of
    each prompt, what a gate multiplies the edit by, and with it what undoing leaves, as in a model
    where both are one operator; a token of factor 0 has no edit.
    """
    edits, rests, sizes, known = [], [], [], []
    for number, rows in enumerate(states):
        before = np.asarray(rows, np.float64)
        there = reference.affine_apply(forward, before).astype(np.float32).astype(np.float64)
        after, reached = back(there)
        aim = before
        if shuffle is not None:
            aim = np.roll(before, 1 + (shuffle + number) % max(1, len(before) - 1), axis=0)
        factor = 1.0 if factors is None else factors[number]
        edits.append(factor * np.linalg.norm(there - before, axis=1))
        rests.append(factor * np.linalg.norm(after - aim, axis=1))
        sizes.append(np.linalg.norm(before, axis=1))
        known.append(reached)
    return _summarised(edits, rests, sizes, known)


def _summarised(
    edits: list[NDArray[np.float64]],
    rests: list[NDArray[np.float64]],
    sizes: list[NDArray[np.float64]],
    known: list[NDArray[np.bool_]],
) -> Undo:
    counted = [(e > FLOOR * n) & k for e, n, k in zip(edits, sizes, known, strict=True)]
    ratios = [
        float(r[c].sum() / e[c].sum())
        for e, r, c in zip(edits, rests, counted, strict=True)
        if c.any()
    ]
    edit, size, rest = (np.concatenate(x) for x in (edits, sizes, rests))
    mask = np.concatenate(counted)
    reached = np.concatenate(known)
    notes: list[str] = []
    below = int((edit <= FLOOR * size).sum())
    if below:
        notes.append(f"{below} of {edit.size} tokens below the edit floor of {FLOOR:g}")
    if not reached.all():
        notes.append(f"{int((~reached).sum())} of {edit.size} tokens do not determine a state")
    return Undo(
        ratio=bootstrap_mean(ratios) if ratios else None,
        median=float(np.median(rest[mask] / edit[mask])) if ratios else None,
        edit=float((edit / np.where(size == 0.0, 1.0, size)).mean()),
        n_tokens=int(edit.size),
        n_counted=int(mask.sum()),
        note="; ".join(notes),
    )
