"""What a command may write to, settled before it does any work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

Force = Annotated[bool, typer.Option("--force", help="Replace existing output files.")]
Inputs = Mapping[str, str | Path | Sequence[str] | None]
PLOTS = (".png", ".svg", ".pdf")
_MODEL = "model"
_DATASET = "dataset:"


def require_writable(outputs: Mapping[str, Path | None], inputs: Inputs, *, force: bool) -> None:
    """Each output is a file that may be written; run it before a model is loaded.

    outputs, inputs: by flag, without dashes, or by argument, in capitals; None is a flag that was
    not given. An input may name a folder, whose files are inputs too, two files with a comma, or a
    data set. ``force`` allows a file that exists, never one that the call names elsewhere.

    Raises ValueError, FileNotFoundError where there is no folder for it, PermissionError where that
    takes no files, or FileExistsError.
    """
    require_apart(outputs, inputs)
    for flag, path in outputs.items():
        if path is not None:
            _require_place(flag, path)
            if not force and os.path.lexists(path):
                message = (
                    f"[{flag}] expected a new file, got {path}, which exists; choose another name "
                    f"or pass --force"
                )
                raise FileExistsError(message)


def require_apart(outputs: Mapping[str, Path | None], inputs: Inputs) -> None:
    """ValueError for an output, a file or a folder, that is an input, in one, or given twice."""
    earlier: list[tuple[str, Path]] = list(_named(inputs))
    for flag, path in outputs.items():
        if path is None:
            continue
        for name, taken in earlier:
            other = name if name.isupper() else f"--{name}"
            if _same(path, taken):
                message = (
                    f"[{flag}] expected a place of its own, got {path}, which is {other} too; "
                    f"choose another name"
                )
                raise ValueError(message)
            if _within(path, taken, new_allowed=name == _MODEL):
                message = (
                    f"[{flag}] expected a place of its own, got {path}, which lies in {other} "
                    f"{taken}; choose another folder"
                )
                raise ValueError(message)
        earlier.append((flag, path))


def _require_place(flag: str, path: Path) -> None:
    parent = path.absolute().parent
    if path.is_dir():
        message = f"[{flag}] expected a file, got the folder {path}; name a file"
        raise ValueError(message)
    if not parent.is_dir():
        message = f"[{flag}] expected an existing folder, got {path.parent}; create it first"
        raise FileNotFoundError(message)
    if path.exists() and not path.is_file():
        message = f"[{flag}] expected a plain file, got {path}, which is none; name a file"
        raise ValueError(message)
    if not os.access(parent, os.W_OK):
        message = f"[{flag}] expected a folder that takes files, got {path.parent}; choose another"
        raise PermissionError(message)
    if flag == "plot" and path.suffix.lower() not in PLOTS:
        message = f"[{flag}] expected a name that ends in {', '.join(PLOTS)}, got {path}"
        raise ValueError(message)


def _named(inputs: Inputs) -> Iterator[tuple[str, Path]]:
    """Every path that the inputs may mean, with its flag."""
    for flag, given in inputs.items():
        values = [given] if given is None or isinstance(given, str | Path) else list(given)
        for value in values:
            if value is None:
                continue
            text = str(value)
            if text.startswith(_DATASET):
                text = text.removeprefix(_DATASET).partition("?")[0]
            yield flag, Path(text)
            if text.count(",") == 1 and not os.path.lexists(text):
                yield from ((flag, Path(part.strip())) for part in text.split(","))


def _same(one: Path, other: Path) -> bool:
    if one.resolve() == other.resolve():
        return True
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there, or no file has such a name
        return False


def _within(path: Path, folder: Path, *, new_allowed: bool) -> bool:
    """Whether a path lies in a folder of input; a model's may be the one that people work in."""
    if new_allowed and not os.path.lexists(path):
        return False
    return path.resolve().is_relative_to(folder.resolve()) and folder.is_dir()
