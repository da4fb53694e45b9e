"""The columns of the tables of arms: defined once, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cogit.reporting import numbers
from cogit.reporting.groups import Group, mean_of
from cogit.reporting.schema_parts import Arm, Interval

Measure = Callable[[Arm], float | None]


@dataclass(frozen=True)
class Column:
    """One measure of an arm.

    kind: ``effect``, ``cost`` or ``about``. meaning: one sentence for a reader.
    """

    label: str
    kind: str
    meaning: str
    measure: Measure
    form: numbers.Form
    interval: Callable[[Arm], Interval | None] | None = None

    def cell(self, group: Group) -> str:
        """The text of a cell; a dash where nothing was measured."""
        if group.pooled:
            return numbers.spread(group.spread(self.measure), self.form)
        if self.interval is not None:
            return numbers.interval(self.interval(group.first))
        return numbers.shown(self.measure(group.first), self.form)

    def value(self, group: Group) -> float | None:
        """What the cell is sorted by."""
        found = group.spread(self.measure)
        return None if found is None else found.mean


def _interval(
    label: str, kind: str, meaning: str, read: Callable[[Arm], Interval | None]
) -> Column:
    return Column(label, kind, meaning, lambda arm: mean_of(read(arm)), numbers.points, read)


MAIN = (
    Column(
        "success",
        "effect",
        "Share of open prompts continued in the target's sense, both directions.",
        lambda arm: arm.success,
        numbers.percent,
    ),
    _interval(
        "lift, points",
        "effect",
        "Success minus that of the unsteered model on the same prompts and seeds.",
        lambda arm: arm.lift_pp,
    ),
    _interval(
        "override, points",
        "effect",
        "The same on prompts whose context says the opposite.",
        lambda arm: arm.override_pp,
    ),
    Column(
        "p, Holm",
        "effect",
        "Permutation p-value of the lift, corrected over the arms.",
        lambda arm: arm.p_holm,
        numbers.probability,
    ),
    Column(
        "anti-steered",
        "effect",
        "Share of prompts moved away from the target.",
        lambda arm: arm.anti_steered,
        numbers.percent,
    ),
    Column(
        "perplexity ratio",
        "cost",
        "Perplexity of the text under the unsteered model, over that of unsteered text.",
        lambda arm: arm.perplexity_ratio,
        numbers.ratio,
    ),
    Column(
        "neutral KL",
        "cost",
        "Divergence from the unsteered model on neutral texts, nats per token.",
        lambda arm: arm.neutral_kl,
        numbers.divergence,
    ),
    _interval(
        "drift, points",
        "cost",
        "Change of the judged share on neutral prompts.",
        lambda arm: arm.drift_pp,
    ),
    Column(
        "repetition",
        "cost",
        "Share of repeats.",
        lambda arm: arm.repetition,
        numbers.ratio,
    ),
)
MORE = (
    Column("strength", "about", "As applied.", lambda arm: arm.strength, numbers.compact),
    Column(
        "positive when +",
        "effect",
        "Share judged positive when steered to the positive class.",
        lambda arm: arm.positive_rate.get("+1"),
        numbers.percent,
    ),
    Column(
        "positive when −",
        "effect",
        "Share judged positive when steered to the negative class.",
        lambda arm: arm.positive_rate.get("-1"),
        numbers.percent,
    ),
    Column("score", "effect", "Mean judge score.", lambda arm: arm.score, numbers.ratio),
    Column("p", "effect", "Permutation p-value.", lambda arm: arm.p, numbers.probability),
    Column(
        "McNemar p",
        "effect",
        "McNemar's exact p-value.",
        lambda arm: arm.mcnemar_p,
        numbers.probability,
    ),
    Column(
        "Cohen h", "effect", "Effect size of two shares.", lambda arm: arm.cohen_h, numbers.compact
    ),
    Column(
        "perplexity",
        "cost",
        "Of the text, under the unsteered model.",
        lambda arm: arm.perplexity,
        numbers.compact,
    ),
    Column(
        "text KL",
        "cost",
        "Divergence along generated texts, nats per token.",
        lambda arm: arm.text_kl,
        numbers.divergence,
    ),
    Column(
        "relevance",
        "cost",
        "Text beside prompt.",
        lambda arm: arm.relevance,
        numbers.ratio,
    ),
    Column(
        "capability",
        "cost",
        "Next-token accuracy on neutral texts over the unsteered one.",
        lambda arm: arm.capability,
        numbers.ratio,
    ),
    Column(
        "displacement",
        "cost",
        "Mean relative change of the steered states.",
        lambda arm: arm.displacement,
        numbers.ratio,
    ),
    Column(
        "match reached",
        "about",
        "KL or displacement after matching, on calibration prompts.",
        lambda arm: None if arm.match is None else arm.match.reached,
        numbers.compact,
    ),
)


def used(columns: Sequence[Column], groups: Sequence[Group]) -> list[Column]:
    """The columns in which anything was measured."""
    return [column for column in columns if any(column.value(g) is not None for g in groups)]
