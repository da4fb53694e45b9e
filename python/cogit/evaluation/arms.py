"""An arm of an evaluation: what it is for, and what steers towards each sign."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from cogit.evaluation.matching import Matched
from cogit.evaluation.suite import SIGNS
from cogit.intervention import Intervention

Role = Literal[
    "baseline",
    "learned",
    "sign_flipped",
    "identity",
    "strength_zero",
    "additive",
    "shuffled",
    "random",
    "random_same_subspace",
    "diagonal",
    "prompt_only",
    "prompt_and_steer",
    "source",
]
# Draws of a control are many and need what the verdict and the plots use, no more.
DRAWS: tuple[Role, ...] = ("shuffled", "random", "random_same_subspace", "diagonal")
UNCHANGED: tuple[Role, ...] = ("identity", "strength_zero")
# Brought to the learned arm's cost on calibration texts.
MATCHED: tuple[Role, ...] = ("additive", *DRAWS)


@dataclass(frozen=True)
class Arm:
    """One way to steer.

    towards: the intervention of each target sign; None steers nothing. draw: the number of a draw.
    prompted: the suite's instruction stands before every prompt. match: how its strength was set.
    """

    name: str
    role: Role
    towards: Mapping[int, Intervention] | None = None
    draw: int | None = None
    prompted: bool = False
    match: Matched | None = None

    @property
    def control(self) -> bool:
        """Meant to change nothing."""
        return self.role in UNCHANGED

    @property
    def full(self) -> bool:
        """Whether drift, relevance, override and the like are measured too."""
        return self.role not in DRAWS

    @property
    def strength(self) -> float | None:
        """That of the way to +1; None where nothing steers."""
        return None if self.towards is None else self.towards[1].strength

    def scaled(self, factor: float) -> Arm:
        """All strengths times a factor above zero."""
        if self.towards is None or factor == 1.0:
            return self
        towards = {
            sign: chosen.at_strength(factor * chosen.strength)
            for sign, chosen in self.towards.items()
        }
        return replace(self, towards=towards)


def both_ways(forward: Intervention, back: Intervention | None = None) -> dict[int, Intervention]:
    """What steers to +1 and to -1; the way back is the negative strength unless it is given."""
    return {1: forward, -1: forward.at_strength(-forward.strength) if back is None else back}


def flipped(towards: Mapping[int, Intervention]) -> dict[int, Intervention]:
    """Each sign by the other one's intervention."""
    return {sign: towards[-sign] for sign in SIGNS}
