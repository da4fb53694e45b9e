"""Flags of ``cogit fit``, None where not given, and what those of the Born training ask for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cogit.training.born_operator import BornSettings

_ONLY = "With --method born-adam: "


class FamilyChoice(StrEnum):
    dense = "dense"
    lowrank = "lowrank"
    diagonal = "diagonal"


Angle = Annotated[
    float | None, typer.Option(help="Degrees of the plane rotation.", show_default="60")
]
Gain = Annotated[
    float | None,
    typer.Option(
        help="Reference amplitude of the unitary, in half class separations.", show_default="1.5"
    ),
]
Strength = Annotated[
    float | None, typer.Option("--lambda", help="Strength that is saved.", show_default="1")
]
ComplexDimensions = Annotated[
    int | None,
    typer.Option("--k", min=1, help="Complex dimensions of the subspace.", show_default="4"),
]
Tail = Annotated[
    int | None,
    typer.Option(min=1, help="Last tokens of a text of --pairs that count.", show_default="4"),
]
KlBudget = Annotated[
    float | None, typer.Option(help="KL on neutral texts, nats per token.", show_default="0.02")
]
NllBudget = Annotated[
    float | None,
    typer.Option(
        help="Rise of the NLL of the target's own texts, nats per token.", show_default="0.005"
    ),
]
Family = Annotated[
    FamilyChoice | None,
    typer.Option(help=f"{_ONLY}how U is parametrised.", show_default="dense"),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help=f"{_ONLY}schedule and q / d_model of a preset (cogit presets); the block, the model "
        f"and the seed stay as the other flags say."
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(help=f"{_ONLY}epochs of every training.", show_default="the preset's, or 100"),
]
Width = Annotated[
    int | None,
    typer.Option(
        "--q",
        help=f"{_ONLY}dimension of the encoded states. A step takes time as q³ (0.02 s at q = 333, "
        f"78 s at 5333, one core); below d_model, dimensions pass by unsteered.",
        show_default="2.604 d_model",
    ),
]
ExactInverse = Annotated[
    bool,
    typer.Option(
        "--exact-inverse",
        help=f"{_ONLY}train negative to positive alone and go back by its adjoint.",
    ),
]
ShuffledFits = Annotated[
    int | None,
    typer.Option(help=f"{_ONLY}controls to train on shuffled classes.", show_default="4"),
]
OutOpposite = Annotated[
    Path | None,
    typer.Option(
        help=f"{_ONLY}also write the operator from positive to negative, to be used at a positive "
        f"strength. A negative strength of --out is no way back: it runs the blend backwards."
    ),
]


@dataclass(frozen=True)
class BornFlags:
    """The flags as given; None or False where they were not."""

    family: FamilyChoice | None
    preset: str | None
    epochs: int | None
    q: int | None
    exact_inverse: bool
    shuffled_fits: int | None
    out_opposite: Path | None

    def require_none(self, method: str) -> None:
        """ValueError where any was given to another method: none is ignored."""
        given = [
            f"--{name.replace('_', '-')}"
            for name, value in vars(self).items()
            if value is not None and value is not False
        ]
        if given:
            message = (
                f"[fit] expected {', '.join(given)} with --method born-adam only, got {method}; "
                f"leave it out"
            )
            raise ValueError(message)

    def settings(self, seed: int) -> BornSettings:
        """What they ask for; ValueError for numbers that no training can have."""
        from dataclasses import replace

        from cogit.presets import RATIO, preset
        from cogit.training.born_config import BornConfig
        from cogit.training.born_operator import BornSettings

        chosen = None if self.preset is None else preset(self.preset)
        config = BornConfig() if chosen is None else BornConfig.of(chosen)
        config = replace(
            config,
            seed=seed,
            epochs=config.epochs if self.epochs is None else self.epochs,
            family="dense" if self.family is None else self.family.value,
        )
        return BornSettings(
            config=config,
            quantum_dim=self.q,
            ratio=RATIO if chosen is None else chosen.q / chosen.d_model,
            exact_inverse=self.exact_inverse,
            **({} if self.shuffled_fits is None else {"draws": self.shuffled_fits}),
        )
