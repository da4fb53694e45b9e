"""The contrast-margin objective: a unitary learned on recorded states, without the model.

States are centred and lifted with a reference amplitude. The score of a state is its signal along
the direction of the mean difference in units of half the class separation: -1 at one class mean, +1
at the other. An operator gains on a state what it moves the score towards the other class *beyond
what the identity leaves it at*, and the objective asks every state for a gain of ``margin``. The
identity gains nothing and is the worst point of the objective, where for a plain overlap between
matched states it is close to the best.

    loss = mean relu(margin - gain)² / margin² + price · mean |change beside the direction|² / s²

Positive strengths carry negative states, negative ones positive states, in the same loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cogit.operators import Unitary
from cogit.progress import track
from cogit.subspace import Subspace
from cogit.training.lifted import LiftedUnitary


@dataclass(frozen=True)
class MarginSettings:
    """How the contrast-margin objective is trained.

    margin: the gain asked of a state, in half separations; 2 is from class mean to class mean.
    price: the weight of what moves beside the direction. gain: the starting reference amplitude in
    half separations. steps, learning_rate: of Adam, on all states at once.
    """

    margin: float = 2.0
    price: float = 0.1
    gain: float = 1.5
    steps: int = 150
    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        positive = (self.margin, self.gain, self.learning_rate)
        if min(positive) <= 0 or self.price < 0 or self.steps < 1:
            message = f"[margin] expected positive settings, got {self}"
            raise ValueError(message)


@dataclass(frozen=True)
class MarginFit:
    """The learned operator and its curve: one row a step, with the loss and the mean gain."""

    operator: Unitary
    history: tuple[dict[str, float], ...]


def margin_loss(
    signal: tuple[Tensor, Tensor],
    back: tuple[Tensor, Tensor],
    states: tuple[Tensor, Tensor],
    half_separation: float,
    settings: MarginSettings,
) -> tuple[Tensor, Tensor]:
    """(loss, mean gain) of a pair of signal maps.

    signal, back: (A, τ) towards the positive and the negative class. states: (n, 2k) centred signal
    coordinates of the negative and of the positive class, which they carry.
    """
    losses: list[Tensor] = []
    gains: list[Tensor] = []
    for (linear, shift), rows, sign in zip((signal, back), states, (1.0, -1.0), strict=True):
        change = (rows @ linear.T + shift - rows) / half_separation
        gain = sign * change[:, 0]
        missing = torch.relu(settings.margin - gain) / settings.margin
        beside = change[:, 1:].square().sum(dim=1)
        losses.append(missing.square().mean() + settings.price * beside.mean())
        gains.append(gain.mean())
    return torch.stack(losses).mean(), torch.stack(gains).mean()


def fit_margin(
    subspace: Subspace, settings: MarginSettings | None = None, *, show: bool = False
) -> MarginFit:
    """Train a unitary from the identity on a subspace's own states; deterministic.

    What it learned is judged on other states: see :mod:`cogit.training.flips`.
    """
    chosen = settings or MarginSettings()
    start = Unitary.fit(subspace, angle=0.0, gain=chosen.gain)
    trained = LiftedUnitary(start)
    states = (
        torch.from_numpy(subspace.negative.copy()),
        torch.from_numpy(subspace.positive.copy()),
    )
    optimiser = torch.optim.Adam(list(trained.leaves().values()), lr=chosen.learning_rate)
    history: list[dict[str, float]] = []
    for step in track(range(chosen.steps), "fitting", show=show):
        optimiser.zero_grad()
        loss, gain = margin_loss(
            trained.signal_map(1.0),
            trained.signal_map(-1.0),
            states,
            subspace.half_separation,
            chosen,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        history.append({"step": step, "loss": float(loss.detach()), "gain": float(gain.detach())})
    return MarginFit(trained.operator(), tuple(history))
