"""The flags that ``cogit-infer`` alone has; the others are in `cogit.cli.flags`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_LAMBDA = 0.01
DEFAULT_K = 64
DEFAULT_PROMPT = "we visited the hotel in april and the room was"

Prompt = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        help="Text to continue; repeatable; - reads one prompt from standard input.",
        show_default=DEFAULT_PROMPT,
    ),
]
PromptFile = Annotated[
    Path | None,
    typer.Option("--prompt-file", help="Prompts, one a line; - reads them from standard input."),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--lambda",
        help="Strength, any real number; 0 steers nothing and serves as control.",
        show_default=f"{DEFAULT_LAMBDA}, or the file's",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        help="Blocks, from 0, half-open: 24-32 is blocks 24..31; 7; 0,4,8-12; 50%-75%; all.",
        show_default="all, or the file's",
    ),
]
File = Annotated[
    Path | None,
    typer.Option("--intervention", help="Intervention file to apply instead of a commitment."),
]
UseCommitment = Annotated[
    bool, typer.Option("--commitment", help="Use a commitment: the default without a file.")
]
K = Annotated[
    int | None,
    typer.Option("--k", help="Dimension of the commitment.", show_default=str(DEFAULT_K)),
]
TokenPositions = Annotated[
    str | None,
    typer.Option(
        "--positions",
        help="Tokens to steer: all, prompt, generated, or a half-open range a-b.",
        show_default="all, or the file's",
    ),
]
FirstToken = Annotated[
    bool, typer.Option("--first-token", help="Steer the first token too (attention sink).")
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", help="Most tokens to generate.")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 is greedy.")]
TopK = Annotated[int, typer.Option("--top-k", help="Most likely tokens to keep; 0 keeps all.")]
TopP = Annotated[float, typer.Option("--top-p", help="Probability mass to keep; 1 keeps all.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the sampling and of the commitment.")]
Compare = Annotated[
    bool, typer.Option("--compare", help="Also continue unsteered, with equal random numbers.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object with everything.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Skip the proof that the change landed.")
]
