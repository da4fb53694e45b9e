"""Text files of users: opened, read and refused in one way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_text(path: Path, where: str, newline: str | None = None) -> Iterator[IO[str]]:
    """A UTF-8 file, without its byte order mark; ``where`` names the flag in messages.

    newline: as of ``open``. Raises FileNotFoundError where there is no such file, OSError where it
    cannot be read, or ValueError where it is a folder or not UTF-8, also while it is being read.
    """
    try:
        stream = path.open(encoding="utf-8-sig", newline=newline)
    except FileNotFoundError as error:
        message = f"[{where}] expected a file, got {path}, which does not exist"
        raise FileNotFoundError(message) from error
    except IsADirectoryError as error:
        message = f"[{where}] expected a file, got the folder {path}"
        raise ValueError(message) from error
    except OSError as error:
        message = f"[{where}] expected a file that can be read, got {path}: {error.strerror}"
        raise OSError(message) from error
    with stream:
        try:
            yield stream
        except UnicodeDecodeError as error:
            message = f"[{where}] expected UTF-8 text in {path}, got {error.reason}"
            raise ValueError(message) from error


def is_there(path: Path) -> bool:
    """``Path.exists``, which raises for a name that is too long for the file system."""
    try:
        return path.exists()
    except OSError:
        return False


def read_lines(path: Path, where: str, what: str) -> list[str]:
    """The lines of a file that hold text; ValueError without one, else as ``open_text``.

    what: a line in words, such as "a prompt".
    """
    with open_text(path, where) as stream:
        lines = stream.read().splitlines()
    return require_lines(lines, where, what, str(path))


def require_lines(lines: list[str], where: str, what: str, source: str) -> list[str]:
    """Those that hold text, of which there must be one."""
    found = [line for line in lines if line.strip()]
    if not found:
        message = f"[{where}] expected {what} a line, got none in {source}"
        raise ValueError(message)
    return found
