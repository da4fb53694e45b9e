"""A plot on the page: title, what it says, picture, legend, and its numbers as a table."""

from __future__ import annotations

from cogit.reporting import numbers
from cogit.reporting.groups import WORDS
from cogit.reporting.markup import Markup, cut, element
from cogit.reporting.plot import Plot, Series
from cogit.reporting.svg import draw, swatch
from cogit.reporting.tables import Cell, frame, heads, row

_MOST = 150
_LABEL = 80


def figure(plot: Plot) -> Markup:
    """The plot with its legend and its numbers."""
    caption = element("figcaption", element("h3", plot.title), element("p", plot.text))
    return element("figure", caption, draw(plot), _legend(plot), _numbers(plot), id=plot.name)


def _legend(plot: Plot) -> Markup:
    entries = [(s.label, s.role, str(s.style)) for s in plot.series]
    entries += [(mark.label, mark.role, "line") for mark in plot.marks]
    order = list(WORDS)
    entries.sort(key=lambda entry: order.index(entry[1]))
    if len(entries) == 1:
        return Markup()
    items = (
        element("li", swatch(role, style), cut(label, _LABEL)) for label, role, style in entries
    )
    return element("ul", *items, class_="legend", aria_label="Legend")


def _numbers(plot: Plot) -> Markup:
    """What a reader who cannot see the picture reads instead."""
    rows = [
        row(
            cut(series.label, _LABEL),
            Cell(numbers.compact(point.x), point.x),
            Cell(numbers.compact(_height(series, i)), point.y),
            Cell(_interval(series, i), number=False),
        )
        for series in plot.series
        for i, point in enumerate(series.points)
    ]
    left = f"; the first {_MOST} of {len(rows)}" if len(rows) > _MOST else ""
    label = ("series", plot.x_label, plot.y_label, "95 %")
    table = frame(f"Numbers of “{plot.title}”{left}", heads(label), rows[:_MOST])
    return element("details", element("summary", "Numbers of this plot"), table)


def _height(series: Series, i: int) -> float:
    point = series.points[i]
    return point.y - (point.low or 0.0) if series.style == "bars" else point.y


def _interval(series: Series, i: int) -> str:
    point = series.points[i]
    if series.style == "bars" or point.low is None or point.high is None:
        return numbers.MISSING
    return numbers.bounds(point.low, point.high, numbers.compact)
