"""report.html: one report as a page."""

from __future__ import annotations

from collections.abc import Sequence

from cogit.reporting import columns, numbers
from cogit.reporting.facts import comparison_rows, condition_rows, flat, power_rows
from cogit.reporting.figures import figure
from cogit.reporting.groups import RANDOM, arm_of, groups_of
from cogit.reporting.markup import Child, Markup, cut, element, join
from cogit.reporting.page import Section, page
from cogit.reporting.plots import all_plots
from cogit.reporting.samples import records_browser, token_views
from cogit.reporting.schema import EvaluationReport
from cogit.reporting.schema_parts import Criterion
from cogit.reporting.tables import (
    Cell,
    arms_table,
    draws_table,
    frame,
    heads,
    row,
    text_table,
    words,
)

LOOKS = {"effect": "good", "effect beyond the budget": "warn", "no effect": "none"}
SIGNS = {"effect": "✓", "effect beyond the budget": "!", "no effect": "○"}
_LONG = 500


def to_html(report: EvaluationReport) -> str:
    """The whole report as one page of a bounded size, the same bytes for the same report."""
    what = f"{report.intervention.description} at {numbers.blocks(report.intervention.layers)}"
    model = report.model.get("name")
    named = f"{model}, " if isinstance(model, str) else ""
    return page(
        cut(report.title, _LONG),
        "Steering evaluation",
        cut(f"{what}; {named}{report.backend}", _LONG),
        join([verdict(report), _cards(report)]),
        _sections(report),
    )


def verdict(report: EvaluationReport) -> Markup:
    """The verdict with its reasons."""
    word = report.verdict
    reasons = [element("li", cut(reason, _LONG)) for reason in report.reasons[:20]]
    head = element("h2", element("span", SIGNS[word], aria_hidden="true"), word)
    return element(
        "div",
        element("p", "Verdict", class_="kicker"),
        head,
        element("ul", *reasons) if reasons else None,
        class_=f"verdict {LOOKS[word]}",
        id="verdict",
    )


def criterion_cell(criterion: Criterion | None) -> Cell:
    """Whether a condition holds, in words and colour."""
    if criterion is None:
        return words("")
    looks, said = {
        True: ("yes", "✓ holds"),
        False: ("no", "✗ fails"),
        None: ("unknown", "– not measured"),
    }[criterion.holds]
    return words(element("span", said, class_=looks))


def _sections(report: EvaluationReport) -> list[Section]:
    groups = groups_of(report)
    effect = join(
        [
            arms_table("Every arm beside its controls", groups, columns.MAIN),
            element(
                "p",
                "Intervals are 95 %, over prompts. Random controls: mean, and the lowest to the "
                "highest draw. The lifts are drawn on one axis with a line at 0.",
                class_="note",
            ),
            text_table("Arms against each other, on the same prompts", *comparison_rows(report)),
        ]
    )
    plots = element("div", *map(figure, all_plots(report)), class_="figures")
    more = join(
        [
            arms_table("Further measures", groups, columns.MORE),
            text_table("Five conditions in short", *condition_rows(report)),
            element("div", _power(report), class_="short"),
        ]
    )
    draws = draws_table("Each random draw by itself", groups)
    folded = element("details", element("summary", "All draws"), draws) if draws else Markup()
    return [
        Section("criteria", "Criteria", _criteria(report)),
        Section("arms", "Effect, cost and controls", effect),
        Section("plots", "Plots", plots if all_plots(report) else Markup()),
        Section("more", "Further measures and power", more),
        Section("tokens", "Where the operator acts", _tokens(report)),
        Section("samples", "Samples", _records(report)),
        Section("draws", "Every random draw", folded),
        Section("settings", "Settings and provenance", _settings(report)),
    ]


