"""``cogit sweep``: at which block two classes differ, with permutation p-values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cogit.cli import flags, sweep_flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import BackendChoice, Dtype, ModelSource, Runtime, open_model
from cogit.cli.memory_flags import CheckMemory, Yes
from cogit.cli.outputs import Force, Inputs, require_writable
from cogit.cli.run_record import RunRecord, begin

if TYPE_CHECKING:
    from cogit.activations import Activations
    from cogit.layers import LayerRange
    from cogit.sweep_result import Sweep

NAME = "sweep"


def command(
    activations: sweep_flags.Activations = None,
    pairs: sweep_flags.Pairs = None,
    model: sweep_flags.Model = None,
    backend: flags.Backend = BackendChoice.transformers,
    layers: sweep_flags.Layers = "all",
    permutations: Annotated[int, typer.Option(help="Random swaps of labels within pairs.")] = 2000,
    folds: Annotated[int, typer.Option(help="Parts of the pairs, each held out once.")] = 5,
    repeats: Annotated[int, typer.Option(help="Partitions into folds, averaged.")] = 5,
    alpha: Annotated[float, typer.Option(help="Level of the verdict.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds and the swaps.")] = 0,
    out: sweep_flags.Out = None,
    plot: Annotated[Path | None, typer.Option(help="File for the plot: .png, .svg, .pdf.")] = None,
    device: flags.Device = "auto",
    dtype: flags.Dtype = Dtype.f32,
    threads: flags.Threads = None,
    force: Force = False,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: flags.Json = False,
) -> None:
    """Say at which block the two classes differ, on held-out pairs. It may be at none."""
    from cogit.artefact import write_bytes
    from cogit.layers import LayerRange
    from cogit.sweep import sweep_layers
    from cogit.sweep_report import plot_scores

    chosen = LayerRange.parse(layers)
    runtime = Runtime(device, dtype, threads, assume_yes=yes, check_memory=memory_check)
    _require_one_source(activations, pairs, model)
    _require_new(out)
    source = None if pairs is None else ModelSource.choose(backend, model)
    used = None if source is None else source.path
    inputs: Inputs = {"activations": activations, "pairs": pairs, "model": used}
    require_writable({"plot": plot}, {**inputs, "out": out}, force=force)
    run = begin({"out": out, "plot": plot}, inputs, force=force, folder=out is not None)
    if activations is not None:
        from cogit.activations import Activations

        states = Activations.load(activations)
        say("states", str(activations))
    else:
        assert pairs is not None
        assert source is not None
        states = _record(pairs, source, backend, runtime, chosen)
    sweep = sweep_layers(
        states,
        chosen,
        permutations=permutations,
        folds=folds,
        repeats=repeats,
        seed=seed,
        alpha=alpha,
        show_progress=True,
    )
    facts = sweep.to_json()
    if plot is not None:
        write_bytes(plot, plot_scores(sweep, plot.suffix.lower().removeprefix(".")))
        say("plot", str(plot))
    if out is not None:
        _write_run(sweep, None if activations else states, out, run)
        say("run folder", str(out))
        facts["out"] = str(out)
    else:
        run.finish()
    if json_output:
        print_json(facts)
    else:
        _print_table(sweep)


def _require_one_source(activations: Path | None, pairs: Path | None, model: str | None) -> None:
    if (activations is None) == (pairs is None):
        message = "[sweep] expected either --activations or --pairs (with --model), got "
        raise ValueError(message + ("neither" if pairs is None else "both"))
    if activations is not None and model is not None:
        message = "[sweep] expected no --model beside --activations, which are recorded already"
        raise ValueError(message)


def _require_new(out: Path | None) -> None:
    """Before a model runs for minutes: the folder would be refused afterwards."""
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        message = f"[run] expected an empty or new folder, got {out}, which exists; name another"
        raise FileExistsError(message)


def _record(
    pairs: Path, source: ModelSource, backend: BackendChoice, runtime: Runtime, chosen: LayerRange
) -> Activations:
    """All blocks in one pass of one loaded model."""
    from cogit.activations import record
    from cogit.cli.loading import display_name
    from cogit.memory_estimate import Workload
    from cogit.pairs import load_pairs

    texts = load_pairs(pairs)
    say("model", f"{display_name(source)}, from {source.origin}")
    every = [text for pair in texts for text in pair.texts]
    workload = Workload.of_texts(every, recorded=len(every))
    with open_model(backend, source.path, runtime, workload=workload) as loaded:
        say("recording", f"{len(texts)} pairs, blocks {chosen}")
        return record(loaded, texts, chosen)


def _write_run(sweep: Sweep, states: Activations | None, out: Path, run: RunRecord) -> None:
    """states: those that were recorded for this sweep."""
    from cogit.latest import point_latest
    from cogit.run_folder import new_run_folder
    from cogit.sweep_report import write_sweep

    with new_run_folder(out) as working:
        write_sweep(sweep, working)
        if states is not None:
            states.save(working / "activations.safetensors")
        run.finish_folder(working)
    point_latest(out.absolute().parent, "sweep", out.absolute())


def _print_table(sweep: Sweep) -> None:
    from cogit.sweep_report import HEADER, rows_of
    from cogit.sweep_result import CAUTION

    rows = [HEADER, *rows_of(sweep)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(f"states at {sweep.hook_point}")
    print(sweep.describe())
    print(CAUTION)
