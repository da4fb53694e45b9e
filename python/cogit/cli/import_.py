"""``cogit import``: other tools' steering vectors as an intervention."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cogit.cli.console import print_json, say
from cogit.cli.export import ConventionChoice, as_convention
from cogit.cli.outputs import Force, Inputs, require_writable
from cogit.cli.run_record import begin

if TYPE_CHECKING:
    from cogit.identity import ModelIdentity
    from cogit.intervention import Intervention
    from cogit.positions import Positions

NAME = "import"


def command(
    file: Annotated[
        Path,
        typer.Argument(help="Control-vector GGUF, or vectors: .safetensors, .npy, .npz, .pt."),
    ],
    out: Annotated[Path, typer.Option(help="Intervention file to write.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder or GGUF file that it will steer; only headers are read."),
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Intervention made on that model, instead of --model.")
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="Layers to take from the file, or where to put its one vector; half-open, such "
            "as 7 or 24-32, counted by the convention.",
            show_default="all of the file's",
        ),
    ] = None,
    convention: Annotated[
        ConventionChoice | None,
        typer.Option(
            help="What layer numbers mean: blocks, or indices of hidden_states (one more). Needed "
            "for vectors; a GGUF counts blocks."
        ),
    ] = None,
    strength: Annotated[float, typer.Option(help="Strength to save it with.")] = 1.0,
    positions: Annotated[
        str, typer.Option(help="Tokens to steer: all, prompt, generated, or a range a-b.")
    ] = "all",
    first_token: Annotated[
        bool,
        typer.Option(
            "--first-token/--no-first-token",
            help="Steer the first token too, as other tools do (attention sink).",
        ),
    ] = True,
    force: Force = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make an intervention file of a control vector or of plain vectors."""
    from cogit.positions import Positions

    tokens = Positions.parse(positions, first_token=first_token)
    inputs: Inputs = {"FILE": file, "model": model, "like": like}
    require_writable({"out": out}, inputs, force=force)
    run = begin({"out": out}, inputs, force=force)
    identity = _identity(model, like)
    made = _imported(file, identity, layer, convention, strength, tokens)
    made.save(out)
    run.finish()
    say("imported", f"{file.name}: {made.describe()}")
    if json_output:
        print_json(
            {
                "file": str(out),
                "blocks": list(made.layers),
                "norms": {str(b): _norm(made, b) for b in made.layers},
                "strength": made.strength,
                "positions": str(made.positions),
                "model": identity.to_json(),
                "lineage": dict(made.lineage),
                "content_hash": made.content_hash,
            }
        )
        return
    print(f"{out}: {made.describe()}")


def _identity(model: Path | None, like: Path | None) -> ModelIdentity:
    from cogit.inspection import model_identity
    from cogit.intervention import Intervention

    if (model is None) == (like is None):
        given = "neither" if model is None else "both"
        message = f"[import] expected one of --model and --like, got {given}"
        raise ValueError(message)
    if like is not None:
        return Intervention.load(like).identity
    assert model is not None
    return model_identity(model)


def _imported(
    file: Path,
    identity: ModelIdentity,
    layer: str | None,
    convention: ConventionChoice | None,
    strength: float,
    positions: Positions,
) -> Intervention:
    from cogit.interop import import_control_vector, import_vectors
    from cogit.layers import LayerRange

    chosen = None if layer is None else LayerRange.parse(layer)
    layers = None if chosen is None else chosen.blocks
    # They are the file's numbers, whose depth is no model's.
    if chosen is not None and (layers is None or chosen.shares):
        message = f"[import] expected layer numbers, got {layer!r}; leave --layer out for all"
        raise ValueError(message)
    if file.suffix.lower() == ".gguf":
        if convention is not None:
            message = (
                f"[import] expected no --convention for a control vector, whose direction.i is "
                f"block i, got {convention.value}; leave it out"
            )
            raise ValueError(message)
        return import_control_vector(
            file, identity, layers=layers, strength=strength, positions=positions
        )
    if convention is None:
        message = (
            f"[import] expected --convention block or hidden-states for {file}, got none: say what "
            f"its layer numbers mean"
        )
        raise ValueError(message)
    return import_vectors(
        file,
        identity,
        convention=as_convention(convention),
        layers=layers,
        strength=strength,
        positions=positions,
    )


def _norm(intervention: Intervention, block: int) -> float:
    import numpy as np

    return float(np.linalg.norm(intervention.at_strength(1.0).folds()[block].c.astype(np.float64)))
