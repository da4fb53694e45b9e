"""``cogit fit``: an operator from pairs, recorded states or a subspace, judged on what it has not
seen.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cogit.cli import fit_flags as flags
from cogit.cli.loading import MODEL_VARIABLE, BackendChoice, Dtype, Runtime
from cogit.cli.memory_flags import CheckMemory, Yes
from cogit.cli.outputs import Force

NAME = "fit"


class OperatorChoice(StrEnum):
    unitary = "unitary"
    additive = "additive"
    ablation = "ablation"


class Method(StrEnum):
    plane = "plane"
    procrustes = "procrustes"
    direct = "direct"
    born = "born"
    margin = "margin"
    born_adam = "born-adam"


def command(
    out: Annotated[Path, typer.Option(help="Intervention file to write.")],
    pairs: Annotated[
        str | None,
        typer.Option(
            help="Contrast pairs, recorded with the model, split, and judged through it: JSONL or "
            "CSV file (positive, negative, perhaps prompt); two text files as a.txt,b.txt; "
            "dataset:NAME?split=…"
        ),
    ] = None,
    activations: Annotated[
        Path | None, typer.Option(help="Recorded states to fit on, instead of --pairs.")
    ] = None,
    subspace: Annotated[
        Path | None, typer.Option(help="A fitted subspace, instead of --pairs.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or hub id (transformers), GGUF file (llamacpp).",
            show_default=f"with --pairs {MODEL_VARIABLE}, else the demo model; else none",
        ),
    ] = None,
    backend: Annotated[
        BackendChoice, typer.Option(help="What runs the model.")
    ] = BackendChoice.transformers,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            "--layer",
            help="Blocks, from 0, half-open. With --auto those to choose from, else all of them "
            "are steered.",
            show_default="with --auto all",
        ),
    ] = None,
    operator: Annotated[
        OperatorChoice, typer.Option(help="What is fitted.")
    ] = OperatorChoice.unitary,
    method: Annotated[
        Method | None,
        typer.Option(
            help="Of the unitary: margin trains on the subspace, born-adam (Born loss and Adam, a "
            "dense operator) on encoded states; the others are closed.",
            show_default="plane",
        ),
    ] = None,
    angle: flags.Angle = None,
    gain: flags.Gain = None,
    strength: flags.Strength = None,
    k: flags.ComplexDimensions = None,
    tail: flags.Tail = None,
    auto: Annotated[
        bool,
        typer.Option(
            "--auto",
            help="Choose block and strength by the teacher-forced contrast on other pairs.",
        ),
    ] = False,
    refine: Annotated[
        int, typer.Option(min=0, help="Gradient steps through the model, transformers only.")
    ] = 0,
    neutral: Annotated[
        Path | None,
        typer.Option(
            help="Texts that steering should leave alone, one a line.",
            show_default="packaged plain English sentences",
        ),
    ] = None,
    kl_budget: flags.KlBudget = None,
    nll_budget: flags.NllBudget = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints of --refine or born-adam.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from --checkpoint.")] = False,
    family: flags.Family = None,
    preset: flags.Preset = None,
    epochs: flags.Epochs = None,
    q: flags.Width = None,
    exact_inverse: flags.ExactInverse = False,
    shuffled_fits: flags.ShuffledFits = None,
    out_opposite: flags.OutOpposite = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw choice and curve: .png, .svg, .pdf.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of splits, controls and training.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Of the weights; transformers only.")] = Dtype.f32,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads.", show_default="the library's choice")
    ] = None,
    force: Force = False,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit an operator and say, on pairs it has not seen, what it does, what it costs, and whether
    that is more than controls do. The verdict may be "no effect".
    """
    from cogit.autofit import Recipe
    from cogit.cli.fit_request import Request
    from cogit.cli.fit_run import execute
    from cogit.evaluation.teacher_forced import Budget
    from cogit.layers import LayerRange

    born = flags.BornFlags(family, preset, epochs, q, exact_inverse, shuffled_fits, out_opposite)
    chosen = Method.plane if method is None else method
    trains = operator is OperatorChoice.unitary and chosen is Method.born_adam
    if not trains:
        born.require_none(f"{operator.value} by {chosen.value}")
    given = {
        **{"--method": method, "--angle": angle, "--gain": gain, "--lambda": strength},
        **{"--k": k, "--tail": tail, "--neutral": neutral},
        **{"--kl-budget": kl_budget, "--nll-budget": nll_budget},
    }
    usual = Recipe()
    recipe = Recipe(
        operator.value,
        chosen.value,
        usual.angle if angle is None else angle,
        usual.gain if gain is None else gain,
        usual.k if k is None else k,
    )
    budget = Budget()
    request = Request(
        pairs=pairs,
        activations=activations,
        subspace=subspace,
        out=out,
        model=model,
        backend=backend,
        runtime=Runtime(device, dtype, threads, assume_yes=yes, check_memory=memory_check),
        layers=None if layers is None else LayerRange.parse(layers),
        recipe=recipe,
        strength=1.0 if strength is None else strength,
        born=born.settings(seed) if trains else None,
        out_opposite=out_opposite,
        tail=4 if tail is None else tail,
        auto=auto,
        refine=refine,
        neutral=neutral,
        budget=Budget(
            budget.target_nll if nll_budget is None else nll_budget,
            budget.neutral_kl if kl_budget is None else kl_budget,
        ),
        checkpoint=checkpoint,
        resume=resume,
        plot=plot,
        seed=seed,
        force=force,
        json_output=json_output,
        given=frozenset(name for name, value in given.items() if value is not None),
    )
    execute(request)
