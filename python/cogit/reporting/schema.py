"""The report of an evaluation as data: format "cogit evaluation", version 1.

``docs/report.md`` and ``data/evaluation.schema.json`` are made from these classes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from cogit.reporting.schema_parts import (
    Arm,
    Comparison,
    Condition,
    Criterion,
    Dose,
    Intervention,
    LayerScore,
    Line,
    Name,
    Part,
    Power,
    Record,
    TokenView,
)

FORMAT = "cogit evaluation"
VERSION = 1
VerdictWord = Literal["effect", "effect beyond the budget", "no effect"]
ConditionName = Literal[
    "baseline", "learned_to_positive", "learned_to_negative", "random_a", "random_b"
]


class EvaluationReport(Part):
    """Everything that an evaluation found, with what was asked and what it was asked of."""

    format: Literal["cogit evaluation"] = Field(description='always "cogit evaluation"')
    format_version: Literal[1] = Field(description="1; another version is refused")
    title: Line = Field(description="heading of the report")
    backend: Name = Field(description="what ran the model")
    model: dict[str, JsonValue] = Field(description="identity of the model")
    intervention: Intervention = Field(description="what steered")
    settings: dict[str, JsonValue] = Field(
        description="everything in effect: seeds, sizes, judge, match, sampling, thresholds"
    )
    facts: dict[str, JsonValue] = Field(
        default_factory=dict, description="what was known of the operator before, by name"
    )
    arms: list[Arm] = Field(min_length=1, description="the operator beside every control")
    comparisons: list[Comparison] = Field(default_factory=list, description="pairs of arms")
    dose: dict[Name, Dose] = Field(default_factory=dict, description="dose-response, by arm")
    power: Power | None = Field(default=None, description="what could have been found")
    criteria: list[Criterion] = Field(default_factory=list, description="conditions")
    verdict: VerdictWord = Field(description="what the criteria add up to")
    reasons: list[Line] = Field(default_factory=list, description="why, in words")
    summary: dict[ConditionName, Condition] = Field(
        default_factory=dict, description="five conditions in short, by name"
    )
    records: list[Record] = Field(default_factory=list, description="continuations of prompts")
    neutral_summary: dict[Name, Condition] | None = Field(
        default=None, description="the same on neutral prompts, by condition or arm"
    )
    neutral_records: list[Record] = Field(
        default_factory=list, description="continuations of neutral prompts"
    )
    tokens: list[TokenView] = Field(default_factory=list, description="where the operator acts")
    layers: list[LayerScore] | None = Field(
        default=None, description="where the classes differ, by block"
    )
