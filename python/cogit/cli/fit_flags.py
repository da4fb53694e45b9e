"""Flags of ``cogit fit``: None where one that may have no effect was not given."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cogit.cli.loading import MODEL_VARIABLE

_ONLY = "With --method born-adam: "


class OperatorChoice(StrEnum):
    unitary = "unitary"
    additive = "additive"
    ablation = "ablation"


class MethodChoice(StrEnum):
    plane = "plane"
    procrustes = "procrustes"
    direct = "direct"
    born = "born"
    margin = "margin"
    born_adam = "born-adam"


class FamilyChoice(StrEnum):
    dense = "dense"
    lowrank = "lowrank"
    diagonal = "diagonal"


# ---- what is fitted, on what ----

Out = Annotated[Path, typer.Option(help="Intervention file to write.")]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="Contrast pairs, recorded with the model, split, and judged through it: JSONL or "
        "CSV file (positive, negative, perhaps prompt); two text files as a.txt,b.txt; "
        "dataset:NAME?split=…"
    ),
]
Activations = Annotated[
    Path | None, typer.Option(help="Recorded states to fit on, instead of --pairs.")
]
Subspace = Annotated[Path | None, typer.Option(help="A fitted subspace, instead of --pairs.")]
Model = Annotated[
    str | None,
    typer.Option(
        help="Folder or hub id (transformers), GGUF file (llamacpp).",
        show_default=f"with --pairs {MODEL_VARIABLE}, else the demo model; else none",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        "--layer",
        help="Blocks, from 0, half-open. With --auto those to choose from, else all of them "
        "are steered.",
        show_default="with --auto all",
    ),
]
Operator = Annotated[OperatorChoice, typer.Option(help="What is fitted.")]
Method = Annotated[
    MethodChoice | None,
    typer.Option(
        help="Of the unitary: margin trains on the subspace, born-adam (Born loss and Adam, a "
        "dense operator) on encoded states; the others are closed.",
        show_default="plane",
    ),
]
Angle = Annotated[
    float | None, typer.Option(help="Degrees of the plane rotation.", show_default="60")
]
Gain = Annotated[
    float | None,
    typer.Option(
        help="Reference amplitude of the unitary, in half class separations.", show_default="1.5"
    ),
]
Strength = Annotated[
    float | None, typer.Option("--lambda", help="Strength that is saved.", show_default="1")
]
ComplexDimensions = Annotated[
    int | None,
    typer.Option("--k", min=1, help="Complex dimensions of the subspace.", show_default="4"),
]
Tail = Annotated[
    int | None,
    typer.Option(min=1, help="Last tokens of a text of --pairs that count.", show_default="4"),
]

# ---- choice and refinement through the model ----

Auto = Annotated[
    bool,
    typer.Option(
        "--auto", help="Choose block and strength by the teacher-forced contrast on other pairs."
    ),
]
Refine = Annotated[
    int, typer.Option(min=0, help="Gradient steps through the model, transformers only.")
]
Neutral = Annotated[
    Path | None,
    typer.Option(
        help="Texts that steering should leave alone, one a line.",
        show_default="packaged plain English sentences",
    ),
]
KlBudget = Annotated[
    float | None, typer.Option(help="KL on neutral texts, nats per token.", show_default="0.02")
]
NllBudget = Annotated[
    float | None,
    typer.Option(
        help="Rise of the NLL of the target's own texts, nats per token.", show_default="0.005"
    ),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder for checkpoints of --refine or born-adam.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from --checkpoint.")]
Plot = Annotated[Path | None, typer.Option(help="Also draw choice and curve: .png, .svg, .pdf.")]
Seed = Annotated[int, typer.Option(help="Seed of splits, controls and training.")]

# ---- the Born training ----

Family = Annotated[
    FamilyChoice | None,
    typer.Option(help=f"{_ONLY}how U is parametrised.", show_default="dense"),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help=f"{_ONLY}schedule and q / d_model of a preset (cogit presets); the block, the model "
        f"and the seed stay as the other flags say."
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(help=f"{_ONLY}epochs of every training.", show_default="the preset's, or 100"),
]
Width = Annotated[
    int | None,
    typer.Option(
        "--q",
        help=f"{_ONLY}dimension of the encoded states. A step takes time as q³ (5 ms at q = 333, "
        f"78 s at 5333, one core); below d_model, dimensions pass by unsteered.",
        show_default="2.604 d_model",
    ),
]
ExactInverse = Annotated[
    bool,
    typer.Option(
        "--exact-inverse",
        help=f"{_ONLY}train negative to positive alone and go back by its adjoint.",
    ),
]
ShuffledFits = Annotated[
    int | None,
    typer.Option(help=f"{_ONLY}controls to train on shuffled classes.", show_default="4"),
]
OutOpposite = Annotated[
    Path | None,
    typer.Option(
        help=f"{_ONLY}also write the operator from positive to negative, to be used at a positive "
        f"strength. A negative strength of --out is no way back: it runs the blend backwards."
    ),
]
