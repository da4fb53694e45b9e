"""The flags that ``cogit record`` alone has."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

FILE = ".safetensors"


class RowDtype(StrEnum):
    f32 = "f32"
    f16 = "f16"


class Moments(StrEnum):
    covariance = "covariance"
    variance = "variance"


Pairs = Annotated[
    str,
    typer.Option(
        help="Contrast pairs: JSONL or CSV file (positive, negative, perhaps prompt); two text "
        "files a.txt,b.txt; dataset:NAME?split=train[:100]&positive=COLUMN&negative=COLUMN."
    ),
]
Out = Annotated[Path, typer.Option(help=f"Folder of shards, or one file *{FILE}.")]
Layers = Annotated[
    str | None,
    typer.Option(
        help="Blocks, from 0, half-open: 24-32 is 24..31; 0,4,8-12; 50%-75%; middle; all.",
        show_default="all",
    ),
]
HookPoint = Annotated[
    str,
    typer.Option(
        help="resid_pre, resid_mid, resid_post, attn_out, mlp_out, attn_norm, mlp_norm, or a "
        "name such as blocks.7.hook_resid_post. llamacpp: resid_post, resid_pre."
    ),
]
Select = Annotated[
    str,
    typer.Option(
        help="Tokens of a text: last, tail-K (mean of the last K), answer (mean of what "
        "follows the prompt), all, after-first."
    ),
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder of earlier recordings, to read from and add to.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a folder that was not finished.")
]
Rows = Annotated[RowDtype, typer.Option(help="Type of the stored rows.")]
Stats = Annotated[
    Moments | None,
    typer.Option(
        help="Keep means and covariances, or variances, of each block instead of rows.",
        show_default="rows",
    ),
]
