"""One picture of a fit: what the choice was made from, and the curve of a refinement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.artefact import write_bytes
from cogit.figures import image_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cogit.evaluation.teacher_forced import Choice
    from cogit.training.through_model import Refined


def write_plot(path: Path, choice: Choice | None, refined: Refined | None) -> None:
    """Choice and curve as a .png, .svg or .pdf; ValueError where neither was made."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if choice is None and refined is None:
        message = "[plot] expected --auto or --refine, got a fit without a choice or a curve"
        raise ValueError(message)
    figure = Figure(figsize=(5.2 * ((choice is not None) + (refined is not None)), 3.8), dpi=120)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, (choice is not None) + (refined is not None), squeeze=False)[0]
    axes = list(panels)
    if choice is not None:
        _draw_choice(axes.pop(0), choice)
    if refined is not None:
        _draw_curve(axes.pop(0), refined.history)
    figure.tight_layout()
    write_bytes(path, image_bytes(figure, path.suffix))


def _draw_choice(axis: Axes, choice: Choice) -> None:
    layers = sorted({int(row["layer"]) for row in choice.table})
    for layer in layers:
        rows = [row for row in choice.table if row["layer"] == layer]
        axis.scatter(
            [row["target_nll_rise"] for row in rows],
            [row["contrast"] for row in rows],
            s=14,
            label=f"block {layer}",
        )
    axis.scatter(
        [choice.score.target_nll], [choice.score.contrast], s=90, facecolors="none", edgecolors="k"
    )
    axis.set_xlabel("rise of the target's NLL, nats a token")
    axis.set_ylabel("teacher-forced contrast, nats a pair")
    axis.set_title("choice")
    axis.legend(fontsize=7)


def _draw_curve(axis: Axes, history: tuple[dict[str, Any], ...]) -> None:
    steps = [row for row in history if "loss" in row]
    checks = [row for row in history if "effect" in row]
    axis.plot([row["step"] for row in steps], [row["loss"] for row in steps], lw=0.7, color="#777")
    axis.set_xlabel("step")
    axis.set_ylabel("training loss")
    other = axis.twinx()
    other.plot([row["step"] for row in checks], [row["effect"] for row in checks], "o-")
    other.set_ylabel("contrast at the budget, held out from training")
    axis.set_title("refinement")
