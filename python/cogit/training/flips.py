"""A fit's held-out flip rate beside its controls; the rate itself is `cogit.evaluation.flip`.

Centre and direction come from the training split alone. A held-out state counts as flipped when,
after the operator at its strength towards the other class, its projection lies on the other
class's side of the training midpoint. The identity's rate is the share of states that lie there
anyway. A fit to shuffled classes is the second control: the side is still decided by the true
classes of the training split, so only what an operator learned from the classes can pass it.

What the rate can tell has limits. A clamp (a rotation by 90°) along the true direction flips every
state by construction, whatever the model does with it. A clamp fitted to shuffled classes erases
the class wherever the pairs' differences lie mostly along one line, and leaves all states a hair on
one side, which is the wrong one for about half of the draws: read its control as chance, 0.5. A fit
that turns the line round (a half turn, as Procrustes does at a small reference amplitude) flips
every state without having seen a class; it also turns those that should stay, which is why
``kept`` is counted.

And states without any difference are flipped as well: an operator that pushes along the training
direction crosses that direction's boundary by construction, and fits to shuffled classes push along
other directions. So the unsteered held-out pairs are tested too (``apart``): a flip counts only
between classes that are different. None of this says that a text changes: the teacher-forced
contrast does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.activations import Activations
from cogit.evaluation.flip import (
    Apart,
    Boundary,
    FlipRate,
    Share,
    held_out_flip_rate,
    split_rows,
)
from cogit.operators import Operator
from cogit.pair_groups import count_groups, group_pairs
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


Fit = Callable[[Activations], Operator]
TwoWays = tuple[Operator, Operator | None]
_MIN_FIT, _MIN_HELD_OUT = 4, 2


@dataclass(frozen=True)
class FlipReport:
    """A fitted operator's rate beside its controls.

    kept: held-out states of the target's own class that stay on its side. shuffled, shuffled_kept:
    over all draws of fits to shuffled classes; shuffled_worst: the one that flips most. apart: are
    the unsteered held-out pairs told apart along the training direction. n_groups: of held-out
    pairs that share no text; the intervals are for that many independent pairs.
    """

    fitted: Share
    kept: Share
    identity: Share
    shuffled: Share
    shuffled_kept: Share
    shuffled_worst: Share
    apart: Apart
    n_groups: int | None = None

    def to_json(self) -> dict[str, Any]:
        names = (
            *("fitted", "kept", "identity"),
            *("shuffled", "shuffled_kept", "shuffled_worst", "apart"),
        )
        shares = {name: getattr(self, name).to_json() for name in names}
        return shares | {"held_out_groups": self.n_groups}


def flip_report(
    operator: Operator,
    fit: Fit,
    training: Activations,
    held_out: Activations,
    layer: int,
    *,
    strength: float = 1.0,
    draws: int = 20,
    seed: int = 0,
    control_strength: float | None = None,
) -> FlipReport:
    """Flips of held-out states by an operator, and by fits to shuffled copies of its data.

    fit: activations to an operator for ``layer``, the way the operator was fitted. draws: how many
    shuffled copies; one of them alone says little. control_strength: of the shuffled fits, where an
    operator has a strength in its matrix that a new fit lacks; else that of the operator.
    """
    shuffled = [(fit(shuffle_classes(training, seed + draw)), None) for draw in range(draws)]
    return compare_flips(
        (operator, None),
        shuffled,
        training,
        held_out,
        layer,
        strength=strength,
        control_strength=control_strength,
    )


def compare_flips(
    fitted: TwoWays,
    shuffled: Sequence[TwoWays],
    training: Activations,
    held_out: Activations,
    layer: int,
    *,
    strength: float = 1.0,
    control_strength: float | None = None,
) -> FlipReport:
    """Flips of held-out states by an operator, and by controls that were fitted already.

    fitted, shuffled: an operator and the one for the way back, or None, where that is the operator
    at the negative strength. control_strength: of the controls, ``strength`` unless given.
    """
    boundary = Boundary.between(*training.at(layer))
    positive, negative = held_out.at(layer)

    def rate(ways: TwoWays, at: float) -> FlipRate:
        operator, back = ways
        return held_out_flip_rate(operator, positive, negative, boundary, strength=at, reverse=back)

    groups = groups_of(held_out)
    n_groups = count_groups(groups)
    found = rate(fitted, strength)
    control = strength if control_strength is None else control_strength
    controls = [rate(ways, control) for ways in shuffled]

    def judged(share: Share) -> Share:
        return replace(share, independent=n_groups / len(groups))

    return FlipReport(
        fitted=judged(found.both),
        kept=judged(found.kept),
        identity=judged(found.before),
        shuffled=judged(_pooled([one.both for one in controls])),
        shuffled_kept=judged(_pooled([one.kept for one in controls])),
        shuffled_worst=judged(max((one.both for one in controls), key=lambda one: one.count)),
        apart=Apart.along(boundary, positive, negative, groups=groups),
        n_groups=n_groups,
    )


def _pooled(shares: list[Share]) -> Share:
    return Share(sum(one.count for one in shares), sum(one.n for one in shares))


def in_sample(operator: Operator, subspace: Subspace, *, strength: float = 1.0) -> Share:
    """Flips of the states that a subspace was fitted on: an upper bound, where no others are."""
    positive, negative = states_of(subspace)
    boundary = Boundary.of_subspace(subspace)
    return held_out_flip_rate(operator, positive, negative, boundary, strength=strength).both


def states_of(subspace: Subspace) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The states (pair, d_model) of both classes that it was fitted on, as far as it holds them."""
    positive, negative = (
        subspace.mean + coordinates @ subspace.basis.T
        for coordinates in (subspace.positive, subspace.negative)
    )
    return positive, negative


