"""What a unitary does to states that it was not trained on: fidelity, and transport of classes.

Fidelity alone says little, because the identity has nearly as much of it where states share a large
mean, and because it does not see the phase. Transport asks whether a state has moved from the
centroid of its class towards the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

Turn = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Compared:
    """One measure on held-out pairs: of the trained operator, and of what it must be held against.

    identity: of doing nothing. shuffled: of an operator trained in the same way on the same pairs,
    half of them with their classes exchanged.
    """

    trained: float
    identity: float
    shuffled: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@torch.no_grad()
def born_fidelity(turn: Turn, source: Tensor, target: Tensor) -> float:
    """Mean |<t|U s>|² over rows of unit states (n, q), in 0..1."""
    overlaps = (target.conj() * turn(source)).sum(dim=1)
    return float(overlaps.abs().square().mean())


@torch.no_grad()
def transport(turn: Turn, states: Tensor, start: Tensor, end: Tensor, reference: Tensor) -> Tensor:
    """How far each state is carried from one class centroid towards the other: (n,) real.

    Re<e - s | e^(iα) U ψ - ψ> / |e - s|² for states ψ (n, q) and centroids s and e (q,): 0 where
    nothing moves along the difference, 1 for a move of the length of the difference, negative away
    from e. The global phase α, which a Born loss leaves free, makes U as near as it can be to the
    identity on the ``reference`` states (m, q): α = -arg Σ <ψ|U ψ>.
    """
    difference = end - start
    overlap = (reference.conj() * turn(reference)).sum()
    size = overlap.abs()
    phase = overlap.conj() / size if float(size) > 0 else torch.ones_like(overlap)
    moved = phase * turn(states) - states
    return ((moved @ difference.conj()) / difference.abs().square().sum()).real


def antisymmetric_transport(
    turn: Turn, back: Turn, states: Tensor, start: Tensor, end: Tensor, reference: Tensor
) -> float:
    """Half the mean difference of the `transport` of U and of its inverse ``back`` on the same
    states.

    1 for a small rotation from one centroid to the other; 0 for the identity, and for what
    exchanges the classes and is its own inverse, such as a half turn or a reflection: the transport
    of U alone is 1 for these too. This is the measure that predicts behaviour, on states.
    """
    there, reverse = (transport(t, states, start, end, reference) for t in (turn, back))
    return float((there - reverse).mean() / 2)


def centroid(states: Tensor) -> Tensor:
    """The mean of unit states (n, q): (q,), not normalised."""
    return states.mean(dim=0)
