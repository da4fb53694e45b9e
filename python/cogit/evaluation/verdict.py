"""The verdict: what has to hold before a report may speak of an effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cogit.evaluation.evaluate import ArmResult
from cogit.evaluation.statistics import Interval

MIN_LIFT = 10.0
MAX_PERPLEXITY_RATIO = 1.15
MAX_RANDOM_LIFT = 5.0
MIN_CONTROLS = 8


@dataclass(frozen=True)
class Criterion:
    """One condition with what was found."""

    name: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Verdict:
    """``effect`` only where every criterion holds; otherwise ``no effect`` and the reasons."""

    overall: str
    criteria: tuple[Criterion, ...]

    def to_json(self) -> dict[str, object]:
        return {"overall": self.overall, "criteria": [asdict(c) for c in self.criteria]}


def judge(
    learned: ArmResult,
    *,
    same_subspace: Sequence[ArmResult],
    random_subspace: Sequence[ArmResult],
    unchanged: Mapping[str, ArmResult],
) -> Verdict:
    """Hold a learned operator against its controls.

    same_subspace, random_subspace: at least eight draws each, since single draws do move text.
    unchanged: arms that must be exactly the plain model (identity, strength 0).
    """
    if min(len(same_subspace), len(random_subspace)) < MIN_CONTROLS:
        message = (
            f"[verdict] expected at least {MIN_CONTROLS} random controls of each kind, got "
            f"{len(same_subspace)} and {len(random_subspace)}"
        )
        raise ValueError(message)
    if not unchanged:
        message = "[verdict] expected at least one arm that must change nothing, got none"
        raise ValueError(message)
    lift = learned.lift
    strongest = max(arm.lift.mean for arm in same_subspace)
    elsewhere = float(np.mean([arm.lift.mean for arm in random_subspace]))
    exact = {name: _is_plain(arm) for name, arm in unchanged.items()}
    criteria = (
        Criterion(
            f"lift at least {MIN_LIFT:g} points, interval above 0",
            lift.mean >= MIN_LIFT and lift.low > 0,
            f"{lift.mean:+.1f} [{lift.low:.1f}, {lift.high:.1f}]",
        ),
        Criterion(
            f"perplexity ratio at most {MAX_PERPLEXITY_RATIO:g}",
            learned.perplexity_ratio <= MAX_PERPLEXITY_RATIO,
            f"{learned.perplexity_ratio:.3f}",
        ),
        Criterion(
            f"above all {len(same_subspace)} random operators of the same subspace and angles",
            lift.mean > strongest,
            f"strongest of them {strongest:+.1f}",
        ),
        Criterion(
            f"the operator in {len(random_subspace)} random subspaces: mean within "
            f"±{MAX_RANDOM_LIFT:g}",
            abs(elsewhere) <= MAX_RANDOM_LIFT,
            f"{elsewhere:+.1f}",
        ),
        Criterion(
            "identity and strength 0 change nothing at all",
            all(exact.values()),
            ", ".join(f"{name} {'exact' if ok else 'CHANGED'}" for name, ok in exact.items()),
        ),
    )
    overall = "effect" if all(c.holds for c in criteria) else "no effect"
    return Verdict(overall, criteria)


def _is_plain(arm: ArmResult) -> bool:
    """No prompt judged otherwise and no logit moved on neutral text."""
    none = Interval(0.0, 0.0, 0.0)
    return arm.lift == none and arm.override == none and arm.neutral_kl == 0.0
