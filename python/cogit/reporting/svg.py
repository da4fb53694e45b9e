"""Plots as SVG inside the page: colours by class, so that they follow light, dark and print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cogit.reporting.markup import Markup, element, join
from cogit.reporting.plot import Mark, Plot, Point, Series
from cogit.reporting.scales import Scale, label, reach

WIDTH, HEIGHT = 460.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 14.0, 12.0, 46.0
MARKERS = {
    "learned": "circle",
    "additive": "square",
    "random": "cross",
    "random_same_subspace": "plus",
    "diagonal": "star",
    "shuffled": "triangle",
    "prompt_only": "diamond",
    "prompt_and_steer": "diamond",
    "sign_flipped": "down",
}
"""Role to the shape of its marker; a small ring for the others."""
_PATHS = {
    "square": "M-4-4h8v8h-8z",
    "diamond": "M0-5.5 5.5 0 0 5.5-5.5 0z",
    "triangle": "M0-5 5 4h-10z",
    "down": "M0 5 5-4h-10z",
    "cross": "M-4-4 4 4M-4 4 4-4",
    "plus": "M-4.5 0h9M0-4.5v9",
    "star": "M-4 0h8M0-4v8M-3-3 3 3M-3 3 3-3",
}
_OPEN = {"cross", "plus", "star"}


def draw(plot: Plot) -> Markup:
    """The plot as one ``<svg role="img">`` with a name and a description."""
    x_low, x_high = plot.x_range or reach(plot.xs())
    y_low, y_high = plot.y_range or reach(plot.ys(), 0.08)
    x = Scale(x_low, x_high, _LEFT, WIDTH - _RIGHT)
    y = Scale(y_low, y_high, HEIGHT - _BOTTOM, _TOP)
    title, text = f"{plot.name}-title", f"{plot.name}-text"
    return element(
        "svg",
        element("title", plot.title, id=title),
        element("desc", plot.text, id=text),
        _axes(plot, x, y),
        join(_mark(mark, x, y) for mark in plot.marks),
        join(_series(series, x, y) for series in plot.series),
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_labelledby=f"{title} {text}",
        class_="plot",
    )


def swatch(role: str, style: str = "points") -> Markup:
    """The marker of a role, for a legend: with its line, or the colour of its bars."""
    if style == "bars":
        bar = element("rect", x=6, y=2, width=12, height=12, class_="bar")
        inner = element("g", bar, class_=f"s {role}")
        return element("svg", inner, viewBox="0 0 24 16", class_="swatch", aria_hidden="true")
    line = style == "line"
    stroke = element("line", x1=0, y1=8, x2=24, y2=8, class_="trace") if line else None
    inner = element("g", stroke, _marker(role, 12, 8), class_=f"s {role}")
    return element("svg", inner, viewBox="0 0 24 16", class_="swatch", aria_hidden="true")


def strip(low: float, mid: float, high: float, ends: tuple[float, float], role: str) -> Markup:
    """A small interval on a common axis, for a row of a table; a line at 0."""
    x = Scale(ends[0], ends[1], 4, 116)
    inner = [
        element("line", x1=x.at(0), y1=0, x2=x.at(0), y2=18, class_="zero"),
        element("line", x1=x.at(low), y1=9, x2=x.at(high), y2=9, class_="trace"),
        element("circle", cx=x.at(mid), cy=9, r=3.5, class_="dot"),
    ]
    return element(
        "svg",
        element("g", *inner, class_=f"s {role}"),
        viewBox="0 0 120 18",
        class_="strip",
        aria_hidden="true",
    )


def _axes(plot: Plot, x: Scale, y: Scale) -> Markup:
    """Grid, ticks, names of the axes and the lines at 0."""
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    middle, centre = (_TOP + bottom) / 2, (_LEFT + right) / 2
    turn = f"rotate(-90 13 {middle:g})"
    return join(
        [
            *_y_ticks(y, whole=plot.y_label == "draws"),
            *_x_ticks(x, bottom, whole=plot.whole_x),
            _level(bottom, "axis"),
            _upright(x.at(0), _TOP, bottom, "zero") if plot.x_zero else None,
            _level(y.at(plot.y_zero), "zero") if plot.y_zero is not None else None,
            element("text", plot.x_label, x=centre, y=HEIGHT - 8, class_="label mid"),
            element("text", plot.y_label, x=13, y=middle, transform=turn, class_="label mid"),
        ]
    )


def _y_ticks(y: Scale, *, whole: bool) -> Iterator[Markup]:
    ticks = y.ticks(5, whole=whole)
    for value, text in zip(ticks, _labels(ticks), strict=True):
        yield _level(y.at(value), "grid")
        yield element("text", text, x=_LEFT - 7, y=y.at(value) + 4, class_="tick end")


def _x_ticks(x: Scale, bottom: float, *, whole: bool) -> Iterator[Markup]:
    ticks = x.ticks(6, whole=whole)
    for value, text in zip(ticks, _labels(ticks), strict=True):
        yield _upright(x.at(value), bottom, bottom + 4, "axis")
        yield element("text", text, x=x.at(value), y=bottom + 18, class_="tick mid")


def _level(y: float, class_: str) -> Markup:
    return element("line", x1=_LEFT, y1=y, x2=WIDTH - _RIGHT, y2=y, class_=class_)


def _upright(x: float, top: float, bottom: float, class_: str) -> Markup:
    return element("line", x1=x, y1=top, x2=x, y2=bottom, class_=class_)


def _labels(ticks: list[float]) -> list[str]:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else max(abs(ticks[0]), 1.0) if ticks else 1.0
    return [label(value, step) for value in ticks]


def _series(series: Series, x: Scale, y: Scale) -> Markup:
    if series.style == "bars":
        return element(
            "g", *(_bar(p, series.width, x, y) for p in series.points), class_=_class(series)
        )
    parts: list[Markup] = []
    if series.style == "line":
        parts += [_band(series.points, x, y), _trace(series.points, x, y)]
    parts += [_point(series, point, x, y) for point in series.points]
    return element("g", *parts, class_=_class(series))


def _class(series: Series) -> str:
    return f"s {series.role} {series.style}"


def _band(points: Iterable[Point], x: Scale, y: Scale) -> Markup:
    known = [(p.x, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    if len(known) < 2:
        return Markup()
    upper = [f"{x.at(at):.2f},{y.at(high):.2f}" for at, _, high in known]
    lower = [f"{x.at(at):.2f},{y.at(low):.2f}" for at, low, _ in reversed(known)]
    return element("polygon", points=" ".join([*upper, *lower]), class_="band")


def _trace(points: Iterable[Point], x: Scale, y: Scale) -> Markup:
    places = " ".join(f"{x.at(p.x):.2f},{y.at(p.y):.2f}" for p in points)
    return element("polyline", points=places, class_="trace")


def _point(series: Series, point: Point, x: Scale, y: Scale) -> Markup:
    reach_line = None
    if series.style == "points" and point.low is not None and point.high is not None:
        at = x.at(point.x)
        reach_line = element(
            "line", x1=at, y1=y.at(point.low), x2=at, y2=y.at(point.high), class_="trace"
        )
    note = element("title", point.note) if point.note else None
    marker = _marker(series.role, x.at(point.x), y.at(point.y), hollow=point.hollow)
    return element("g", note, reach_line, marker)


def _bar(point: Point, width: float, x: Scale, y: Scale) -> Markup:
    left, right = x.at(point.x - width / 2), x.at(point.x + width / 2)
    top, foot = y.at(point.y), y.at(point.low or 0.0)
    note = element("title", point.note) if point.note else None
    return element(
        "rect",
        note,
        x=left + 0.75,
        y=top,
        width=max(right - left - 1.5, 1.0),
        height=max(foot - top, 0.0),
        class_="bar",
    )


def _mark(mark: Mark, x: Scale, y: Scale) -> Markup:
    at, low, high = x.at(mark.x), x.at(mark.low), x.at(mark.high)
    band = element(
        "rect", x=low, y=y.end, width=max(high - low, 0.0), height=y.start - y.end, class_="band"
    )
    line = element("line", x1=at, y1=y.end, x2=at, y2=y.start, class_="trace")
    return element("g", element("title", mark.label), band, line, class_=f"s {mark.role} mark")


def _marker(role: str, x: float, y: float, *, hollow: bool = False) -> Markup:
    shape = MARKERS.get(role, "ring")
    kind = "open" if shape in _OPEN else "hollow" if hollow or shape == "ring" else "dot"
    if shape in ("circle", "ring"):
        return element("circle", cx=x, cy=y, r=4 if shape == "circle" else 3.2, class_=kind)
    place = f"translate({x:.2f} {y:.2f})"
    return element("path", d=_PATHS[shape], transform=place, class_=kind)
