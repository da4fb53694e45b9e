"""Flip rate: how many held-out states an operator carries to the other class's side.

The sides are the half-spaces of a boundary learned on training states alone: the sign of the
projection on a direction, from a middle point. With the mean difference as direction and the mean
of the class means as middle this is the nearest centroid. A flip rate says that an operator moves
states as it was asked to, not that the text changes: hold it against the same operator fitted to
shuffled labels and against the identity, and judge by generated text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.intervals import wilson_interval
from cogit.operators.base import Operator
from cogit.pair_groups import members
from cogit.reference import affine_apply

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from cogit.subspace import Subspace

# Of the permutation test of unsteered pairs.
LEVEL = 0.05
_MOST_EXACT, _DRAWS = 13, 9999

Move = Callable[["NDArray[np.float64]"], "ArrayLike"]


@dataclass(frozen=True)
class Boundary:
    """The plane between two classes: a state is positive where (h - middle)·direction > 0.

    middle, direction: (d_model,); the direction points from negative to positive, of any length.
    """

    middle: NDArray[np.float64]
    direction: NDArray[np.float64]

    def __post_init__(self) -> None:
        good = self.middle.shape == self.direction.shape and self.direction.ndim == 1
        if not (good and np.isfinite(self.middle).all() and np.isfinite(self.direction).all()):
            message = (
                f"[flip] expected a finite middle and direction (d_model,), got "
                f"{self.middle.shape} and {self.direction.shape} or values that are not finite"
            )
            raise ValueError(message)
        if not self.direction.any():
            message = "[flip] expected a direction, got zero: the classes have one mean"
            raise ValueError(message)

    @classmethod
    def between(cls, positive: ArrayLike, negative: ArrayLike) -> Boundary:
        """Nearest centroid of training states (n, d_model)."""
        plus, minus = (_rows(name, x).mean(axis=0) for name, x in _named(positive, negative))
        return cls((plus + minus) / 2, plus - minus)

    @classmethod
    def of_subspace(cls, subspace: Subspace) -> Boundary:
        """The mean and first direction of a subspace fitted to training states."""
        return cls(subspace.mean, subspace.direction)

    def is_positive(self, states: ArrayLike) -> NDArray[np.bool_]:
        """For each row (n, d_model); a state on the plane is on neither side, so False."""
        return np.asarray((np.asarray(states, np.float64) - self.middle) @ self.direction > 0)

    def is_negative(self, states: ArrayLike) -> NDArray[np.bool_]:
        """As ``is_positive``, for the other side."""
        return np.asarray((np.asarray(states, np.float64) - self.middle) @ self.direction < 0)


@dataclass(frozen=True)
class Share:
    """``count`` of ``n``, with Wilson's score interval at 95 %.

    independent: the part of the n that is independent evidence, for the interval: groups of pairs
    that share no text, by pairs.
    """

    count: int
    n: int
    independent: float = 1.0

    @classmethod
    def of(cls, hits: NDArray[np.bool_]) -> Share:
        return cls(int(hits.sum()), int(hits.size))

    @property
    def rate(self) -> float:
        return self.count / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.rate, max(1, round(self.n * self.independent)))

    @property
    def low(self) -> float:
        return self.interval[0]

    @property
    def high(self) -> float:
        return self.interval[1]

    def to_json(self) -> dict[str, Any]:
        return {"rate": self.rate, "ci": list(self.interval), "count": self.count, "n": self.n}


@dataclass(frozen=True)
class Apart:
    """Are two classes told apart along a direction, before any operator?

    p: one-sided, of the mean difference within ``n_pairs`` pairs when the classes are swapped
    within pairs at random, which nothing that is the same for both classes can pass. Pairs that
    share a text count as one.
    """

    p: float
    n_pairs: int

    @classmethod
    def along(
        cls,
        boundary: Boundary,
        positive: ArrayLike,
        negative: ArrayLike,
        *,
        seed: int = 0,
        groups: NDArray[np.int64] | None = None,
    ) -> Apart:
        """Of held-out pairs (n, d_model), rows matched; the boundary is from training states alone.

        Exact up to 13 pairs, else of 9999 draws by seed (permutation test of pairs: Fisher 1935).
        groups: (n,) of pairs that share a text, which are swapped together and count as one.
        """
        plus, minus = (_rows(name, x) for name, x in _named(positive, negative))
        if plus.shape != minus.shape:
            message = f"[flip] expected matched pairs, got {plus.shape} and {minus.shape}"
            raise ValueError(message)
        differences = (plus - minus) @ boundary.direction
        if groups is not None:
            numbers = np.unique(groups, return_inverse=True)[1]
            sums = np.zeros(numbers.max() + 1)
            np.add.at(sums, numbers, differences)
            differences = sums
        n_pairs, exact = len(differences), len(differences) <= _MOST_EXACT
        if exact:
            bits = np.arange(2**n_pairs)[:, None] >> np.arange(n_pairs) & 1
        else:
            bits = np.random.default_rng(seed).integers(0, 2, (_DRAWS, n_pairs))
        swapped = (1 - 2 * bits) @ differences
        # The sum as it is is among the exact ones; rounding may not push it below itself.
        reached = int((swapped >= differences.sum() - 1e-12 * np.abs(differences).sum()).sum())
        p = reached / len(swapped) if exact else (reached + 1) / (_DRAWS + 1)
        return cls(p, n_pairs)

    @property
    def holds(self) -> bool:
        return self.p < LEVEL

    @property
    def can_hold(self) -> bool:
        """False where there are too few pairs for any difference to reach the level."""
        return 0.5**self.n_pairs < LEVEL

    def to_json(self) -> dict[str, Any]:
        return {"p": self.p, "n_pairs": self.n_pairs}


@dataclass(frozen=True)
class FlipRate:
    """Shares of held-out states on the other class's side.

    to_positive: of negative states, after the operator. to_negative: of positive states, after its
    reverse. both: the two pooled. before: pooled, without any operator: what the boundary gets
    wrong, below which no flip rate means anything. kept: of the states that each of the two should
    leave alone, those of its target's own class, how many are on their own side afterwards.
    """

    to_positive: Share
    to_negative: Share
    both: Share
    before: Share
    kept: Share

    def to_json(self) -> dict[str, Any]:
        names = ("to_positive", "to_negative", "both", "before", "kept")
        return {name: getattr(self, name).to_json() for name in names}


def held_out_flip_rate(
    operator: Operator | Move,
    positive: ArrayLike,
    negative: ArrayLike,
    boundary: Boundary,
    *,
    strength: float = 1.0,
    reverse: Operator | Move | None = None,
) -> FlipRate:
    """Move held-out states with an operator and count those on the other class's side.

    operator: applied to the negative states at ``strength``; or any function of rows (n, d_model).
    positive, negative: held-out states (n, d_model), which neither the operator nor the boundary
    may have seen. boundary: from training states alone. reverse: applied to the positive states;
    by default the operator at -strength, so that a function needs one.

    Raises ValueError for shapes that do not fit, states that are not finite (before or after), and
    a function without a reverse.
    """
    plus, minus = (_rows(name, x) for name, x in _named(positive, negative))
    backward: Operator | Move
    if reverse is not None:
        backward, back_strength = reverse, strength
    elif isinstance(operator, Operator):
        backward, back_strength = operator, -strength
    else:
        message = "[flip] expected a reverse beside a function, got none; give reverse="
        raise ValueError(message)
    up = boundary.is_positive(_moved(operator, minus, strength))
    down = boundary.is_negative(_moved(backward, plus, back_strength))
    wrong = np.concatenate([boundary.is_positive(minus), boundary.is_negative(plus)])
    stayed = np.concatenate(
        [
            boundary.is_positive(_moved(operator, plus, strength)),
            boundary.is_negative(_moved(backward, minus, back_strength)),
        ]
    )
    return FlipRate(
        to_positive=Share.of(up),
        to_negative=Share.of(down),
        both=Share.of(np.concatenate([up, down])),
        before=Share.of(wrong),
        kept=Share.of(stayed),
    )


def split_rows(
    n: int, *, held_out: float = 0.5, seed: int = 0, groups: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of training and of held-out pairs, drawn at random, each sorted.

    held_out: the share held out, rounded, at least one row on either side. groups: (n,) numbers of
    rows that stay together, as ``group_pairs`` gives them; the share is then met as nearly as whole
    groups allow, in the order drawn. ValueError if n < 2, the share is not between 0 and 1, the
    numbers are not of n rows, or there is but one group.
    """
    if n < 2 or not 0 < held_out < 1:
        message = (
            f"[flip] expected at least 2 rows and a share between 0 and 1, got {n} and {held_out}"
        )
        raise ValueError(message)
    n_held = min(max(round(n * held_out), 1), n - 1)
    if groups is not None and groups.shape != (n,):
        message = f"[flip] expected a group number for each of {n} rows, got {groups.shape}"
        raise ValueError(message)
    parts = members(np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1])
    if len(parts) < 2:
        message = (
            f"[flip] expected at least 2 groups of rows that share no text, got {len(parts)} in "
            f"{n} rows"
        )
        raise ValueError(message)
    held: list[int] = []
    total = 0
    for number in np.random.default_rng(seed).permutation(len(parts)):
        nearer = abs(total + len(parts[number]) - n_held) <= abs(total - n_held)
        if nearer and len(held) < len(parts) - 1:
            held.append(int(number))
            total += len(parts[number])
    if not held:  # every group is more than twice what is to be held out
        held.append(min(range(len(parts)), key=lambda i: len(parts[i])))
    unseen = np.sort(np.concatenate([parts[number] for number in held]))
    return np.setdiff1d(np.arange(n), unseen), unseen


def _moved(
    move: Operator | Move, rows: NDArray[np.float64], strength: float
) -> NDArray[np.float64]:
    if isinstance(move, Operator):
        after = affine_apply(move.fold(strength), rows)
    else:
        after = np.asarray(move(rows), dtype=np.float64)
    if after.shape != rows.shape or not np.isfinite(after).all():
        message = f"[flip] expected finite moved states {rows.shape}, got {after.shape} or others"
        raise ValueError(message)
    return after


def _named(positive: ArrayLike, negative: ArrayLike) -> tuple[tuple[str, ArrayLike], ...]:
    return ("positive", positive), ("negative", negative)


def _rows(name: str, states: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(states, dtype=np.float64)
    if rows.ndim != 2 or 0 in rows.shape or not np.isfinite(rows).all():
        message = f"[flip] expected finite {name} states (n, d_model), got {rows.shape} or others"
        raise ValueError(message)
    return rows
