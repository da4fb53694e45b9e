"""What was asked of ``cogit fit``, and what it found."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.cli.fit_given import require_effect
from cogit.cli.loading import BackendChoice, Runtime
from cogit.cli.outputs import require_writable

if TYPE_CHECKING:
    from cogit.autofit import Recipe
    from cogit.cli.fit_born import Trained
    from cogit.evaluation.statistics import Interval
    from cogit.evaluation.teacher_forced import Budget, Choice, Score
    from cogit.evaluation.undo_ways import UndoWays
    from cogit.intervention import Intervention
    from cogit.layers import LayerRange
    from cogit.training.born_operator import BornSettings
    from cogit.training.flips import FlipReport
    from cogit.training.through_model import Refined


# Flags of what a fit is made of, beside the model.
INPUTS = ("pairs", "activations", "subspace", "neutral")


@dataclass(frozen=True)
class Request:
    """The flags of one call. given: names of those that were given and may have no effect."""

    pairs: str | None
    activations: Path | None
    subspace: Path | None
    out: Path
    model: str | None
    backend: BackendChoice
    runtime: Runtime
    layers: LayerRange | None
    recipe: Recipe
    strength: float
    born: BornSettings | None
    out_opposite: Path | None
    tail: int
    auto: bool
    refine: int
    neutral: Path | None
    budget: Budget
    checkpoint: Path | None
    resume: bool
    plot: Path | None
    seed: int
    force: bool
    json_output: bool
    given: frozenset[str] = frozenset()

    @property
    def outputs(self) -> dict[str, Path | None]:
        """The files to write, by flag."""
        return {"out": self.out, "out-opposite": self.out_opposite, "plot": self.plot}

    def require(self) -> None:
        """ValueError for flags that do not go together, before any work."""
        sources = {"--pairs": self.pairs, "--activations": self.activations}
        sources["--subspace"] = self.subspace
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            message = (
                f"[fit] expected one of {', '.join(sources)}, got {' and '.join(given) or 'none'}"
            )
            raise ValueError(message)
        self._require_numbers()
        if self.pairs is None and (self.auto or self.refine):
            message = (
                f"[fit] expected --pairs with --auto or --refine, which run texts through a model, "
                f"got {given[0]}"
            )
            raise ValueError(message)
        if self.auto and self.recipe.operator == "ablation":
            message = (
                "[fit] expected an operator with two directions with --auto, got ablation; choose "
                "the layer yourself"
            )
            raise ValueError(message)
        if self.refine and (
            self.recipe.operator != "unitary" or self.backend is not BackendChoice.transformers
        ):
            message = (
                f"[refine] expected a unitary on --backend transformers, which has gradients, got "
                f"{self.recipe.operator} on {self.backend.value}"
            )
            raise ValueError(message)
        trains = self.refine or self.born is not None
        if self.resume and (self.checkpoint is None or not trains):
            message = (
                "[resume] expected --resume with --checkpoint and --refine or born-adam, got it "
                "alone"
            )
            raise ValueError(message)
        if self.checkpoint is not None and not trains:
            message = (
                "[fit] expected --checkpoint with --refine or born-adam only, got no steps to save"
            )
            raise ValueError(message)
        if self.born is not None and (self.auto or self.refine or self.subspace is not None):
            message = (
                "[fit] expected --method born-adam with --layer and --pairs or --activations, got "
                "--auto, --refine or --subspace, which it does not serve"
            )
            raise ValueError(message)
        if self.pairs is not None and self.layers is None and not self.auto:
            message = "[layers] expected --layer L, or --auto to choose one, got neither"
            raise ValueError(message)
        if self.checkpoint is not None and self.refine and not self.resume:
            from cogit.training.refine_state import require_none

            require_none(self.checkpoint)
        require_effect(self, self.given)
        if self.plot is not None and not (self.auto or self.refine):
            message = "[plot] expected --auto or --refine, got a fit without a choice or a curve"
            raise ValueError(message)
        self._require_writable()

    def _require_writable(self) -> None:
        names = (*INPUTS, "model", "checkpoint")
        inputs = {name: getattr(self, name) for name in names}
        require_writable(self.outputs, inputs, force=self.force)

    def _require_numbers(self) -> None:
        """ValueError for numbers that no fit can have; those of the recipe were checked there."""
        if self.seed < 0:
            message = f"[fit] expected --seed of 0 or more, got {self.seed}"
            raise ValueError(message)
        if not math.isfinite(self.strength) or self.strength == 0.0:
            message = (
                f"[fit] expected a finite --lambda that changes something, got {self.strength:g}"
            )
            raise ValueError(message)
        budget = self.budget
        for name, value in (("nll", budget.target_nll), ("kl", budget.neutral_kl)):
            if math.isnan(value):
                message = f"[fit] expected --{name}-budget in nats per token, got {value}"
                raise ValueError(message)


@dataclass
class Outcome:
    """The intervention and what was found out about it; None where it could not be measured.

    undo: on held-out states, or those of the subspace where there are no others.
    control_strength: of the fits to shuffled classes. It differs from the intervention's where a
    refinement has the strength of its start in its matrix.
    """

    intervention: Intervention
    settings: dict[str, Any]
    splits: dict[str, int]
    flips: dict[int, FlipReport] = field(default_factory=dict)
    in_sample: dict[int, Any] = field(default_factory=dict)
    undo: dict[int, UndoWays] = field(default_factory=dict)
    control_strength: float = 1.0
    score: Score | None = None
    shuffled_contrast: list[float] = field(default_factory=list)
    neutral_kl: float | None = None
    neutral: str | None = None
    transport: dict[int, Interval] = field(default_factory=dict)
    transport_on: str | None = None
    choice: Choice | None = None
    refined: Refined | None = None
    trained: Trained | None = None

    @property
    def opposite(self) -> Intervention | None:
        """The operator of the way back, where it is not the negative strength."""
        return None if self.trained is None else self.trained.back
