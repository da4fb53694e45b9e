"""click's errors of usage, which typer brings under a name of its own."""

from __future__ import annotations

import typer

# ClickException: typer either brings click inside or depends on it, by release.
USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[2]


def usage_message(error: Exception) -> str:
    """What it says, without a full stop."""
    formatted = getattr(error, "format_message", None)
    text = str(formatted() if formatted else error)
    return text.replace("Value error, ", "").strip().rstrip(".")
