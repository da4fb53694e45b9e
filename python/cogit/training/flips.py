"""The held-out flip rate: how many unseen states an operator carries to the other class's side.

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
``kept`` is counted. None of this says that a text changes: the teacher-forced contrast does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import reference
from cogit.activations import Activations
from cogit.operators import Operator
from cogit.subspace import Subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.floating[Any]]

Fit = Callable[[Activations], Operator]
_MIN_FIT, _MIN_HELD_OUT = 4, 2
_Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class FlipRate:
    """Flipped among n held-out states, both directions, with Wilson's interval at 95 %."""

    flipped: int
    n: int

    @property
    def rate(self) -> float:
        return self.flipped / self.n

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.flipped, self.n)

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {"rate": self.rate, "ci": [low, high], "flipped": self.flipped, "n": self.n}


@dataclass(frozen=True)
class FlipReport:
    """A fitted operator's rate beside its controls.

    kept: held-out states of the target's own class that stay on its side. shuffled: over all draws
    of fits to shuffled classes; shuffled_worst: the largest of them.
    """

    fitted: FlipRate
    kept: FlipRate
    identity: FlipRate
    shuffled: FlipRate
    shuffled_worst: FlipRate

    def to_json(self) -> dict[str, Any]:
        names = ("fitted", "kept", "identity", "shuffled", "shuffled_worst")
        return {name: getattr(self, name).to_json() for name in names}


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share at 95 % (Wilson 1927). ValueError unless 0 <= s <= n."""
    if not 0 <= successes <= n or n == 0:
        message = f"[wilson] expected 0 <= successes <= n and n > 0, got {successes} of {n}"
        raise ValueError(message)
    share, weight = successes / n, _Z**2 / n
    centre = share + weight / 2
    reach = _Z * np.sqrt(share * (1 - share) / n + weight / (4 * n))
    low, high = (centre - reach) / (1 + weight), (centre + reach) / (1 + weight)
    return max(0.0, float(low)), min(1.0, float(high))


def flip_rate(
    operator: Operator | None,
    mean: NDArray[np.float64],
    direction: NDArray[np.float64],
    positive: Rows,
    negative: Rows,
    *,
    strength: float = 1.0,
    kept: bool = False,
) -> FlipRate:
    """Flips of held-out states (n, d_model) of both classes; operator None is the identity.

    mean, direction: (d_model,) of the training split, the direction from negative to positive.
    kept: count the states of the target's own class that stay on its side instead.
    """
    flipped = 0
    for states, sign in ((negative, 1), (positive, -1)):
        carried = np.asarray(states, dtype=np.float64)
        target = -sign if kept else sign
        if operator is not None:
            carried = reference.affine_apply(operator.fold(target * strength), carried)
        flipped += int((target * ((carried - mean) @ direction) > 0).sum())
    return FlipRate(flipped, len(positive) + len(negative))


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
) -> FlipReport:
    """Flips of held-out states by an operator, and by fits to shuffled copies of its data.

    fit: activations to an operator for ``layer``, the way the operator was fitted. draws: how many
    shuffled copies; one of them alone says little.
    """
    mean, direction = true_reading(training, layer)
    positive, negative = held_out.at(layer)

    def rate(one: Operator | None, *, kept: bool = False) -> FlipRate:
        return flip_rate(one, mean, direction, positive, negative, strength=strength, kept=kept)

    shuffled = [rate(fit(shuffle_classes(training, seed + draw))) for draw in range(draws)]
    return FlipReport(
        fitted=rate(operator),
        kept=rate(operator, kept=True),
        identity=rate(None),
        shuffled=FlipRate(sum(one.flipped for one in shuffled), sum(one.n for one in shuffled)),
        shuffled_worst=max(shuffled, key=lambda one: one.flipped),
    )


def in_sample(operator: Operator, subspace: Subspace, *, strength: float = 1.0) -> FlipRate:
    """Flips of the states that a subspace was fitted on: an upper bound, where no others are."""
    positive, negative = (
        subspace.mean + coordinates @ subspace.basis.T
        for coordinates in (subspace.positive, subspace.negative)
    )
    return flip_rate(
        operator, subspace.mean, subspace.direction, positive, negative, strength=strength
    )


def true_reading(
    training: Activations, layer: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Midpoint and unit direction (d_model,) of the classes of a training split."""
    positive, negative = (x.astype(np.float64).mean(axis=0) for x in training.at(layer))
    difference = positive - negative
    length = float(np.linalg.norm(difference))
    if length == 0.0:
        message = f"[flips] expected two classes with different means at block {layer}, got equal"
        raise ValueError(message)
    return (positive + negative) / 2, difference / length


def split_activations(
    activations: Activations, seed: int, *, held_out: float = 0.25
) -> tuple[Activations, Activations]:
    """Training and held-out pairs, drawn by seed; ValueError where either part is too small."""
    n_pairs = activations.positive.shape[1]
    n_held_out = round(held_out * n_pairs)
    if n_held_out < _MIN_HELD_OUT or n_pairs - n_held_out < _MIN_FIT:
        message = (
            f"[split] expected at least {_MIN_FIT} pairs to fit and {_MIN_HELD_OUT} held out, got "
            f"{n_pairs} pairs and a held-out share of {held_out:g}; record more pairs"
        )
        raise ValueError(message)
    order = np.random.default_rng(seed).permutation(n_pairs)
    parts = np.sort(order[n_held_out:]), np.sort(order[:n_held_out])
    return take(activations, parts[0]), take(activations, parts[1])


def take(activations: Activations, rows: NDArray[np.integer[Any]]) -> Activations:
    """The pairs of the given numbers."""
    return replace(
        activations,
        positive=activations.positive[:, rows],
        negative=activations.negative[:, rows],
    )


def shuffle_classes(activations: Activations, seed: int) -> Activations:
    """The classes exchanged within half of the pairs, drawn by seed: no class is left to learn."""
    n_pairs = activations.positive.shape[1]
    swapped = np.random.default_rng(seed).permutation(n_pairs) < n_pairs // 2
    positive, negative = activations.positive, activations.negative
    return replace(
        activations,
        positive=np.where(swapped[:, None], negative, positive),
        negative=np.where(swapped[:, None], positive, negative),
    )
