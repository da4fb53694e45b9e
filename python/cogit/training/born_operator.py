"""The Born training on recorded states, as operators that a model can be steered by.

States are encoded by a random complex projection, two unitaries are trained between the classes
(or one, whose adjoint goes back), and each becomes a `Dense` operator: encode, turn, blend, decode.
The blend of a negative strength runs the line backwards, (1 + λ) ψ - λ U ψ, which is neither the
second unitary nor the adjoint. The way back is therefore an operator of its own, at a positive
strength. The loss leaves a global phase free; it is left as trained, and decoding reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.operators import Dense
from cogit.presets import RATIO
from cogit.projection import Projection
from cogit.training.born import train_shuffled
from cogit.training.born_config import BornConfig
from cogit.training.born_pair import DIRECTIONS, BornFit, Direction, OperatorPair, fit_born

if TYPE_CHECKING:
    import torch

    from cogit.activations import Activations
    from cogit.training.cayley_module import UnitaryModule


@dataclass(frozen=True)
class BornSettings:
    """What to train at a block.

    quantum_dim: q; round(ratio · d_model) where it is None. exact_inverse: one training, and its
    adjoint for the way back. draws: how many controls are trained on shuffled classes.
    """

    config: BornConfig = field(default_factory=BornConfig)
    quantum_dim: int | None = None
    ratio: float = RATIO
    exact_inverse: bool = False
    draws: int = 4

    def __post_init__(self) -> None:
        if type(self.draws) is not int or self.draws < 1:
            message = f"[born] expected at least one shuffled control, got {self.draws!r}"
            raise ValueError(message)
        if not 0 < self.ratio < float("inf"):
            message = f"[born] expected a ratio of q to d_model above 0, got {self.ratio!r}"
            raise ValueError(message)

    def width(self, d_model: int) -> int:
        """q for a model of this width."""
        return round(self.ratio * d_model) if self.quantum_dim is None else self.quantum_dim

    @property
    def trainings(self) -> int:
        """How many trainings a block takes, controls included."""
        return (1 if self.exact_inverse else 2) * (1 + self.draws)

    def to_json(self) -> dict[str, Any]:
        """What counts, for tables and lineage."""
        config = self.config
        return {
            "operator": "dense",
            "method": "born-adam",
            "family": config.family,
            **({"rank": config.rank} if config.family == "lowrank" else {}),
            **({"ratio": self.ratio} if self.quantum_dim is None else {"q": self.quantum_dim}),
            "exact_inverse": self.exact_inverse,
            "epochs": config.epochs,
            "batch_size": config.batch_size,
            "learning_rate": config.learning_rate,
        }


@dataclass(frozen=True, eq=False)
class BornOperators:
    """The trained operators of a block.

    towards, back: from negative to positive and from positive to negative, each at a positive
    strength. shuffled: the same two of every control. fit: the training, its measures and controls.
    """

    towards: Dense
    back: Dense
    shuffled: tuple[tuple[Dense, Dense], ...]
    fit: BornFit

    def to_json(self) -> dict[str, Any]:
        """The training's report, and what the projection cannot hold."""
        projection = self.towards.projection
        return {
            "q": projection.quantum_dim,
            "dimensions_passed_by": projection.lost_range,
            **self.fit.to_json(),
        }


def fit_born_operators(
    states: Activations,
    layer: int,
    settings: BornSettings | None = None,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    show: bool = True,
) -> BornOperators:
    """Train on a block's states, with controls trained alike on shuffled classes.

    checkpoint: a folder; every 10 epochs of every training are written there, and ``resume`` goes
    on from them. Fidelity is no measure of success (see `cogit.training.born`).

    A q below d_model, which has to be asked for, leaves d_model - q dimensions unsteered.

    Raises as `fit_born` and `Projection.draw`.
    """
    settings = settings or BornSettings()
    config = settings.config
    positive, negative = states.at(layer)
    width = settings.width(positive.shape[1])
    projection = Projection.draw(positive.shape[1], quantum_dim=width, seed=config.seed)
    fit = fit_born(
        negative,
        positive,
        config,
        projection=projection.matrix,
        exact_inverse=settings.exact_inverse,
        checkpoint=checkpoint,
        resume=resume,
        device=device,
        show=show,
    )

    def operators(pair: OperatorPair) -> tuple[Dense, Dense]:
        there, back = (pair.unitary(way).astype(np.complex128) for way in DIRECTIONS)
        return Dense(projection, there, lossy=True), Dense(projection, back, lossy=True)

    def control(way: Direction, draw: int) -> UnitaryModule:
        result = fit.results[way]
        if draw == 0:
            return result.control
        folder = None if checkpoint is None else checkpoint / f"{way}-shuffled-{draw}"
        return train_shuffled(
            result.states,
            config,
            draw=draw,
            checkpoint=folder,
            resume=resume,
            device=device,
            show=show,
        )

    shuffled = []
    for draw in range(settings.draws):
        modules = [control(way, draw) for way in fit.results]
        shuffled.append(operators(OperatorPair(*modules)))
    towards, back = operators(fit.pair)
    return BornOperators(towards, back, tuple(shuffled), fit)
