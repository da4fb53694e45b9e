"""A layer sweep for people: table, Markdown, and a plot of the scores with their null band."""

from __future__ import annotations

import json
from pathlib import Path

from cogit.artefact import write_bytes
from cogit.figures import image_bytes
from cogit.sweep_result import CAUTION, FILE_NAME, LayerScore, Sweep

HEADER = (
    "block",
    "d_z, 95 %",
    "accuracy",
    "d'",
    "p",
    "p family",
    "p Holm",
    "gap",
    "gap p",
    "source's word",
    "biased gap",
)


def rows_of(sweep: Sweep) -> list[tuple[str, ...]]:
    """The table's cells, one row a block; the best one carries a star."""
    return [_cells(layer, best=layer is sweep.best) for layer in sweep.layers]


def to_markdown(sweep: Sweep, plot: str | None = "sweep.png") -> str:
    """The sweep as a short Markdown page; ``plot`` is the file name of its picture."""
    lines = [HEADER, tuple("---" for _ in HEADER), *rows_of(sweep)]
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    notes = [
        f"{sweep.units}, {sweep.permutations} permutations, {sweep.folds} folds drawn "
        f"{sweep.repeats} times, seed {sweep.seed}, level {sweep.alpha:g}, states at "
        f"{sweep.hook_point}.",
        "d_z is the paired effect size of held-out projections on the mean difference, d' the same "
        "for single states. The gap is the pairwise fidelity within classes minus across, the "
        "word beside it that of an earlier system, and the biased gap that system's own, which "
        "is positive on noise.",
    ]
    picture = [] if plot is None else [f"![score by block]({plot})", ""]
    parts = ["# Layer sweep", "", f"Verdict: **{sweep.verdict}**", "", sweep.describe(), ""]
    return "\n".join([*parts, CAUTION, "", *table, "", *notes, "", *picture])


def plot_scores(sweep: Sweep, file_type: str = "png") -> bytes:
    """Score and interval by block over the band of swapped labels, with the family-wise threshold.

    file_type: png, svg or pdf. Returns the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    blocks = [layer.layer for layer in sweep.layers]
    scores = [layer.score for layer in sweep.layers]
    lowest, highest = zip(*(layer.null_band for layer in sweep.layers), strict=True)
    # The interval of a ratio can lie beside the ratio where pairs are few.
    below = [max(0.0, layer.score - layer.interval[0]) for layer in sweep.layers]
    above = [max(0.0, layer.interval[1] - layer.score) for layer in sweep.layers]
    axes.fill_between(blocks, lowest, highest, color="#cccccc", label="swapped labels, 90 %")
    axes.axhline(
        sweep.family_threshold,
        color="#777777",
        linestyle="--",
        label=f"highest block of swapped labels, {100 * (1 - sweep.alpha):g} %",
    )
    axes.errorbar(blocks, scores, yerr=[below, above], fmt="o-", color="#1b6ca8", label="held out")
    axes.set(xlabel="block", ylabel="d_z of held-out pairs", title=f"verdict: {sweep.verdict}")
    axes.legend(frameon=False, fontsize=8)
    return image_bytes(figure, file_type)


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """sweep.json, sweep.md and sweep.png into ``folder``, all made before any is written."""
    files = {
        FILE_NAME: json.dumps(sweep.to_json(), indent=2, allow_nan=False).encode() + b"\n",
        "sweep.md": to_markdown(sweep).encode(),
        "sweep.png": plot_scores(sweep),
    }
    for name, data in files.items():
        write_bytes(folder / name, data)


def _cells(layer: LayerScore, *, best: bool) -> tuple[str, ...]:
    low, high = layer.interval
    return (
        f"{layer.layer}{' *' if best else ''}",
        f"{layer.score:.2f} [{low:.2f}, {high:.2f}]",
        f"{100 * layer.accuracy:.0f} %",
        f"{layer.d_prime:.2f}",
        f"{layer.p_value:.2g}",
        f"{layer.p_family:.2g}",
        f"{layer.p_holm:.2g}",
        f"{100 * layer.gap:.2f} %",
        f"{layer.gap_p_value:.2g}",
        layer.rating,
        f"{100 * layer.biased_gap:.2f} %",
    )
