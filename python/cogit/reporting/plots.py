"""The plots of one report, as values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cogit.reporting import numbers
from cogit.reporting.groups import WORDS, Group, groups_of
from cogit.reporting.plot import Mark, Plot, Point, Series
from cogit.reporting.schema import EvaluationReport
from cogit.reporting.schema_parts import Arm, Dose, Interval

_MOST_POINTS = 400  # of one series; the tables of the JSON have all
_BINS = 12
_IN_HISTOGRAM = ("random", "random_same_subspace", "diagonal")
_MARKED = ("learned", "additive")


def all_plots(report: EvaluationReport) -> list[Plot]:
    """Every plot for which the report holds values."""
    made = (
        effect_plot(report),
        histogram(report),
        dose_plot(report),
        dose_cost_plot(report),
        layer_plot(report),
    )
    return [plot for plot in made if plot is not None]


def dose_plot(report: EvaluationReport) -> Plot | None:
    """Share judged positive over the strength, with the band of its interval."""
    series = []
    said = []
    for name, dose in _doses(report):
        points = tuple(
            Point(
                p.strength,
                100 * p.share_positive,
                None if p.low is None else 100 * p.low,
                None if p.high is None else 100 * p.high,
                f"{name} at {numbers.compact(p.strength)}: {numbers.percent(p.share_positive)}",
            )
            for p in dose.points[:_MOST_POINTS]
        )
        series.append(Series(name, role_of(report, name), points, "line"))
        if dose.slope is not None:
            said.append(f"{name} {numbers.interval(dose.slope)} {dose.slope.unit}")
    if not series:
        return None
    slopes = f" Slope: {'; '.join(said)}." if said else ""
    return Plot(
        "dose_response",
        "Dose-response",
        f"Share of continuations judged positive, by strength; bands are 95 % intervals.{slopes}",
        "strength",
        "judged positive, %",
        tuple(series),
        x_zero=True,
        y_range=(0.0, 100.0),
    )


def dose_cost_plot(report: EvaluationReport) -> Plot | None:
    """What the same strengths cost."""
    series = []
    for name, dose in _doses(report):
        points = tuple(
            Point(
                p.strength,
                p.perplexity_ratio,
                note=f"{name}, {numbers.compact(p.strength)}: {numbers.ratio(p.perplexity_ratio)}",
            )
            for p in dose.points[:_MOST_POINTS]
            if p.perplexity_ratio is not None
        )
        if points:
            series.append(Series(name, role_of(report, name), points, "line"))
    if not series:
        return None
    return Plot(
        "dose_cost",
        "Cost of the dose",
        "Perplexity of the steered text under the unsteered model, over that of unsteered text.",
        "strength",
        "perplexity ratio",
        tuple(series),
        x_zero=True,
        y_zero=1.0,
    )


def effect_plot(report: EvaluationReport) -> Plot | None:
    """Lift against the divergence that it cost: every arm, and the cloud of random controls."""
    groups = [group for group in groups_of(report) if group.role != "baseline"]
    series = [s for group in groups if (s := _effect_series(group)).points]
    if not series:
        return None
    # Clouds first, so that the arms with intervals lie on top.
    series.sort(key=lambda s: s.role in _MARKED)
    return Plot(
        "effect_versus_kl",
        "Effect against cost",
        "Lift over the unsteered model against the divergence on neutral texts. An effect stands "
        "clear of the cloud of random controls at the same divergence.",
        "KL on neutral texts, nats per token",
        "lift, points",
        tuple(series),
        y_zero=0.0,
    )


def histogram(report: EvaluationReport) -> Plot | None:
    """Lifts of the random controls, with the learned arm marked."""
    groups = [g for g in groups_of(report) if g.role in _IN_HISTOGRAM and g.lifts() is not None]
    marks = tuple(
        _lift_mark(arm.role, lift)
        for arm in report.arms
        if arm.role in _MARKED and (lift := arm.lift_pp) is not None
    )
    lifts = {group.role: _means(group.arms) for group in groups}
    if not lifts:
        return None
    values = [value for part in lifts.values() for value in part]
    edges = _edges(min(values), max(values))
    series, feet = [], [0] * (len(edges) - 1)
    for role, part in lifts.items():
        counts = _counts(part, edges)
        bars = tuple(
            Point((a + b) / 2, float(foot + n), float(foot), note=_bar_note(role, n, a, b))
            for foot, n, a, b in zip(feet, counts, edges, edges[1:], strict=False)
            if n
        )
        feet = [foot + n for foot, n in zip(feet, counts, strict=True)]
        series.append(Series(WORDS[role], role, bars, "bars", edges[1] - edges[0]))
    above = [sum(v >= mark.x for v in values) for mark in marks[:1]]
    said = f" {above[0]} of {len(values)} reach the {WORDS[marks[0].role]} one." if above else ""
    return Plot(
        "random_lifts",
        "Random controls",
        f"Lifts of {len(values)} random operators, and of the learned one with its interval.{said}",
        "lift, points",
        "draws",
        tuple(series),
        marks,
        y_zero=0.0,
        y_range=(0.0, 1.08 * max(feet)),
    )


def layer_plot(report: EvaluationReport) -> Plot | None:
    """The separation of the classes by block; hollow where it could be chance."""
    rows = [row for row in report.layers or [] if row.gap is not None]
    if not rows:
        return None
    points = tuple(
        Point(
            float(row.layer),
            row.gap or 0.0,
            note=f"block {row.layer}: {numbers.compact(row.gap or 0.0)}, p {_layer_p(row.p)}",
            hollow=row.p is None or row.p > 0.05,
        )
        for row in rows[:_MOST_POINTS]
    )
    return Plot(
        "layers",
        "Separation by block",
        "How far the classes differ at each block; hollow where p is above 0.05 or unknown. It "
        "says where the classes differ, not where steering works.",
        "block",
        "separation",
        (Series("separation", "learned", points, "line"),),
        y_zero=0.0,
        whole_x=True,
    )


def role_of(report: EvaluationReport, name: str) -> str:
    """The role of the arm of that name, for its colour; ``source`` where there is none."""
    known = {arm.name: arm.role for arm in reversed(report.arms)}
    return known.get(name, name if name in WORDS else "source")


def _doses(report: EvaluationReport) -> list[tuple[str, Dose]]:
    return [(name, dose) for name, dose in report.dose.items() if dose.points]


def _effect_series(group: Group) -> Series:
    measured = [
        (arm, arm.neutral_kl, arm.lift_pp)
        for arm in group.arms[:_MOST_POINTS]
        if arm.neutral_kl is not None and arm.lift_pp is not None
    ]
    points = tuple(_effect_point(group, arm, kl, lift) for arm, kl, lift in measured)
    return Series(group.label, group.role, points)


def _effect_point(group: Group, arm: Arm, kl: float, lift: Interval) -> Point:
    which = group.label if arm.draw is None else f"{WORDS[group.role]}, draw {arm.draw}"
    note = f"{which}: lift {numbers.interval(lift)}, KL {numbers.divergence(kl)}"
    if group.pooled:
        return Point(kl, lift.mean, note=note)
    return Point(kl, lift.mean, lift.low, lift.high, note)


def _means(arms: Sequence[Arm]) -> list[float]:
    return [arm.lift_pp.mean for arm in arms if arm.lift_pp is not None]


def _lift_mark(role: str, lift: Interval) -> Mark:
    """The learned arm with its band; another one as a line, since bands would cover each other."""
    if role == "learned":
        return Mark(f"{WORDS[role]}, 95 %", role, lift.mean, lift.low, lift.high)
    return Mark(WORDS[role], role, lift.mean, lift.mean, lift.mean)


def _edges(low: float, high: float) -> list[float]:
    """Bin edges at round values; one of them is 0, so that no bin mixes the signs."""
    span = high - low
    if not math.isfinite(span) or span > 1e6:
        return [low, high]
    step = next((s for s in (0.5, 1.0, 2.0, 5.0, 10.0) if span / s <= _BINS), span / _BINS)
    first, last = math.floor(low / step), math.floor(high / step) + 1
    return [i * step for i in range(first, last + 1)]


def _counts(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    step = edges[1] - edges[0]
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(int((value - edges[0]) / step), len(counts) - 1)] += 1
    return counts


def _bar_note(role: str, n: int, low: float, high: float) -> str:
    return f"{WORDS[role]}: {n} between {numbers.signed(low)} and {numbers.signed(high)}"


def _layer_p(value: float | None) -> str:
    return numbers.shown(value, numbers.probability)
