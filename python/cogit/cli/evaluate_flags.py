"""The flags of ``cogit evaluate``, each with its help text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

_SOURCE = "Text file, JSONL, CSV, packaged:NAME or dataset:NAME?config=…&split=…&column=…"


class MatchChoice(StrEnum):
    kl = "kl"
    displacement = "displacement"
    none = "none"


class SizeChoice(StrEnum):
    quick = "quick"
    standard = "standard"
    n1000 = "n1000"


File = Annotated[Path, typer.Option("--intervention", help="The intervention file to evaluate.")]
Opposite = Annotated[
    Path | None,
    typer.Option(
        help="Another file that steers to the negative class at its own strength.",
        show_default="--intervention at the negative strength",
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        help=f"Open prompts, a quarter of them for calibration alone. {_SOURCE}",
        show_default="packaged:open_prompts, or the demo grammar's",
    ),
]
NeutralPrompts = Annotated[
    str | None,
    typer.Option(
        help="Neutral prompts, continued and judged for the drift.",
        show_default="packaged:neutral_prompts, or the demo grammar's",
    ),
]
Neutral = Annotated[
    str | None,
    typer.Option(
        help="Neutral texts for KL and capability, a third of them to match strengths.",
        show_default="packaged:neutral, or the demo grammar's",
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        help="Contrast pairs, from which the additive and the shuffled controls are fitted.",
        show_default="none: without these controls; the demo grammar's with the demo model",
    ),
]
JudgeSpec = Annotated[
    str | None,
    typer.Option(
        "--judge",
        help="vader, lexicon:FILE, classifier:MODEL, logits, api:URL?model=NAME or demo.",
        show_default="vader, or demo with the demo model",
    ),
]
Match = Annotated[
    MatchChoice, typer.Option(help="What every control is brought to: the learned one's cost.")
]
Draws = Annotated[
    int | None,
    typer.Option(
        "--random",
        min=0,
        help="Random operators; below 20 none can be told from them.",
        show_default="20",
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="Seeds of the replicates of every prompt, with commas.",
        show_default="42,43,44,45; 42 if quick",
    ),
]
Size = Annotated[
    SizeChoice | None,
    typer.Option(help="Prompts: 24, 72 or 1000 at most.", show_default="standard"),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="--size quick: one seed, fewer draws, no dose-response.")
]
Towards = Annotated[
    str | None,
    typer.Option(
        "--instruction-positive",
        help="Put before every prompt to ask for the positive class: prompting as a rival.",
    ),
]
Away = Annotated[
    str | None, typer.Option("--instruction-negative", help="The same for the negative class.")
]
Tests = Annotated[
    int,
    typer.Option(
        "--tests", min=1, help="Interventions tried on these prompts in all, for Holm's correction."
    ),
]
Tail = Annotated[int, typer.Option(min=1, help="Last tokens of a text of --pairs that count.")]
SweepStrength = Annotated[
    bool,
    typer.Option(
        "--sweep-strength",
        help="Also strengths from 0.01 to 5, on calibration prompts, to strength_sweep.json.",
    ),
]
Parallel = Annotated[
    int, typer.Option(min=1, help="Sequences in a batch; llamacpp only. Memory grows with it.")
]
Out = Annotated[
    Path | None,
    typer.Option(help="New folder for report and manifest.", show_default="runs/evaluate-TIME"),
]
ContextLength = Annotated[
    int | None,
    typer.Option(min=16, help="Context of a sequence; llamacpp only.", show_default="512"),
]
