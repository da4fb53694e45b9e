"""Arms as rows: the draws of one random control are pooled, everything else stands alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cogit.reporting.numbers import Spread
from cogit.reporting.schema import EvaluationReport
from cogit.reporting.schema_parts import Arm, Interval

WORDS = {
    "baseline": "unsteered",
    "learned": "learned",
    "additive": "additive mean difference",
    "prompt_only": "prompt only",
    "prompt_and_steer": "prompt and steering",
    "source": "source method",
    "sign_flipped": "sign flipped",
    "shuffled": "shuffled labels",
    "random_same_subspace": "random, same subspace",
    "random": "random subspace",
    "diagonal": "random phases",
    "identity": "identity",
    "strength_zero": "strength 0",
}
"""Roles in the order of the tables, and in words."""
RANDOM = ("random", "random_same_subspace", "diagonal", "shuffled")
_ORDER = list(WORDS)


@dataclass(frozen=True)
class Group:
    """One row: an arm, or the draws of one control."""

    name: str
    role: str
    arms: tuple[Arm, ...]
    pooled: bool

    @property
    def label(self) -> str:
        """What the row is called; an arm that is not named after its role keeps its name."""
        words = WORDS[self.role]
        if self.pooled:
            draws = f"{len(self.arms)} draw{'s' if len(self.arms) != 1 else ''}"
            return f"{words} ({draws})"
        return words if self.name == self.role else f"{words}: {self.name}"

    @property
    def first(self) -> Arm:
        return self.arms[0]

    def spread(self, measure: Callable[[Arm], float | None]) -> Spread | None:
        """Mean and range over the draws."""
        return Spread.of(measure(arm) for arm in self.arms)

    def lifts(self) -> Spread | None:
        return self.spread(lambda arm: mean_of(arm.lift_pp))


def groups_of(report: EvaluationReport) -> list[Group]:
    """All arms, in the order of the roles; arms with a number of a draw are pooled by role."""
    found: dict[tuple[str, str | None, int], list[Arm]] = {}
    for number, arm in enumerate(report.arms):
        alone = (arm.role, arm.name, number)
        found.setdefault(alone if arm.draw is None else (arm.role, None, -1), []).append(arm)
    made = [
        Group(arms[0].name, role, tuple(arms), pooled=name is None)
        for (role, name, _), arms in found.items()
    ]
    return sorted(made, key=lambda group: _ORDER.index(group.role))


def arm_of(report: EvaluationReport, role: str) -> Arm | None:
    """The first arm of a role."""
    return next((arm for arm in report.arms if arm.role == role), None)


def mean_of(value: Interval | None) -> float | None:
    return None if value is None else value.mean
