"""``cogit presets``: the named settings and what they cost."""

from __future__ import annotations

from typing import Annotated

import typer

from cogit.cli import flags
from cogit.cli.console import print_json
from cogit.presets import PRESETS, Preset, preset

NAME = "presets"


def command(
    name: Annotated[
        str | None, typer.Argument(help="Show this one alone.", show_default="all of them")
    ] = None,
    json_output: flags.Json = False,
) -> None:
    """List the named settings: model, dimensions, layers, schedule, stored numbers."""
    if name is not None:
        chosen = preset(name)
        if json_output:
            print_json(chosen.to_json())
        else:
            _print_one(chosen)
        return
    if json_output:
        print_json({"presets": {key: value.to_json() for key, value in PRESETS.items()}})
        return
    _print_row("preset", "model", "d", "q", "layers", "lr", "epochs", "batch", "prompts", "stored")
    for value in PRESETS.values():
        _print_row(
            value.name,
            value.model,
            f"{value.d_model}",
            f"{value.q}{'*' if value.lossy else ''}",
            _layers(value),
            f"{value.learning_rate:g}",
            f"{value.epochs}",
            f"{value.batch_size}",
            f"{value.prompts_per_class}",
            f"{value.free_parameters:,}",
        )
    print("* q < d: the encoding is lossy. stored: q², half of what two full squares hold.")


def _print_one(value: Preset) -> None:
    for key, fact in value.to_json().items():
        shown = ", ".join(map(str, fact)) if isinstance(fact, list) else fact
        print(f"{key.replace('_', ' '):<20}{shown}")


def _print_row(*cells: str) -> None:
    widths = (22, 30, 6, 7, 19, 8, 8, 7, 9, 12)
    print("".join(f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)).rstrip())


def _layers(value: Preset) -> str:
    return ",".join(map(str, value.layers))