def split_activations(
    activations: Activations, seed: int, *, held_out: float = 0.25
) -> tuple[Activations, Activations]:
    """Training and held-out pairs, drawn by seed; no text is in both.

    Pairs that share a text go to one part (``group_pairs``). ValueError where either part has too
    few groups of pairs.
    """
    n_pairs = activations.positive.shape[1]
    n_held_out = round(held_out * n_pairs)
    if n_held_out < _MIN_HELD_OUT or n_pairs - n_held_out < _MIN_FIT:
        message = (
            f"[split] expected at least {_MIN_FIT} pairs to fit and {_MIN_HELD_OUT} held out, got "
            f"{n_pairs} pairs and a held-out share of {held_out:g}; record more pairs"
        )
        raise ValueError(message)
    groups = groups_of(activations)
    n_groups = count_groups(groups)
    if n_groups >= 2:
        fit, unseen = split_rows(n_pairs, held_out=held_out, seed=seed, groups=groups)
        parts = count_groups(groups[fit]), count_groups(groups[unseen])
    if n_groups < 2 or parts[0] < _MIN_FIT or parts[1] < _MIN_HELD_OUT:
        message = (
            f"[split] expected at least {_MIN_FIT} groups of pairs that share no text to fit and "
            f"{_MIN_HELD_OUT} held out, got {n_groups} groups in {n_pairs} pairs and a held-out "
            f"share of {held_out:g}; record pairs of other texts"
        )
        raise ValueError(message)
    return take(activations, fit), take(activations, unseen)


def groups_of(activations: Activations) -> NDArray[np.int64]:
    """The group (pair,) of each pair; pairs in one group share a text (``group_pairs``)."""
    return group_pairs(activations.at(layer) for layer in activations.layers)


def take(activations: Activations, rows: NDArray[np.integer[Any]]) -> Activations:
    """The pairs of the given numbers."""
    return replace(
        activations,
        positive=activations.positive[:, rows],
        negative=activations.negative[:, rows],
    )


def shuffle_classes(activations: Activations, seed: int) -> Activations:
    """The classes exchanged within half of the pairs, drawn by seed: no class is left to learn.

    Pairs that share a text are exchanged together, half of the groups.
    """
    groups = groups_of(activations)
    n_groups = count_groups(groups)
    swapped = (np.random.default_rng(seed).permutation(n_groups) < n_groups // 2)[groups]
    positive, negative = activations.positive, activations.negative
    return replace(
        activations,
        positive=np.where(swapped[:, None], negative, positive),
        negative=np.where(swapped[:, None], positive, negative),
    )
