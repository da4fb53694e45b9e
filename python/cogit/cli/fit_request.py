"""What was asked of ``cogit fit``, and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.cli.loading import BackendChoice, Runtime
from cogit.cli.outputs import require_writable

if TYPE_CHECKING:
    from cogit.autofit import Recipe
    from cogit.cli.fit_born import Trained
    from cogit.evaluation.statistics import Interval
    from cogit.evaluation.teacher_forced import Budget, Choice, Score
    from cogit.intervention import Intervention
    from cogit.layers import LayerRange
    from cogit.training.born_operator import BornSettings
    from cogit.training.flips import FlipReport
    from cogit.training.through_model import Refined


@dataclass(frozen=True)
class Request:
    """The flags of one call."""

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
        if self.pairs is None and (self.auto or self.refine):
            message = (
                f"[fit] expected --pairs with --auto or --refine, which run texts through a model, "
                f"got {given[0]}"
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
        if self.plot is not None and not (self.auto or self.refine):
            message = "[plot] expected --auto or --refine, got a fit without a choice or a curve"
            raise ValueError(message)
        self._require_writable()

    def _require_writable(self) -> None:
        names = ("pairs", "activations", "subspace", "model", "neutral", "checkpoint")
        require_writable(
            {"out": self.out, "out-opposite": self.out_opposite, "plot": self.plot},
            {name: getattr(self, name) for name in names},
            force=self.force,
        )


@dataclass
class Outcome:
    """The intervention and what was found out about it; None where it could not be measured."""

    intervention: Intervention
    settings: dict[str, Any]
    splits: dict[str, int]
    flips: dict[int, FlipReport] = field(default_factory=dict)
    in_sample: dict[int, Any] = field(default_factory=dict)
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
