"""Flags of ``cogit quantised``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Pairs = Annotated[
    str,
    typer.Option(help="Contrast pairs that it was not fitted to, on which its effect is measured."),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Model folder or hub id, the reference in full precision.",
        show_default="COGIT_MODEL, else the demo model",
    ),
]
Gguf = Annotated[
    list[str] | None,
    typer.Option(
        help="GGUF file of the same model, or a type to make of its folder: q8_0, q4_k_m, "
        "f16, f32; repeatable.",
        show_default="q8_0, unless --bnb is given",
    ),
]
Neutral = Annotated[
    Path | None,
    typer.Option(
        help="Texts for cost, perplexity and timing, one a line.",
        show_default="packaged plain English sentences",
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        help="Prompts whose logits are compared, one a line.",
        show_default="what the texts of the pairs begin with",
    ),
]
MaxDegradation = Annotated[
    float, typer.Option(help="Share of the reference's effect by which it may differ.")
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="CPU threads.", show_default="the libraries' choice")
]
