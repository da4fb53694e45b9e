"""Flags that several commands share, each with its one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cogit.cli.loading import MODEL_VARIABLE, BackendChoice
from cogit.cli.loading import Dtype as DtypeChoice

DEMO_MODEL = f"{MODEL_VARIABLE}, else the demo model"

Backend = Annotated[BackendChoice, typer.Option("--backend", help="What runs the model.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Folder or hub id (transformers), GGUF file (llamacpp).",
        show_default=DEMO_MODEL,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[DtypeChoice, typer.Option("--dtype", help="Of the weights; transformers only.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads.", show_default="the library's choice"),
]
BothThreads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads.", show_default="the libraries' choice"),
]
Context = Annotated[
    int | None, typer.Option("--n-ctx", min=1, help="Context in tokens; llamacpp only.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
# Taken out of the command line before click reads it; this is its help text.
Config = Annotated[
    Path | None,
    typer.Option("--config", is_eager=True, help="TOML file of settings; see cogit config --help."),
]
