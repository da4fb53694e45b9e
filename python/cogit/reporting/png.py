"""The same plots as PNG files, for places that take no HTML."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

from cogit.reporting.markup import cut, visible
from cogit.reporting.plot import Plot, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "learned": "#0b62a8",
    "additive": "#c2500a",
    "prompt_only": "#0a7d5c",
    "prompt_and_steer": "#0a7d5c",
    "shuffled": "#a3478b",
    "random_same_subspace": "#7a6a3f",
    "sign_flipped": "#8a5a12",
}
_GREY = "#6b7280"
_MARKERS = {
    "learned": "o",
    "additive": "s",
    "random": "x",
    "random_same_subspace": "+",
    "shuffled": "^",
    "prompt_only": "D",
    "prompt_and_steer": "D",
    "sign_flipped": "v",
}
_DPI = 120
_FEW = 3  # series whose names fit beside the points


def png(*plots: Plot) -> bytes:
    """Panels side by side, as the bytes of one PNG; the same bytes for the same plots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(plots), 4.2), layout="constrained")
    panels = figure.subplots(1, len(plots), squeeze=False)[0]
    for axis, plot in zip(panels, plots, strict=True):
        _draw(axis, plot)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; the page has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(stream, format="png", dpi=_DPI, metadata={"Software": None})
    return stream.getvalue()


def _draw(axis: Axes, plot: Plot) -> None:
    if plot.x_zero:
        axis.axvline(0, color="#cccccc", zorder=0)
    if plot.y_zero is not None:
        axis.axhline(plot.y_zero, color="#cccccc", zorder=0)
    for series in plot.series:
        _draw_series(axis, series)
    for text in ("top", "right"):
        axis.spines[text].set_visible(False)
    # A title of the file's is text, not the mathematics that a dollar sign would begin.
    for put, words in (
        (axis.set_title, plot.title),
        (axis.set_xlabel, plot.x_label),
        (axis.set_ylabel, plot.y_label),
    ):
        put(visible(words), parse_math=False)
    if plot.y_range is not None:
        low, high = plot.y_range
        axis.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    if len(plot.series) > _FEW:
        legend = axis.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    else:
        legend = axis.legend(frameon=False, fontsize=7)
    for entry in legend.get_texts():
        entry.set_parse_math(False)


def _draw_series(axis: Axes, series: Series) -> None:
    colour = COLOURS.get(series.role, _GREY)
    marker = _MARKERS.get(series.role, ".")
    # The space: a label that begins with an underscore is left out of a legend.
    name = f" {visible(cut(series.label, 60))}"
    xs, ys = [p.x for p in series.points], [p.y for p in series.points]
    known = [p for p in series.points if p.low is not None and p.high is not None]
    if series.style == "line":
        if len(known) > 1:
            at, low, high = ([getattr(p, part) for p in known] for part in ("x", "low", "high"))
            axis.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(xs, ys, marker=marker, color=colour, label=name)
        return
    axis.scatter(xs, ys, marker=marker, color=colour, label=name, s=26, zorder=3)
    for point in known:
        axis.vlines(point.x, *point.reach, color=colour, linewidth=1.4, zorder=2)
