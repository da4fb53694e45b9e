"""``cogit reverse``: does an intervention come undone?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cogit.cli import flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import (
    BackendChoice,
    Dtype,
    ModelSource,
    Runtime,
    describe_runtime,
    open_model,
)
from cogit.cli.memory_flags import CheckMemory, Yes

if TYPE_CHECKING:
    from cogit.evaluation.reverse import LayerReversal, ReverseReport
    from cogit.evaluation.reverse_logits import LogitReversal
    from cogit.evaluation.statistics import Interval
    from cogit.evaluation.undo import Draws, Undo
    from cogit.pairs import ContrastPair

NAME = "reverse"


def command(
    intervention: Annotated[Path, typer.Option(help="Intervention file.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Model folder, hub id or GGUF file.",
            show_default="COGIT_MODEL, else the shipped demo model",
        ),
    ] = None,
    backend: Annotated[
        BackendChoice, typer.Option(help="Where to run.")
    ] = BackendChoice.transformers,
    pairs: Annotated[
        Path | None,
        typer.Option(help="Contrast pairs: their direction for the transport, and their fidelity."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Texts to measure on, one a line.", show_default="the texts of the pairs"
        ),
    ] = None,
    opposite: Annotated[
        Path | None,
        typer.Option(
            help="A second intervention that is meant to undo the first.",
            show_default="the same at the opposite strength",
        ),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Random operators of each control.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the random controls.")] = 0,
    device: Annotated[str, typer.Option(help="Device of transformers.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Precision of transformers.")] = Dtype.f32,
    threads: flags.BothThreads = None,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: flags.Json = False,
) -> None:
    """Measure how much of an intervention is left after undoing it, beside its controls.

    Undoing is tried by the operator's exact inverse and by the opposite strength, for each token
    and on the logits. Give --pairs, --prompts or both.
    """
    from cogit.activations import record
    from cogit.evaluation.reverse import reverse
    from cogit.intervention import Intervention
    from cogit.layers import LayerRange
    from cogit.pairs import load_pairs
    from cogit.text_files import read_lines

    if pairs is None and prompts is None:
        message = "[reverse] expected --pairs or --prompts, got neither; give texts to measure on"
        raise ValueError(message)
    stored = Intervention.load(intervention)
    other = None if opposite is None else Intervention.load(opposite)
    contrast = None if pairs is None else load_pairs(pairs)
    texts = _texts(contrast) if prompts is None else read_lines(prompts, "prompts", "a prompt")
    source = ModelSource.choose(backend, model)
    runtime = Runtime(device, dtype, threads, assume_yes=yes, check_memory=memory_check)
    with open_model(backend, source.path, runtime) as loaded:
        say("model", f"{source.path} ({source.origin})")
        say("intervention", stored.describe())
        stored.identity.require_same_shape(loaded.identity)
        blocks = LayerRange.of(stored.layers)
        activations = None if contrast is None else record(loaded, contrast, blocks)
        report = reverse(
            loaded,
            stored,
            texts,
            opposite=other,
            activations=activations,
            draws=draws,
            seed=seed,
            show_progress=True,
        )
        facts = describe_runtime(loaded, runtime)
    if json_output:
        print_json({"model": source.path, "backend": backend.value, **facts, **asdict(report)})
    else:
        _print(report)


def _texts(contrast: Sequence[ContrastPair] | None) -> list[str]:
    return [text for pair in contrast or () for text in pair.texts]


def _print(report: ReverseReport) -> None:
    print("undo ratio: what is left of the edit after undoing it; 0 undoes, 1 leaves as much")
    for layer in report.layers:
        _print_layer(layer)
    _print_logits(report.logits)


def _print_layer(layer: LayerReversal) -> None:
    print(f"block {layer.layer}, {layer.operator}")
    if layer.gate is not None:
        gate = layer.gate
        partly = f", {gate.n_partly} of them in part" if gate.n_partly else ""
        print(
            f"  {'gate':<28}open for {gate.n_open} of {gate.n_tokens} steered tokens{partly}; "
            f"{gate.gate}"
        )
    if layer.own_inverse is not None:
        extra = f", condition {layer.condition:.3g}"
        print(f"  {'own inverse':<28}{_undo(layer.own_inverse)}{extra}")
    else:
        print(f"  {'own inverse':<28}refused: {layer.own_inverse_refused}")
    print(f"  {'opposite':<28}{_undo(layer.opposite)}")
    print(f"  {'identity (control)':<28}{_undo(layer.identity)}")
    print(f"  {'shuffled (control)':<28}{_undo(layer.shuffled)}")
    for space, draws in layer.random.items():
        print(f"  {f'random, {space} (control)':<28}{_draws(draws)}")
    trip = layer.round_trip
    print(
        f"  {'round trip, ' + trip.space:<28}{trip.mean:.4f} ± {trip.std:.4f} over "
        f"{len(trip.fidelities)} states, identity {trip.identity:.4f}, shuffled "
        f"{trip.shuffled:.4f}: {trip.note}"
    )
    if layer.unitary is not None:
        facts = layer.unitary
        fidelity = "" if facts.fidelity is None else f", fidelity of pairs {facts.fidelity:.4f}"
        print(
            f"  {'unitary':<28}q {facts.q}, deviation {facts.unitarity_deviation:.1e}, from the "
            f"adjoint {facts.conjugate_test['relative']:.3g}{fidelity}"
        )
    if layer.transport is None:
        print(f"  {'transport':<28}not measured: give --pairs for the direction")
    else:
        print(f"  {'transport':<28}{_interval(layer.transport)}, 0.5 reaches the class means")
        if layer.transport_random is not None:
            print(f"  {'transport, random (control)':<28}{_draws(layer.transport_random)}")


def _print_logits(logits: LogitReversal) -> None:
    print(f"logits, KL from the unsteered model in nats a token: {_interval(logits.steered)}")
    for label, name in (("own inverse", "own_inverse"), ("opposite", "opposite")):
        value: Interval | None = getattr(logits, name)
        ratio: float | None = getattr(logits, f"{name}_ratio")
        if value is None:
            print(f"  {label:<28}not measured: {logits.notes[name]}")
        else:
            part = "no ratio" if ratio is None else f"{ratio:.3g} of the edit"
            print(f"  {label:<28}{part}, {_interval(value)}")
    if logits.random_ratio is not None:
        print(f"  {'random, subspace (control)':<28}{_draws(logits.random_ratio)}")
    elif "random" in logits.notes:
        print(f"  {'random, subspace (control)':<28}{logits.notes['random']}")
    print(f"  {'identity (control)':<28}{_interval(logits.identity)}")
    if "steered" in logits.notes:
        print(f"  {logits.notes['steered']}")


def _undo(undo: Undo) -> str:
    note = f"; {undo.note}" if undo.note else ""
    if undo.ratio is None or undo.median is None:
        return f"no ratio{note}"
    return (
        f"{_interval(undo.ratio)}, median {undo.median:.3g}, edit {undo.edit:.3g} of the norm{note}"
    )


def _interval(value: Interval) -> str:
    return f"{value.mean:.3g} [{value.low:.3g}, {value.high:.3g}]"


def _draws(draws: Draws) -> str:
    if draws.mean is None:
        return f"no ratio in {draws.n} draws"
    return f"{draws.mean:.3g} in {draws.low:.3g}..{draws.high:.3g} over {draws.n} draws"
