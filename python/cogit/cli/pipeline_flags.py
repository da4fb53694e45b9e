"""Flags of ``cogit pipeline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cogit.cli.loading import BackendChoice

Model = Annotated[
    str | None,
    typer.Option(
        help="Model folder, hub id or GGUF file.",
        show_default="the shipped demo model for tiny, else the preset's",
    ),
]
Backend = Annotated[BackendChoice, typer.Option(help="Where to run.")]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        help="Contrast pairs, as of cogit record; repeatable.",
        show_default="the demo grammar's or the packaged ones",
    ),
]
Prompts = Annotated[str | None, typer.Option(help="Open prompts, a third of them to calibrate on.")]
Judge = Annotated[
    str | None,
    typer.Option(
        help="vader, lexicon:FILE, classifier:MODEL, logits, api:URL or demo.",
        show_default="demo or vader; needed with --pairs",
    ),
]
Method = Annotated[str, typer.Option(help="plane, procrustes, direct, born, margin or born-adam.")]
Layers = Annotated[
    str | None, typer.Option(help="Candidate blocks, as 24-32 or 50%-75%.", show_default="all")
]
PresetLayers = Annotated[
    bool,
    typer.Option("--preset-layers", help="Only the preset's blocks, at their relative depth."),
]
Q = Annotated[
    int | None,
    typer.Option("--q", help="Of encoded states; born-adam.", show_default="in ratio to d"),
]
Epochs = Annotated[int | None, typer.Option(help="Of born-adam.", show_default="the preset's")]
PromptsPerClass = Annotated[
    int | None, typer.Option(help="Pairs to fit on.", show_default="the preset's")
]
Strength = Annotated[
    float | None,
    typer.Option(
        help="Multiple of the chosen strength; the blend of born-adam.", show_default="chosen"
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads.", show_default="the libraries' choice")
]
Phases = Annotated[
    str,
    typer.Option(help="Phases in a row, as record,fit; the ones before must be finished."),
]
Rate = Annotated[
    float | None, typer.Option(help="Cost of an hour on this machine.", show_default="no cost")
]
Log = Annotated[
    Path | None,
    typer.Option(
        help="Experiment log to append to.", show_default="EXPERIMENT_LOG.md beside --out"
    ),
]
RequireEffect = Annotated[
    bool, typer.Option("--require-effect", help='Exit with 1 on the verdict "no effect".')
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Use all finished phases of the same settings.")
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes", help="Do not ask: use phases of the last hour alone; try where memory may not do."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Make everything anew, over a run of other settings.")
]
