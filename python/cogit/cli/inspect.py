"""``cogit inspect``: what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cogit.cli import flags
from cogit.cli.console import print_json

NAME = "inspect"
_MOST = 64  # parts of one line; --json has all


def command(
    file: Annotated[
        Path,
        typer.Argument(
            help="Artefact or folder of cogit, GGUF (model or control vector), model folder."
        ),
    ],
    json_output: flags.Json = False,
) -> None:
    """Say what a file holds, without loading a model."""
    from cogit.inspection import inspect_path

    facts = inspect_path(file)
    if json_output:
        print_json(facts)
        return
    for name, value in facts.items():
        if name == "operators":
            for operator in value:
                print(f"{'block ' + str(operator['block']):<16}{_operator(operator)}")
                if operator["gate"] is not None:
                    print(f"{'  gate':<16}{_plain(operator['gate'])}")
        elif name == "entries":
            for one in value:
                print(f"{'entry':<16}{_plain(one)}")
        else:
            print(f"{name.replace('_', ' '):<16}{_plain(value)}")


def _operator(facts: dict[str, Any]) -> str:
    restore = "restores the norm" if facts["restores_norm"] else "no norm restore"
    return (
        f"{facts['kind']}: {facts['formula']}; rank {facts['rank']}, constant part of norm "
        f"{facts['constant_norm']:.4g}, {restore}"
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return _listed([f"{name} {_plain(part)}" for name, part in value.items()])
    if isinstance(value, list):
        return _listed([_plain(part) for part in value])
    if isinstance(value, float):
        return f"{value:.6g}"
    return "not given" if value is None else str(value)


def _listed(parts: list[str]) -> str:
    left_out = [f"and {len(parts) - _MOST} more"] if len(parts) > _MOST else []
    return ", ".join([*parts[:_MOST], *left_out]) or "none"
