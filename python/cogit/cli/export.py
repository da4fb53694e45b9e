"""``cogit export``: an intervention as a control vector or as plain vectors, for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cogit.cli.console import print_json, say
from cogit.cli.outputs import Force, Inputs, require_writable
from cogit.cli.run_record import begin

if TYPE_CHECKING:
    from cogit.interop.steering_vectors import Convention
    from cogit.interop.vectors import StrengthMode

NAME = "export"


class Format(StrEnum):
    gguf = "gguf"
    safetensors = "safetensors"


class StrengthChoice(StrEnum):
    folded = "folded"
    kept = "kept"


class ConventionChoice(StrEnum):
    block = "block"
    hidden_states = "hidden-states"


def command(
    intervention: Annotated[Path, typer.Argument(help="Intervention file that adds vectors.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="gguf: control vector of llama.cpp and repeng; safetensors: one tensor a layer.",
            show_default="the suffix of --out",
        ),
    ] = None,
    strength: Annotated[
        StrengthChoice,
        typer.Option(help="Fold the strength into the vectors, or keep it out of them."),
    ] = StrengthChoice.folded,
    every_token: Annotated[
        bool,
        typer.Option(
            "--every-token",
            help="Accept that the other tool steers the first token too (attention sink).",
        ),
    ] = False,
    convention: Annotated[
        ConventionChoice | None,
        typer.Option(
            help="What the numbers in a safetensors file mean: blocks, or indices of hidden_states "
            "(one more).",
            show_default="block",
        ),
    ] = None,
    force: Force = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write what an intervention adds at each block for other tools.

    Only what one vector a block can say: other operators, norm restores, gates and positions are
    refused by name, and so is block 0 for a control vector.
    """
    from cogit.interop import export_control_vector, export_vectors
    from cogit.intervention import Intervention
    from cogit.layers import describe_blocks

    kind = _format(out, format_)
    if kind is Format.gguf and convention is not None:
        message = (
            "[export] expected no --convention for a control vector, whose direction.i is block i, "
            f"got {convention.value}; leave it out"
        )
        raise ValueError(message)
    inputs: Inputs = {"INTERVENTION": intervention}
    require_writable({"out": out}, inputs, force=force)
    run = begin({"out": out}, inputs, force=force)
    loaded = Intervention.load(intervention)
    mode: StrengthMode = "folded" if strength is StrengthChoice.folded else "kept"
    counted = as_convention(convention or ConventionChoice.block)
    if kind is Format.gguf:
        export_control_vector(loaded, out, strength=mode, every_token=every_token)
    else:
        export_vectors(loaded, out, convention=counted, strength=mode, every_token=every_token)
    run.finish()
    if not loaded.positions.first_token:
        say("positions", "the other tool steers the first token too, this intervention does not")
    scale = 1.0 if strength is StrengthChoice.folded else loaded.strength
    if json_output:
        print_json(
            {
                "file": str(out),
                "format": kind.value,
                "bytes": out.stat().st_size,
                "blocks": list(loaded.layers),
                "convention": counted,
                "strength": loaded.strength,
                "strength_folded": strength is StrengthChoice.folded,
                "scale_to_apply": scale,
                "content_hash": loaded.content_hash,
            }
        )
        return
    print(f"{out}: {describe_blocks(loaded.layers)}, to be applied at scale {scale:g}")


def as_convention(choice: ConventionChoice) -> Convention:
    return "block" if choice is ConventionChoice.block else "hidden-states"


def _format(out: Path, given: Format | None) -> Format:
    if given is not None:
        return given
    try:
        return Format(out.suffix.removeprefix("."))
    except ValueError:
        message = (
            f"[export] expected --format or an --out that ends in .gguf or .safetensors, got {out}"
        )
        raise ValueError(message) from None
