"""What a report says in rows of text: settings, comparisons, power, conditions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cogit.reporting import numbers
from cogit.reporting.markup import cut
from cogit.reporting.schema import EvaluationReport
from cogit.reporting.schema_parts import Condition

Row = tuple[str, ...]
MOST = 400
_DEPTH = 4
_LONG = 500


def flat(report: EvaluationReport) -> list[tuple[str, str]]:
    """Backend, model, intervention, settings and facts as dotted names with their values."""
    whole = report.model_dump(mode="json", include={"model", "intervention", "settings", "facts"})
    rows = [("backend", report.backend)]
    for part in ("model", "intervention", "settings", "facts"):
        rows += _flat(part, whole[part], _DEPTH)
    left = len(rows) - MOST
    return rows[:MOST] + ([("more", f"{left} lines, in report.json")] if left > 0 else [])


def comparison_rows(report: EvaluationReport) -> tuple[Row, list[Row]]:
    """Header and rows of the comparisons between arms."""
    header = ("arms", "lift, points", "override, points", "p", "McNemar p")
    rows: list[Row] = [
        (
            f"{c.one} minus {c.other}",
            numbers.interval(c.lift_pp),
            numbers.interval(c.override_pp),
            numbers.shown(c.p, numbers.probability),
            numbers.shown(c.mcnemar_p, numbers.probability),
        )
        for c in report.comparisons[:MOST]
    ]
    return header, rows


def power_rows(report: EvaluationReport) -> list[Row]:
    """What this number of prompts could have shown."""
    power = report.power
    if power is None:
        return []
    share, plain = numbers.percent, numbers.plain
    return [
        ("prompts", numbers.shown(power.n_prompts, numbers.compact)),
        ("judged differently, share", numbers.shown(power.discordance, share)),
        ("lift found with 80 % power, points", numbers.shown(power.detectable_pp, plain)),
        ("power for a lift at the threshold", numbers.shown(power.power_at_threshold, share)),
        ("prompts for 80 % power there", numbers.shown(power.n_for_80, numbers.compact)),
    ]


def condition_rows(report: EvaluationReport) -> tuple[Row, list[Row]]:
    """The five conditions, and the same on neutral prompts."""
    header = ("condition", "positive", "score", "perplexity", "lift over unsteered", "over random")
    rows = [_condition(name, found) for name, found in report.summary.items()]
    neutral = list((report.neutral_summary or {}).items())[:MOST]
    rows += [_condition(f"{name}, neutral prompts", found) for name, found in neutral]
    return header, rows


def _condition(name: str, found: Condition) -> Row:
    return (
        name.replace("_", " "),
        numbers.shown(found.positive_rate, numbers.percent),
        numbers.shown(found.avg_sentiment_score, lambda value: numbers.signed(value, 2)),
        numbers.shown(found.avg_perplexity, numbers.compact),
        _lift(found.lift_vs_baseline, found.lift_ci_vs_baseline),
        _lift(found.lift_vs_random, found.lift_ci_vs_random),
    )


def _lift(value: float | None, ends: list[float] | None) -> str:
    if value is None:
        return numbers.MISSING
    return numbers.points(value) + ("" if ends is None else f" {numbers.bounds(ends[0], ends[1])}")


def _flat(name: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Objects by their keys, as deep as ``depth``; what is deeper, and every list, as JSON."""
    if isinstance(value, Mapping) and value and depth:
        for key, part in value.items():
            yield from _flat(f"{name}.{key}", part, depth - 1)
        return
    if name == "intervention.operators" and isinstance(value, list):
        for number, part in enumerate(value):
            yield from _flat(f"{name}.{number}", part, depth - 1)
        return
    yield cut(name, _LONG), cut(_plain(value), _LONG)


def _plain(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(v, str | int | float) for v in value):
        return ", ".join(map(_plain, value)) or "none"
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
