"""``cogit estimate``: what a run will need, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cogit.cli import flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import BackendChoice, Dtype, ModelSource, Runtime, display_name
from cogit.memory import Part

NAME = "estimate"


def command(
    backend: flags.Backend = BackendChoice.transformers,
    model: flags.Model = None,
    device: flags.Device = "auto",
    dtype: flags.Dtype = Dtype.f32,
    n_ctx: flags.Context = None,
    sequences: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 8,
    positions: Annotated[int, typer.Option(min=1, help="Tokens of the longest text.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=0, help="Tokens to generate.")] = 32,
    logit_rows: Annotated[
        int, typer.Option(min=0, help="Positions whose logits are kept at once.")
    ] = 0,
    recorded: Annotated[int, typer.Option(min=0, help="Texts whose states are recorded.")] = 0,
    rank: Annotated[int, typer.Option(min=0, help="Rank of folded operators.")] = 2,
    intervention: Annotated[
        Path | None, typer.Option(help="Intervention file: its operators instead of --rank.")
    ] = None,
    q: Annotated[
        int | None,
        typer.Option(
            "--q", min=1, help="Also train dense unitaries in C^q (fit --method born-adam)."
        ),
    ] = None,
    trainings: Annotated[
        int, typer.Option(min=1, help="With --q: both directions and their controls.")
    ] = 10,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Estimate the memory of a run from headers alone. Exits with 1 if it does not fit."""
    from cogit.devices import choose_device
    from cogit.memory_estimate import Workload, estimate_memory
    from cogit.memory_operators import born_parts, intervention_parts

    Runtime(device, dtype, n_ctx=n_ctx).require(backend)
    source = ModelSource.choose(backend, model)
    where = "cpu"
    if backend is BackendChoice.transformers:
        chosen = choose_device(device)
        where = chosen.name
        say("device", chosen.describe())
    say("model", f"{display_name(source)} ({source.origin}), nothing is loaded")
    parts: list[Part] = []
    if intervention is not None:
        from cogit.intervention import Intervention

        parts += intervention_parts(Intervention.load(intervention))
    if q is not None:
        parts += born_parts(_width(backend, source.path), q, trainings=trainings)
    work = Workload(
        sequences=sequences,
        positions=positions,
        generated=max_tokens,
        logit_rows=logit_rows,
        recorded=recorded,
        rank=rank,
        n_ctx=n_ctx,
        n_parallel=sequences,
    )
    estimate = estimate_memory(
        backend.value,
        source.path,
        dtype=dtype.value,
        device=where,
        workload=work,
        operators=parts,
    )
    if json_output:
        print_json({"backend": backend.value, "model": source.path, **estimate.to_json()})
    else:
        print(estimate.describe())
        print(f"{'fits' if estimate.fits else 'not known' if estimate.fits is None else 'TOO BIG'}")
    if estimate.fits is False:
        raise typer.Exit(1)


def _width(backend: BackendChoice, model: str) -> int:
    """d_model from the header; ValueError where it is not known."""
    from cogit.memory_gguf import describe_gguf
    from cogit.memory_model import describe_model

    if backend is BackendChoice.llamacpp:
        return describe_gguf(Path(model).expanduser()).shape.d_model
    described = describe_model(model, "f32")
    if described.shape is None:
        message = f"[memory] expected a model whose width is known with --q: {described.unknown}"
        raise ValueError(message)
    return described.shape.d_model
