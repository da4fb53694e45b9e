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
        # Draws of one control are alike: the last one's factor is near.
        start = starts.get(arm.role, 1.0)
        one = _matched(lambda arm: arm_cost(backend, neutral, arm, by), arm, target, by, start)
        if one.match is not None:
            starts[arm.role] = one.match.factor
        found.append(one)
    return found


def _matched(cost: Callable[[Arm], float], arm: Arm, target: float, by: str, start: float) -> Arm:
    """The arm at the target: by its strength up to the half turn, then by its amplitude.

    A rotation in a subspace that the model hardly uses reaches no cost by any angle. A quarter turn
    with a larger reference amplitude is still of its family, and is no weaker than what it
    controls.
    """
    assert arm.towards is not None
    limit = turn_limit(arm.towards)
    power = POWERS[by]
    match = find_factor(
        lambda factor: cost(arm.scaled(factor)), target, by, limit=limit, power=power, start=start
    )
    if match.exact or not match.reached < target or not arm.has_amplitude:
        return replace(arm.scaled(match.factor), match=match)
    quarter = arm.scaled(limit / 2)
    louder = find_factor(
        lambda factor: cost(quarter.amplified(factor)), target, by, power=power, start=2.0
    )
    match = replace(
        louder,
        factor=limit / 2,
        evaluations=match.evaluations + louder.evaluations,
        amplified=louder.factor,
    )
    return replace(quarter.amplified(louder.factor), match=match)


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
