"""What an evaluation asks for: limits of the verdict (row Q52) and how much of everything is run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np

from cogit.sampling import SamplingOptions

Match = Literal["kl", "displacement", "none"]
DOSES = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
# Prompts that each preset of sizes wants; n1000 is the large alternative of row Q52.
SIZES = {"quick": 24, "standard": 72, "n1000": 1000}
# 1 / (n + 1) < 0.05 needs twenty draws: with fewer no operator can stand out from them.
RANK_DRAWS = 20


@dataclass(frozen=True)
class Thresholds:
    """Limits of the verdict.

    lift_pp, drift_pp: percentage points. separation: relative gap of the classes, fidelity: overlap
    with the target class, both shown and never deciding. perplexity_ratio: of generated text under
    the unsteered model, over that of unsteered text. relevance: share of continuations likelier
    after their own prompt than after another. capability: next-token accuracy on neutral texts over
    that of the unsteered model. level: of every test.
    """

    lift_pp: float = 10.0
    drift_pp: float = 3.0
    separation: float = 0.05
    fidelity: float = 0.95
    perplexity_ratio: float = 1.5
    relevance: float = 0.7
    capability: float = 0.95
    level: float = 0.05

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not (np.isfinite(value) and value > 0):
                message = f"[thresholds] expected {one.name} above zero, got {value}"
                raise ValueError(message)
        if self.level >= 1:
            message = f"[thresholds] expected a level below 1, got {self.level}"
            raise ValueError(message)


@dataclass(frozen=True)
class Settings:
    """How an evaluation is run.

    match: what every control is brought to, the KL on neutral calibration texts or the displacement
    of the residual stream there; ``none`` leaves all strengths as they are. seeds: replicates of
    every prompt. n_random, n_same_subspace: random operators elsewhere and in the learned one's own
    subspace. n_shuffled: at most so many of the subject's shuffled fits. sampling: its seed is
    replaced by each of ``seeds``. doses: multiples of the strength; none leaves the curve out.
    n_prompts: use at most so many test prompts. n_tests: how many arms or layers were tried on
    this test material in all, for Holm. each_block: test each block of an intervention over several
    alone. max_records: of one arm; the first three prompts of every minor arm are kept.
    """

    match: Match = "kl"
    seeds: tuple[int, ...] = (42, 43, 44, 45)
    n_random: int = RANK_DRAWS
    n_same_subspace: int = 8
    n_shuffled: int = 4
    sampling: SamplingOptions = field(default_factory=lambda: SamplingOptions(25, 1.0, 0))
    resamples: int = 2000
    doses: tuple[float, ...] = DOSES
    n_prompts: int | None = None
    n_tests: int = 1
    each_block: bool = True
    max_records: int | None = None
    seed: int = 0
    thresholds: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        if self.match not in get_args(Match):
            message = f"[evaluate] expected a match among {get_args(Match)}, got {self.match!r}"
            raise ValueError(message)
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "doses", tuple(float(dose) for dose in self.doses))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            message = f"[evaluate] expected distinct seeds from 0 on, got {self.seeds}"
            raise ValueError(message)
        if not np.isfinite(self.doses).all() or len(set(self.doses)) < len(self.doses):
            message = f"[evaluate] expected distinct finite doses, got {self.doses}"
            raise ValueError(message)
        counts = {"n_random": 0, "n_same_subspace": 0, "n_shuffled": 0, "seed": 0}
        counts |= {"resamples": 100, "n_prompts": 2, "n_tests": 1, "max_records": 0}
        for name, least in counts.items():
            value = getattr(self, name)
            if value is not None and value < least:
                message = f"[evaluate] expected {name} of at least {least}, got {value}"
                raise ValueError(message)

    @classmethod
    def quick(cls, **changes: Any) -> Settings:
        """One seed, 24 prompts, no curve: to look. Twenty draws stay, since a rank needs them."""
        chosen: dict[str, Any] = {
            "seeds": (42,),
            "n_same_subspace": 4,
            "n_shuffled": 2,
            "doses": (),
            "n_prompts": SIZES["quick"],
        }
        return cls(**(chosen | changes))

    @classmethod
    def of_size(cls, name: str, **changes: Any) -> Settings:
        """A preset of sizes by name, see ``SIZES``; ValueError for another."""
        if name not in SIZES:
            message = f"[evaluate] expected a size among {', '.join(SIZES)}, got {name!r}"
            raise ValueError(message)
        if name == "quick":
            return cls.quick(**changes)
        return cls(**({"n_prompts": SIZES[name]} | changes))

    def to_json(self) -> dict[str, Any]:
        """Everything effective, as the report tells it."""
        return asdict(self) | {"seeds": list(self.seeds), "doses": list(self.doses)}
