"""``cogit log``: records that people write, from a template."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cogit.cli.console import print_json

NAME = "log"


class Kind(StrEnum):
    decision = "decision"


def command(
    kind: Annotated[Kind, typer.Argument(help="What to record.")],
    title: Annotated[str, typer.Argument(help="Title of the record.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where records lie.")] = Path(
        "decisions"
    ),
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Create the next numbered decision record: problem, options, reasons, debt, validation."""
    from cogit.pipeline.decision_log import create_decision

    path = create_decision(folder, title)
    if json_output:
        print_json({"kind": kind.value, "path": str(path)})
    else:
        print(path)
