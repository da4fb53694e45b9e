"""Several reports side by side: verdicts, effects, costs, controls, and plots on one axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cogit.reporting import columns, numbers
from cogit.reporting.columns import Column
from cogit.reporting.figures import figure
from cogit.reporting.groups import WORDS, Group, groups_of
from cogit.reporting.html import LOOKS, SIGNS, criterion_cell
from cogit.reporting.markdown import table, text
from cogit.reporting.markup import Markup, cut, element, join
from cogit.reporting.page import Section, page
from cogit.reporting.plot import Plot
from cogit.reporting.plots import all_plots
from cogit.reporting.scales import reach
from cogit.reporting.schema import EvaluationReport
from cogit.reporting.schema_parts import Criterion
from cogit.reporting.tables import Cell, frame, heads, row

MOST = 8
_NAME = 80
_SHOWN = ("success", "lift, points", "override, points", "perplexity ratio", "neutral KL")
_ALIKE = ("effect_versus_kl", "dose_response", "dose_cost", "layers")
Reports = Mapping[str, EvaluationReport]


def named(reports: Mapping[Path, EvaluationReport]) -> dict[str, EvaluationReport]:
    """The reports by the shortest of what tells them apart: backend, title, or path."""
    found = list(reports.values())
    choices = (
        [report.backend for report in found],
        [report.title for report in found],
        [str(path) for path in reports],
    )
    chosen = next(names for names in choices if len(set(names)) == len(found))
    return dict(zip(chosen, found, strict=True))


def compare_markdown(reports: Reports) -> str:
    """The comparison as Markdown."""
    _check(reports)
    lines = ["# Evaluations side by side", ""]
    verdicts = ((name, report.verdict, _why(report)) for name, report in reports.items())
    lines += [*table(("report", "verdict", "reason"), verdicts), ""]
    for column in _columns():
        rows = _rows(reports, column)
        if rows:
            lines += [f"## {text(column.label)}", "", text(column.meaning), ""]
            lines += [*table(("arm", *reports), rows), ""]
    lines += ["## Criteria", ""]
    rows = []
    for name in _criteria(reports):
        found = [{c.name: c for c in report.criteria}.get(name) for report in reports.values()]
        cells = ("" if c is None else _found(c) for c in found)
        rows.append((name, *cells))
    return "\n".join([*lines, *table(("criterion", *reports), rows), ""])


def compare_html(reports: Reports) -> str:
    """The comparison as one page."""
    _check(reports)
    tables = (_measure_table(reports, column) for column in _columns())
    plots = element("div", *(figure(plot) for plot in _plots(reports)), class_="figures")
    return page(
        "Evaluations side by side",
        "Comparison of steering evaluations",
        cut(", ".join(reports), 500),
        element("div", *map(_card, reports.items()), class_="cards"),
        [
            Section("arms", "Effect, cost and controls", join(tables)),
            Section("criteria", "Criteria", _criteria_table(reports)),
            Section("plots", "Plots", plots, "Plots of one kind have the same axes."),
        ],
    )


def _found(criterion: Criterion) -> str:
    word = {True: "holds", False: "FAILS", None: "not measured"}[criterion.holds]
    return f"{word}: {criterion.found or numbers.MISSING}"


def _check(reports: Reports) -> None:
    if not 2 <= len(reports) <= MOST:
        message = f"[report] expected 2 to {MOST} reports side by side, got {len(reports)}"
        raise ValueError(message)


def _columns() -> list[Column]:
    return [column for column in columns.MAIN if column.label in _SHOWN]


def _rows(reports: Reports, column: Column) -> list[tuple[str, ...]]:
    """One row a role, one cell a report; none where nothing was measured."""
    found = [_by_role(report) for report in reports.values()]
    if not any(column.value(group) is not None for part in found for group in part.values()):
        return []
    roles = [role for role in WORDS if any(role in part for part in found)]
    return [
        (WORDS[role], *(column.cell(part[role]) if role in part else "" for part in found))
        for role in roles
    ]


def _by_role(report: EvaluationReport) -> dict[str, Group]:
    """The first group of each role."""
    return {group.role: group for group in reversed(groups_of(report))}


def _measure_table(reports: Reports, column: Column) -> Markup:
    rows = (
        row(first, *(Cell(cell, number=False) for cell in rest))
        for first, *rest in _rows(reports, column)
    )
    caption = f"{column.label[0].upper()}{column.label[1:]}. {column.meaning}"
    return frame(caption, heads(("arm", *(cut(name, _NAME) for name in reports))), rows)


def _criteria(reports: Reports) -> list[str]:
    names = [c.name for report in reports.values() for c in report.criteria[:100]]
    return list(dict.fromkeys(names))


def _criteria_table(reports: Reports) -> Markup:
    found = [{c.name: c for c in report.criteria} for report in reports.values()]
    rows = (
        row(cut(name, 300), *(criterion_cell(part.get(name)) for part in found))
        for name in _criteria(reports)
    )
    labels = ("criterion", *(cut(name, _NAME) for name in reports))
    return frame("What holds where", heads(labels, (None, *["words"] * len(reports))), rows)


def _card(item: tuple[str, EvaluationReport]) -> Markup:
    name, report = item
    word = report.verdict
    return element(
        "div",
        element("p", cut(name, _NAME), class_="kicker"),
        element("h2", element("span", SIGNS[word], aria_hidden="true"), word),
        element("ul", element("li", cut(_why(report), 300))) if report.reasons else None,
        class_=f"verdict {LOOKS[word]}",
    )


def _why(report: EvaluationReport) -> str:
    return report.reasons[0] if report.reasons else ""


def _plots(reports: Reports) -> list[Plot]:
    """The plots of each kind together, with the ranges of all of them."""
    made: dict[str, list[Plot]] = {}
    for number, (name, report) in enumerate(reports.items()):
        for plot in all_plots(report):
            title = f"{plot.title}: {cut(name, _NAME)}"
            made.setdefault(plot.name, []).append(
                replace(plot, name=f"{plot.name}-{number}", title=title)
            )
    return [plot for kind in _ALIKE for plot in _on_one_axis(made.get(kind, []))]


def _on_one_axis(plots: Sequence[Plot]) -> list[Plot]:
    x_range = reach(x for plot in plots for x in plot.xs())
    y_range = reach((y for plot in plots for y in plot.ys()), 0.08)
    return [replace(plot, x_range=x_range, y_range=plot.y_range or y_range) for plot in plots]
