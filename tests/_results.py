"""Made-up results of a whole evaluation, for the verdict and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cogit.evaluation.evaluate import ArmResult
from cogit.evaluation.statistics import Interval
from cogit.evaluation.verdict import Verdict, judge
from cogit.report import BackendReport, Report

ZERO = Interval(0.0, 0.0, 0.0)
PLAIN = ArmResult(
    name="unsteered",
    success=0.5,
    lift=ZERO,
    override_success=0.05,
    override=ZERO,
    perplexity_ratio=1.0,
    neutral_kl=0.0,
    repetition=0.0,
    hits_open=np.zeros((4, 2)),
    hits_opposite=np.zeros(4),
    examples=(),
)


def result(name: str, lift: float = 0.0, **changes: Any) -> ArmResult:
    """A steered arm with a lift whose interval is 6 points wide."""
    defaults: dict[str, Any] = {
        "lift": Interval(lift, lift - 3, lift + 3),
        "success": 0.5 + lift / 100,
        "override": Interval(2 * lift, 2 * lift - 8, 2 * lift + 8),
        "perplexity_ratio": 1.05,
        "neutral_kl": 0.01,
    }
    return replace(PLAIN, name=name, **(defaults | changes))


def arms() -> dict[str, ArmResult | Sequence[ArmResult]]:
    """The arms of the demo, with an effect."""
    return {
        "unsteered": PLAIN,
        "unitary": result("unitary", 38.25),
        "additive": result("additive", 31.5, neutral_kl=0.02),
        "identity": replace(PLAIN, name="identity"),
        "strength_zero": replace(PLAIN, name="strength_zero"),
        "source": result("source", 0.5),
        "random_same_subspace": [result("control", 2.0 * i - 9) for i in range(8)],
        "random_subspace": [result("control", 0.5 * i - 1.5) for i in range(8)],
    }


def verdict(**changes: Any) -> Verdict:
    """The verdict on those arms, some of them replaced."""
    made = {**arms(), **changes}
    return judge(
        made["unitary"],
        same_subspace=made["random_same_subspace"],
        random_subspace=made["random_subspace"],
        unchanged={name: made[name] for name in ("identity", "strength_zero")},
    )


def backend_report(**changes: Any) -> BackendReport:
    points = [(dose, 0.5 + 0.3 * dose) for dose in (-1.0, 0.0, 1.0)]
    return BackendReport(
        arms={**arms(), **changes},
        paired={"open": Interval(6.75, 2.0, 11.0), "override": Interval(13.5, 7.0, 20.0)},
        verdict=verdict(**changes),
        dose={"unitary": points, "additive": [(dose, 0.9 * share) for dose, share in points]},
    )


def report(backends: Mapping[str, BackendReport] | None = None) -> Report:
    return Report(
        title="made-up demo",
        backends=backends or {name: backend_report() for name in ("transformers", "llamacpp")},
        chosen={"unitary": {"layer": 2, "angle": 60.0}, "source": {"blend": 0.5}},
        samples=[{"prompt": "the soup was", "unsteered": "cold", "positive": "lovely"}],
        seconds=12.34,
    )
