"""``cogit study``: experiments and sweeps of a file, each through the pipeline."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cogit.cli.console import print_json, say
from cogit.cli.memory_flags import CheckMemory, Yes
from cogit.cli.outputs import require_apart

NAME = "study"
_FAILED = 1


def command(
    file: Annotated[Path, typer.Argument(help="TOML, or JSON as .json: base, experiment, sweep.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; an earlier one goes on.")],
    rate: Annotated[
        float | None, typer.Option(help="Cost of an hour on this machine.", show_default="no cost")
    ] = None,
    log: Annotated[
        Path | None,
        typer.Option(
            help="Experiment log to append to.", show_default="EXPERIMENT_LOG.md beside --out"
        ),
    ] = None,
    yes: Yes = False,
    memory_check: CheckMemory = True,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run every trial of a study file that is not finished, and summarise all.

    Exit code 1 where a trial failed; the others are run all the same.
    """
    from cogit.cli.pipeline import opener
    from cogit.pipeline.cost import Rate
    from cogit.pipeline.runner import Options
    from cogit.pipeline.study import run_study
    from cogit.pipeline.study_file import load_study

    trials = load_study(file)
    require_apart({"out": out, "log": log}, {"FILE": file})
    say("study", f"{len(trials)} trials in {file}")
    options = Options(
        rate=None if rate is None else Rate(rate), log=log, show=not json_output, say=say
    )
    result = run_study(
        trials, out, partial(opener, assume_yes=yes, check_memory=memory_check), options
    )
    if json_output:
        print_json({"folder": str(out), "best": result.best, "trials": result.table()})
    else:
        print((out / "summary.md").read_text(encoding="utf-8"), end="")
        say("summary", str(out / "summary.csv"))
    if result.failed:
        raise typer.Exit(_FAILED)
