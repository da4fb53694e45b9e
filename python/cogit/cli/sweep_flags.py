"""Flags of ``cogit sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Activations = Annotated[
    Path | None, typer.Option(help="Recorded states; instead of --pairs and a model.")
]
Pairs = Annotated[
    Path | None, typer.Option(help="Contrast pairs, recorded with the model at every block.")
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Folder or hub id (transformers), GGUF file (llamacpp); with --pairs.",
        show_default="COGIT_MODEL, else the demo model",
    ),
]
Layers = Annotated[
    str, typer.Option(help="Blocks, from 0, half-open: 24-32 is 24..31; 50%-75%; middle; all.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="New folder for sweep.json, sweep.md, sweep.png and recorded states; "
        "latest-sweep.json beside it then names it."
    ),
]
