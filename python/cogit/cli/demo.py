"""``cogit demo``: the whole route on the shipped model, with controls."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cogit.cli import flags
from cogit.cli.console import say
from cogit.cli.loading import Runtime
from cogit.cli.memory_check import check_model
from cogit.cli.memory_flags import CheckMemory, Yes
from cogit.cli.outputs import Force, require_writable

if TYPE_CHECKING:
    from cogit.report import BackendReport, Report

NAME = "demo"


class Backends(StrEnum):
    both = "both"
    transformers = "transformers"
    llamacpp = "llamacpp"


def command(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of this run.", show_default="runs/demo-<timestamp>"),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write the results to this file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of prompts, sampling and controls.")] = 0,
    backend: Annotated[Backends, typer.Option(help="Where to run.")] = Backends.both,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer prompts and controls.")] = False,
    threads: flags.BothThreads = None,
    force: Force = False,
    yes: Yes = False,
    memory_check: CheckMemory = True,
) -> None:
    """Steer the shipped demo model and show effect, cost and controls. Needs no network."""
    from cogit.backends import BACKENDS
    from cogit.demo.assets import demo_model
    from cogit.demo.run import run_demo

    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = out or Path("runs") / f"demo-{stamp}"
    require_writable({"json": json_file}, {"out": folder}, force=force)
    chosen = BACKENDS if backend is Backends.both else (backend.value,)
    runtime = Runtime("cpu", threads=threads, assume_yes=yes, check_memory=memory_check)
    for name in chosen:
        check_model(name, str(demo_model(name)), runtime, None)
    result = run_demo(
        folder,
        json_path=json_file,
        seed=seed,
        backends=chosen,
        quick=quick,
        threads=threads,
        show_progress=True,
    )
    _print_report(result.report)
    say("run folder", str(result.folder))


def _print_report(report: Report) -> None:
    """One table a backend with its criteria, some continuations, and the verdict."""
    for name, part in report.backends.items():
        print(f"{name}:")
        _print_table(part)
        print()
    for sample in report.samples:
        print(sample["prompt"])
        for label, text in sample.items():
            if label != "prompt":
                print(f"  {label:<10} {text}")
        print()
    print(f"verdict: {report.verdict}, in {report.seconds:.0f} s")


def _print_table(part: BackendReport) -> None:
    from cogit.report import HEADER, format_interval, rows_of

    rows = [HEADER, *rows_of(part)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip())
    for label, gap in part.paired.items():
        print(f"  unitary minus additive, {label}: {format_interval(gap)} points")
    for criterion in part.verdict.criteria:
        print(f"  {'holds ' if criterion.holds else 'FAILS '} {criterion.name}: {criterion.found}")