def _criteria(report: EvaluationReport) -> Markup:
    rows = (
        row(
            cut(c.name, _LONG),
            criterion_cell(c),
            words(cut(c.found or numbers.MISSING, _LONG)),
            words(cut(c.expected or numbers.MISSING, _LONG)),
            words("decides" if c.decides else "for information"),
        )
        for c in report.criteria[:100]
    )
    labels = ("criterion", "result", "found", "expected", "role")
    classes = (None, *["words"] * 4)
    return frame("What has to hold for the verdict", heads(labels, classes), rows)


def _cards(report: EvaluationReport) -> Markup:
    """Effect, control and cost of the learned operator at a glance."""
    learned, plain = arm_of(report, "learned"), arm_of(report, "baseline")
    if learned is None:
        return Markup()
    lift = learned.lift_pp
    effect = _card(
        "Effect",
        numbers.shown(None if lift is None else lift.mean, numbers.points),
        "points of lift" if lift is None else f"points {numbers.bounds(lift.low, lift.high)}",
        [
            ("success", numbers.shown(learned.success, numbers.percent)),
            ("unsteered", numbers.shown(plain.success if plain else None, numbers.percent)),
            ("override, points", numbers.interval(learned.override_pp)),
        ],
    )
    cost = _card(
        "Cost",
        numbers.shown(learned.perplexity_ratio, numbers.ratio),
        "perplexity ratio",
        [
            ("neutral KL, nats", numbers.shown(learned.neutral_kl, numbers.divergence)),
            ("neutral drift, points", numbers.interval(learned.drift_pp)),
            ("repetition", numbers.shown(learned.repetition, numbers.ratio)),
        ],
    )
    return element("div", effect, _control_card(report), cost, class_="cards")


def _control_card(report: EvaluationReport) -> Markup:
    learned, additive = arm_of(report, "learned"), arm_of(report, "additive")
    lifts = [
        arm.lift_pp.mean
        for arm in report.arms
        if arm.role in RANDOM and arm.role != "shuffled" and arm.lift_pp is not None
    ]
    found = numbers.Spread.of(lifts)
    lift = None if learned is None or learned.lift_pp is None else learned.lift_pp.mean
    reached = numbers.MISSING
    if lift is not None and lifts:
        reached = f"{sum(value >= lift for value in lifts)} of {len(lifts)}"
    rows = [
        ("reach the learned one", reached),
        ("p, Holm", numbers.shown(learned.p_holm if learned else None, numbers.probability)),
        ("additive, points", numbers.interval(additive.lift_pp if additive else None)),
    ]
    if found is None:
        return _card("Controls", numbers.MISSING, "no random draws", rows)
    span = f"({numbers.points(found.low)} … {numbers.points(found.high)})"
    small = f"points, {len(lifts)} random draws {span}"
    return _card("Controls", numbers.points(found.mean), small, rows)


def _card(title: str, big: str, small: str, rows: Sequence[tuple[str, str]]) -> Markup:
    pairs = [part for name, value in rows for part in (element("dt", name), element("dd", value))]
    number = element("p", big, " ", element("small", small), class_="big")
    return element("div", element("h3", title), number, element("dl", *pairs), class_="card")


def _power(report: EvaluationReport) -> Markup:
    return text_table("Power of this evaluation", ("measure", "value"), power_rows(report))


def _tokens(report: EvaluationReport) -> Markup:
    return token_views(report.tokens) if report.tokens else Markup()


def _records(report: EvaluationReport) -> Markup:
    parts: list[Child] = []
    if report.records:
        parts += [element("h3", "Open prompts"), records_browser(report.records)]
    if report.neutral_records:
        parts += [element("h3", "Neutral prompts"), records_browser(report.neutral_records)]
    return join(parts)


def _settings(report: EvaluationReport) -> Markup:
    rows = (
        row(element("code", name), Cell(value, class_="long", number=False))
        for name, value in flat(report)
    )
    return frame("What was run, with what", heads(("name", "value"), (None, "words")), rows)
