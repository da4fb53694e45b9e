"""``cogit-infer``: one prompt in, one steered continuation out."""

from __future__ import annotations

from collections.abc import Sequence

from cogit.cli.errors import run
from cogit.cli.infer_app import app
from cogit.cli.main import PROGRAMS

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run(app, "cogit-infer", arguments, PROGRAMS, ("infer",))
