"""Writing a report: everything is made before anything is written, the same bytes each time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cogit.artefact import write_bytes
from cogit.reporting.compare import compare_html, compare_markdown, named
from cogit.reporting.html import to_html
from cogit.reporting.load import check_report, encode
from cogit.reporting.markdown import to_markdown
from cogit.reporting.plots import dose_plot, effect_plot
from cogit.reporting.png import png
from cogit.reporting.schema import EvaluationReport

JSON_FILE = "report.json"
PAGE = "report.html"
COMPARISON_FILES = ("comparison.md", "comparison.html")


def write_report(folder: Path, data: Mapping[str, Any]) -> dict[str, Path]:
    """report.json, report.md, report.html, dose_response.png and effect_versus_kl.png.

    data: the report as JSON values, which report.json holds as they are. A picture is left out
    where nothing was measured for it. Returns the paths by name.

    Raises ValueError, before anything is written, for what is no report; OSError.
    """
    content = encode(data)
    report = check_report(data)
    return write_files(folder, {JSON_FILE: content, **render(report)})


def render(report: EvaluationReport) -> dict[str, bytes]:
    """What a report looks like, by file name: Markdown, page and pictures."""
    plots = [plot for plot in (dose_plot(report), effect_plot(report)) if plot is not None]
    pictures = {f"{plot.name}.png": png(plot) for plot in plots}
    return {
        "report.md": to_markdown(report, pictures=list(pictures)).encode(),
        PAGE: to_html(report).encode(),
        **pictures,
    }


def write_comparison(folder: Path, reports: Mapping[str, EvaluationReport]) -> dict[str, Path]:
    """comparison.md and comparison.html of two or more reports, by the names given to them."""
    return write_files(folder, render_comparison(reports))


def render_comparison(reports: Mapping[str, EvaluationReport]) -> dict[str, bytes]:
    """ValueError for fewer than two reports or more than eight."""
    made = (compare_markdown(reports), compare_html(reports))
    return {name: text.encode() for name, text in zip(COMPARISON_FILES, made, strict=True)}


def render_all(reports: Mapping[Path, EvaluationReport]) -> dict[str, bytes]:
    """One report by itself; several side by side, each called by what tells them apart."""
    if len(reports) == 1:
        return render(next(iter(reports.values())))
    return render_comparison(named(reports))


def write_files(folder: Path, files: Mapping[str, bytes]) -> dict[str, Path]:
    """All files into an existing folder."""
    for name, content in files.items():
        write_bytes(folder / name, content)
    return {name: folder / name for name in files}
