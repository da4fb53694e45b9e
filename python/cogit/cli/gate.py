"""``cogit gate``: an intervention that acts only where a condition holds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogit.cli import flags, gate_flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import (
    BackendChoice,
    Dtype,
    ModelSource,
    Runtime,
    describe_runtime,
    display_name,
    open_model,
)
from cogit.cli.memory_flags import CheckMemory, Yes
from cogit.cli.outputs import Force, Inputs, require_writable
from cogit.cli.run_record import RunRecord, begin
from cogit.text_files import read_lines

if TYPE_CHECKING:
    from cogit.gates import GateFit
    from cogit.intervention import Intervention

NAME = "gate"


class GateKind(StrEnum):
    similarity = "similarity"
    learned = "learned"


class MeasureChoice(StrEnum):
    cosine = "cosine"
    projection = "projection"


class ScopeChoice(StrEnum):
    token = "token"
    prompt = "prompt"


def command(
    intervention: Annotated[Path, typer.Option(help="Intervention file to gate.")],
    on: Annotated[Path, typer.Option(help="Texts with the condition, one a line.")],
    off: Annotated[Path, typer.Option(help="Texts without it, one a line.")],
    out: Annotated[Path, typer.Option(help="Where to write the gated intervention.")],
    model: gate_flags.Model = None,
    kind: Annotated[
        GateKind,
        typer.Option(help="Similarity to a condition direction, or a logistic regression."),
    ] = GateKind.similarity,
    measure: Annotated[
        MeasureChoice | None,
        typer.Option(help="What a similarity gate compares.", show_default="cosine"),
    ] = None,
    smooth: gate_flags.Smooth = False,
    max_false_positive: gate_flags.MaxFalsePositive = None,
    scope: Annotated[
        ScopeChoice,
        typer.Option(help="Decide for each token, or once for a sequence by its prompt."),
    ] = ScopeChoice.token,
    coordinates: gate_flags.Coordinates = None,
    held_out: Annotated[float, typer.Option(help="Share of the texts kept for the rates.")] = 1 / 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split of the texts.")] = 0,
    allow_chance: gate_flags.AllowChance = False,
    device: flags.Device = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Precision of the model.")] = Dtype.f32,
    threads: flags.BothThreads = None,
    force: Force = False,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: flags.Json = False,
) -> None:
    """Fit a gate to texts of two conditions and write the intervention behind it.

    The gate reads each token's residual stream at the block of the operator. Where it is closed the
    token's state stays bit for bit; where it opens the operator acts. A block whose held-out texts
    cannot be told apart is refused.
    """
    options: dict[str, Any] = {
        "scope": scope.value,
        "held_out": held_out,
        "seed": seed,
        "allow_chance": allow_chance,
    }
    if kind is GateKind.learned:
        _refuse_flags(kind, measure=measure, smooth=smooth, max_false_positive=max_false_positive)
        options |= {} if coordinates is None else {"n_coordinates": coordinates}
    else:
        _refuse_flags(kind, coordinates=coordinates)
        options |= {"smooth": smooth, "max_false_positive": max_false_positive}
        options["measure"] = (measure or MeasureChoice.cosine).value
    request = _Request(intervention, on, off, out, kind, options)
    source = ModelSource.choose(BackendChoice.transformers, model)
    inputs: Inputs = {"intervention": intervention, **request.texts, "model": source.path}
    require_writable({"out": out}, inputs, force=force)
    run = begin({"out": out}, inputs, force=force)
    runtime = Runtime(device, dtype, threads, assume_yes=yes, check_memory=memory_check)
    _execute(request, source, runtime, run, json_output=json_output)


@dataclass(frozen=True)
class _Request:
    """The files of one call and the options of the fit."""

    intervention: Path
    on: Path
    off: Path
    out: Path
    kind: GateKind
    options: dict[str, Any]

    @property
    def texts(self) -> dict[str, Path]:
        return {"on": self.on, "off": self.off}


def _execute(
    request: _Request,
    source: ModelSource,
    runtime: Runtime,
    run: RunRecord,
    *,
    json_output: bool,
) -> None:
    """Read, fit, write, report."""
    on, off = (read_lines(file, name, "a text") for name, file in request.texts.items())

    from cogit.gates import fit_learned_gate, fit_similarity_gate
    from cogit.gating import fit_gates
    from cogit.intervention import Intervention
    from cogit.layers import describe_blocks

    stored = Intervention.load(request.intervention)
    if stored.gates:
        blocks = describe_blocks(stored.gates)
        say("gate", f"{request.intervention} has one at {blocks} already, which is replaced")
    chosen = fit_learned_gate if request.kind is GateKind.learned else fit_similarity_gate
    fit = partial(chosen, **request.options)
    with open_model(BackendChoice.transformers, source.path, runtime) as backend:
        running = describe_runtime(backend, runtime)
        say("model", f"{display_name(source)} ({source.origin}), {running['dtype']}")
        say("intervention", f"{request.intervention}: {stored.describe()}")
        say("texts", f"{len(on)} with the condition, {len(off)} without")
        gated, fits = fit_gates(backend, stored, on, off, fit=fit, show_progress=True)
        identity = backend.identity
    gated.save(request.out)
    run.finish()
    say("wrote", f"{request.out}: {gated.describe()}")
    say("llamacpp", "refuses files with gates; run this one with --backend transformers")
    if not json_output:
        _print_fits(gated, fits)
        return
    print_json(
        {
            "intervention": str(request.intervention),
            "out": str(request.out),
            "content_hash": gated.content_hash,
            "replaced_gates": sorted(stored.gates),
            "model": identity.to_json(),
            **running,
            "on": {"file": str(request.on), "texts": len(on)},
            "off": {"file": str(request.off), "texts": len(off)},
            "options": {"kind": request.kind.value, **request.options},
            "blocks": {str(block): found.to_json() for block, found in fits.items()},
        }
    )


def _print_fits(gated: Intervention, fits: dict[int, GateFit]) -> None:
    for block, found in fits.items():
        rates = found.held_out
        print(f"block {block}: {gated.gates[block].describe()}")
        print(f"  opens with the condition     {rates.true_positive}")
        print(f"  opens without it             {rates.false_positive}")
        print(f"  mean factor with, without    {rates.factor_on:.3f}, {rates.factor_off:.3f}")
        print(f"  accuracy                     {rates.accuracy}")
        print(f"  accuracy, shuffled labels    {found.chance}")
        print(f"  AUC (chance 0.5)             {rates.auc:.3f}, p {rates.auc_p:.3g}")
        if not found.decides:
            print("  DOES NOT TELL THE CONDITIONS APART")
    rates = next(iter(fits.values())).held_out
    print(
        f"shares of tokens of held-out texts ({rates.true_positive.n} with the condition, "
        f"{rates.false_positive.n} without); 95 % intervals over texts, of shuffled labels "
        f"the range"
    )


def _refuse_flags(kind: GateKind, **flags: Any) -> None:
    """ValueError for a flag that the kind cannot honour: none is ignored."""
    for name, value in flags.items():
        if value not in (None, False):
            flag = name.replace("_", "-")
            other = next(k for k in GateKind if k is not kind)
            message = (
                f"[{flag}] expected --{flag} with --kind {other.value} only, got {kind.value}; "
                f"leave it out"
            )
            raise ValueError(message)
