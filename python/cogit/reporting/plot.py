"""What a plot shows, apart from how it is drawn: SVG and PNG are made from the same values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Style = Literal["line", "points", "bars"]


@dataclass(frozen=True)
class Point:
    """A value with its interval, where it has one. note: what it is, for a tooltip."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    hollow: bool = False

    @property
    def reach(self) -> tuple[float, float]:
        """Lowest and highest y."""
        low, high = (self.y if end is None else end for end in (self.low, self.high))
        return min(low, self.y), max(high, self.y)


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    role: decides colour and marker. For bars, ``y`` is the top, ``low`` the foot, ``width`` that of
    a bar.
    """

    label: str
    role: str
    points: tuple[Point, ...]
    style: Style = "points"
    width: float = 0.0


@dataclass(frozen=True)
class Mark:
    """A value on the x axis, as a vertical line with a band."""

    label: str
    role: str
    x: float
    low: float
    high: float


@dataclass(frozen=True)
class Plot:
    """One picture.

    name: for files and anchors. text: what a reader who does not see it should know.
    x_zero: whether a line is drawn there. y_zero: where a line is drawn. x_range, y_range: of the
    axes, where they are known beforehand.
    """

    name: str
    title: str
    text: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    x_zero: bool = False
    y_zero: float | None = None
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    whole_x: bool = False

    def xs(self) -> Iterator[float]:
        for series in self.series:
            for point in series.points:
                yield from (point.x - series.width / 2, point.x + series.width / 2)
        for mark in self.marks:
            yield from (mark.low, mark.x, mark.high)
        if self.x_zero:
            yield 0.0

    def ys(self) -> Iterator[float]:
        for series in self.series:
            for point in series.points:
                yield from point.reach
        if self.y_zero is not None:
            yield self.y_zero
