"""What a command would be called with, and files of settings."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from cogit.cli import infer, main
from cogit.cli.main import PROGRAMS


class Calls:
    """Runs command lines whose command only notes what it gets."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._seen: dict[str, Any] | None = None

    def __call__(self, *arguments: str, command: str, code: int = 0) -> dict[str, Any]:
        """The arguments that the command's function gets. command: words, such as "fit"."""
        leaf = PROGRAMS.commands[tuple(command.split())].command
        inner = leaf.callback
        PROGRAMS.commands[tuple(command.split())].flags  # noqa: B018  # kept from now on

        @functools.wraps(inner)
        def note(**values: Any) -> None:
            self._seen = values

        self._seen = None
        with self._patch.context() as patch:
            patch.setattr(leaf, "callback", note)
            run = infer.main if command == "infer" else main.main
            assert run(list(arguments)) == code
        return {} if self._seen is None else self._seen


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
