"""Every control at the learned arm's cost, on texts that are used for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cogit.evaluation.arms import MATCHED, Arm
from cogit.evaluation.matching import find_factor, turn_limit
from cogit.evaluation.neutral import NeutralTexts
from cogit.progress import track

if TYPE_CHECKING:
    from cogit.backends.base import Backend

# KL grows about with the square of a strength, displacement about with the strength.
POWERS = {"kl": 2.0, "displacement": 1.0}


def matched_arms(
    backend: Backend, arms: Sequence[Arm], texts: Sequence[str], by: str, *, show: bool = True
) -> list[Arm]:
    """The arms with every control brought to the cost of the first learned one.

    by: kl or displacement, mean of both directions; ``none`` leaves the arms as they are. A control
    that cannot reach the cost stays, at the strength that comes nearest, and its ``match`` says so.
    """
    if by == "none":
        return list(arms)
    learned = next(arm for arm in arms if arm.role == "learned")
    assert learned.towards is not None
    neutral = NeutralTexts(backend, texts, learned.towards[1].layers)
    target = arm_cost(backend, neutral, learned, by)
    starts: dict[str, float] = {}
    found: list[Arm] = []
    for arm in track(arms, "matching controls", show=show):
        if arm.role not in MATCHED or arm.towards is None:
            found.append(arm)
            continue
        match = find_factor(
            _cost_at(backend, neutral, arm, by),
            target,
            by,
            limit=turn_limit(arm.towards),
            power=POWERS[by],
            # Draws of one control are alike: the last one's factor is near.
            start=starts.get(arm.role, 1.0),
        )
        starts[arm.role] = match.factor
        found.append(replace(arm.scaled(match.factor), match=match))
    return found


def arm_cost(backend: Backend, neutral: NeutralTexts, arm: Arm, by: str) -> float:
    """KL on neutral texts or displacement there, mean of both directions."""
    assert arm.towards is not None
    costs: list[float] = []
    for intervention in arm.towards.values():
        if by == "displacement":
            costs.append(neutral.displacement(intervention))
            continue
        with backend.steer(intervention, verify=False, control=True):
            costs.append(neutral.cost().kl)
    return float(np.mean(costs))


def _cost_at(
    backend: Backend, neutral: NeutralTexts, arm: Arm, by: str
) -> Callable[[float], float]:
    return lambda factor: arm_cost(backend, neutral, arm.scaled(factor), by)
