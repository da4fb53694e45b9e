"""Flags of ``cogit fit`` that may have no effect: as given, and what they ask for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cogit.cli.fit_flags import FamilyChoice, MethodChoice, OperatorChoice

if TYPE_CHECKING:
    from cogit.autofit import Recipe
    from cogit.evaluation.teacher_forced import Budget
    from cogit.training.born_operator import BornSettings

_NAMES = {"strength": "--lambda"}


@dataclass(frozen=True)
class FitNumbers:
    """Flags of every fit; None where they were not given."""

    method: MethodChoice | None
    angle: float | None
    gain: float | None
    strength: float | None
    k: int | None
    tail: int | None
    neutral: Path | None
    kl_budget: float | None
    nll_budget: float | None

    def given(self) -> frozenset[str]:
        """The flags that were given, as in ``--angle``."""
        return frozenset(_given(self))

    def recipe(self, operator: OperatorChoice) -> Recipe:
        from cogit.autofit import Recipe

        usual = Recipe()
        return Recipe(
            operator.value,
            MethodChoice.plane.value if self.method is None else self.method.value,
            usual.angle if self.angle is None else self.angle,
            usual.gain if self.gain is None else self.gain,
            usual.k if self.k is None else self.k,
        )

    def budget(self) -> Budget:
        from cogit.evaluation.teacher_forced import Budget

        usual = Budget()
        return Budget(
            usual.target_nll if self.nll_budget is None else self.nll_budget,
            usual.neutral_kl if self.kl_budget is None else self.kl_budget,
        )


@dataclass(frozen=True)
class BornFlags:
    """Flags of the Born training; None or False where they were not given."""

    family: FamilyChoice | None
    preset: str | None
    epochs: int | None
    q: int | None
    exact_inverse: bool
    shuffled_fits: int | None
    out_opposite: Path | None

    def settings(self, recipe: Recipe, seed: int) -> BornSettings | None:
        """What they ask for; None for another method.

        Raises ValueError for numbers that no training can have, and where one was given to another
        method: none is ignored.
        """
        if recipe.operator == "unitary" and recipe.method == MethodChoice.born_adam.value:
            return self._settings(seed)
        if given := _given(self):
            message = (
                f"[fit] expected {', '.join(given)} with --method born-adam only, got "
                f"{recipe.operator} by {recipe.method}; leave it out"
            )
            raise ValueError(message)
        return None

    def _settings(self, seed: int) -> BornSettings:
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


def _given(flags: FitNumbers | BornFlags) -> list[str]:
    """Names of those that are neither None nor False."""
    return [
        _NAMES.get(name, f"--{name.replace('_', '-')}")
        for name, value in vars(flags).items()
        if value is not None and value is not False
    ]
