"""Which run of a kind is the latest: a small JSON file beside the runs, replaced atomically.

``latest-sweep.json`` in a folder names one file or folder below it. It is no symbolic link: it
moves with the folder to another machine, and it cannot point outside.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath

from cogit.artefact import write_bytes
from cogit.errors import ArtefactError

_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_FORMAT = "cogit latest"
_MAX_FILE = 2**16


def point_latest(folder: str | Path, kind: str, target: str | Path) -> Path:
    """Make ``target``, a file or folder below ``folder``, the latest of its kind.

    Returns the pointer's path. Raises ValueError for a target elsewhere or a kind that is no word
    of lower-case letters, digits and dashes; FileNotFoundError for a target that does not exist.
    """
    base = Path(folder)
    inside = _inside(base, Path(target))
    if inside is None:
        message = f"[latest] expected a target below {base}, got {target}"
        raise ValueError(message)
    if not inside.exists():
        message = f"[latest] expected an existing target, got {target}"
        raise FileNotFoundError(message)
    relative = inside.relative_to(base.resolve()).as_posix()
    pointer = _pointer(base, kind)
    data = {"format": _FORMAT, "format_version": 1, "kind": kind, "path": relative}
    write_bytes(pointer, json.dumps(data, indent=2).encode() + b"\n")
    return pointer


def resolve_latest(folder: str | Path, kind: str) -> Path:
    """Where the latest of a kind lies.

    Raises FileNotFoundError where there is none or it is gone; ArtefactError for a pointer that is
    damaged, of another kind, or leads outside of ``folder``, by a symbolic link or otherwise.
    """
    base = Path(folder)
    pointer = _pointer(base, kind)
    if not pointer.is_file():
        message = f"[latest] expected {pointer}, which does not exist; make a {kind} there first"
        raise FileNotFoundError(message)
    relative = _read(pointer, kind)
    target = _inside(base, base / relative)
    if target is None or relative.is_absolute() or ".." in relative.parts:
        message = f"[latest] expected a target below {base}, got {str(relative)!r} in {pointer}"
        raise ArtefactError(message)
    if not target.exists():
        message = f"[latest] expected {target}, named by {pointer}, which does not exist"
        raise FileNotFoundError(message)
    return base / relative


def _pointer(base: Path, kind: str) -> Path:
    if _KIND.fullmatch(kind) is None:
        message = f"[latest] expected a kind such as sweep, got {kind!r}"
        raise ValueError(message)
    return base / f"latest-{kind}.json"


def _read(pointer: Path, kind: str) -> PurePosixPath:
    try:
        if pointer.stat().st_size > _MAX_FILE:
            message = f"expected at most {_MAX_FILE} bytes"
            raise ValueError(message)
        data = json.loads(pointer.read_text(encoding="utf-8"))
        if (data["format"], data["format_version"], data["kind"]) != (_FORMAT, 1, kind):
            message = f"expected a pointer to a {kind} of version 1, got another"
            raise ValueError(message)
        path = data["path"]
        if not isinstance(path, str) or not path or "\0" in path or "\\" in path:
            message = f"expected a relative path, got {str(path)[:60]!r}"
            raise ValueError(message)
        return PurePosixPath(path)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        message = f"[latest] expected a pointer in {pointer}, got {' '.join(str(error).split())}"
        raise ArtefactError(message) from error


def _inside(base: Path, target: Path) -> Path | None:
    """The target with links resolved, or None where that is not below the base."""
    root, found = base.resolve(), target.resolve()
    return found if found != root and found.is_relative_to(root) else None
