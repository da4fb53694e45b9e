"""The ``cogit`` command: a list of its subcommands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from cogit import __version__
from cogit.cli import (
    config,
    demo,
    doctor,
    estimate,
    evaluate,
    export,
    fit,
    flags,
    gate,
    import_,
    infer_app,
    inspect,
    log,
    parity,
    pipeline,
    presets,
    prompts,
    quantised,
    record,
    replay,
    report,
    reverse,
    study,
    subspace,
    sweep,
)
from cogit.cli.errors import run
from cogit.cli.settings_flags import Programs

app = typer.Typer(
    name="cogit",
    help="Steer language models by their representations, and prove that it worked.",
    epilog="One-shot generation is the command cogit-infer.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for module in (
    demo,
    doctor,
    evaluate,
    export,
    fit,
    gate,
    import_,
    inspect,
    log,
    estimate,
    parity,
    pipeline,
    presets,
    quantised,
    record,
    replay,
    report,
    reverse,
    study,
    subspace,
    sweep,
):
    app.command(module.NAME)(module.command)
app.add_typer(prompts.app, name=prompts.NAME)
app.add_typer(config.app, name=config.NAME)
PROGRAMS = Programs({(): app, ("infer",): infer_app.app})


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cogit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    _config: flags.Config = None,
) -> None:
    """Steer language models by their representations, and prove that it worked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(app, "cogit", arguments, PROGRAMS)
