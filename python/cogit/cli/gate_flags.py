"""Flags of ``cogit gate``."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option(help="Model folder or hub id.", show_default="COGIT_MODEL, else the demo model"),
]
Smooth = Annotated[
    bool, typer.Option("--smooth", help="A similarity gate with a sigmoid, not a step.")
]
MaxFalsePositive = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Share of training tokens without the condition that may open a similarity gate.",
        show_default="the best trade against true positives",
    ),
]
Coordinates = Annotated[
    int | None,
    typer.Option(min=1, help="Coordinates of a learned gate.", show_default="8"),
]
AllowChance = Annotated[
    bool,
    typer.Option(
        "--allow-chance", help="Write the gate even if held-out texts do not bear it out."
    ),
]
