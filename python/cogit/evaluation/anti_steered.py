"""The prompts that steering moves the wrong way, which a mean effect hides."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation.statistics import differences
from cogit.intervals import wilson_interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_ROUNDING = 1e-12


@dataclass(frozen=True)
class AntiSteered:
    """How many prompts moved against the target, towards it, and not at all.

    share: of all prompts, with Wilson's interval at 95 %.
    """

    against: int
    towards: int
    unmoved: int
    share: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def anti_steered(steered: ArrayLike, plain: ArrayLike, target: ArrayLike = 1) -> AntiSteered:
    """The share of prompts whose mean score moved against the target (after Tan et al. 2024).

    steered, plain: scores, paired, (prompt,) or (prompt, replicate, ...). target: +1 or -1, or one
    for each value, of a shape that broadcasts to theirs, where replicates steer both ways. A
    prompt's replicates are averaged first: one unlucky text is not an anti-steered prompt. Even an
    operator that does nothing but add noise scores one half here.
    """
    moved = differences(steered, plain, "anti-steered")
    signs = np.asarray(target, dtype=np.float64)
    try:
        signs = np.broadcast_to(signs, moved.shape)
    except ValueError as error:
        message = f"[anti-steered] expected targets for {moved.shape}, got {signs.shape}"
        raise ValueError(message) from error
    if not np.isin(signs, (-1.0, 1.0)).all():
        message = "[anti-steered] expected targets of +1 and -1, got others"
        raise ValueError(message)
    gained = (signs * moved).reshape(len(moved), -1).mean(axis=1)
    against = int((gained < -_ROUNDING).sum())
    towards = int((gained > _ROUNDING).sum())
    share = against / len(gained)
    low, high = wilson_interval(share, len(gained))
    return AntiSteered(against, towards, len(gained) - against - towards, share, low, high)
