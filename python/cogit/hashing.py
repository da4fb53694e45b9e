"""SHA-256 of files and of what lies in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_hashes(folder: Path, unhashed: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 of every file in a folder and below, by its relative name with slashes.

    Left out are hidden files, links, ``unhashed`` names, and the manifests of runs, in which times
    lie. Raises FileNotFoundError where there is no folder.
    """
    if not folder.is_dir():
        message = f"[run] expected a folder, got {folder}, which is none"
        raise FileNotFoundError(message)
    skipped = set(unhashed)
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        name = relative.as_posix()
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or name in skipped or path.is_symlink() or not path.is_file():
            continue
        if not is_run_manifest(path):
            found[name] = file_hash(path)
    return found


def is_run_manifest(path: Path) -> bool:
    """Whether a file is a run's own record: ``manifest.json`` of a run, or ``*.run.json``."""
    if path.name.endswith(".run.json"):
        return True
    if path.name != "manifest.json":
        return False
    # A folder of recorded states has a manifest too, which is output like any other.
    with path.open("rb") as stream:
        return b'"format": "cogit run"' in stream.read(256)
