"""The flags about memory that every command with a model has."""

from __future__ import annotations

from typing import Annotated

import typer

Yes = Annotated[
    bool, typer.Option("--yes", help="Go on where memory may not suffice, without asking.")
]
CheckMemory = Annotated[
    bool,
    typer.Option(
        "--memory-check/--no-memory-check",
        help="Estimate the memory before the model is loaded; refuse where it does not suffice.",
    ),
]
