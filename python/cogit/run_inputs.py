"""What a run has read, so that it can be recognised: files and folders by hash, hub ids by name.

A digest is ``sha256:`` over the whole file, or ``ends:`` over name, size and both ends of a file
above a gigabyte, as a model's fingerprint is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cogit.entries import entry
from cogit.hashing import file_hash
from cogit.identity import file_fingerprint

Given = str | Path | Sequence[str] | None
_WHOLE = 2**30
_MOST_FILES = 20_000
_DATASET = "dataset:"
_PACKAGED = Path(__file__).parent / "demo" / "assets"


def describe_inputs(inputs: Mapping[str, Given]) -> dict[str, list[dict[str, Any]]]:
    """What each input is now, JSON-ready, by flag.

    Each description has a ``kind``: file or folder (path, digests), packaged (a file of cogit's
    own), dataset (its specification) or name (anything else, such as a hub id). ValueError for a
    folder of more than 20,000 files.
    """
    found = {flag: list(_described(given)) for flag, given in inputs.items() if given is not None}
    return {flag: parts for flag, parts in found.items() if parts}


def is_packaged(given: Given) -> bool:
    """Whether an input is cogit's own demo model."""
    if not isinstance(given, str | Path):
        return False
    return Path(given).absolute().is_relative_to(_PACKAGED.absolute())


def require_unchanged(
    flag: str, described: Mapping[str, Any], folder: Path
) -> Iterator[tuple[str, str]]:
    """Check one input where it lies now, relative paths from ``folder``; yields (what, remark).

    Raises FileNotFoundError or ValueError naming a file that is gone or has other contents.
    ValueError, KeyError or TypeError for an entry that is none. A remark is what could not be
    checked, or a file that is new in a folder.
    """
    kind = entry(described, "kind", str)
    if kind in ("dataset", "name"):
        yield entry(described, "path", str), f"{kind}, which is checked by the run alone"
        return
    given = entry(described, "path", str)
    place = _PACKAGED / given if kind == "packaged" else folder / given
    if kind not in ("file", "folder", "packaged") or "\0" in given:
        message = f"[replay] expected an input that is a file or a folder, got {kind[:40]!r}"
        raise ValueError(message)
    files = entry(described, "files", dict)
    for name, digest in files.items():
        _require_inside(name)
        _require_same(flag, place / name if name else place, str(digest))
    if place.is_dir() and kind == "folder":
        for new in sorted({name for name, _ in _listed(place)} - set(files)):
            yield str(place / new), "new in a folder of input"


def _described(given: Given) -> Iterator[dict[str, Any]]:
    if given is None:
        return
    if not isinstance(given, str | Path):
        for one in given:
            yield from _described(one)
        return
    text = str(given)
    if text.startswith(_DATASET):
        yield {"kind": "dataset", "path": text}
        named = Path(text.removeprefix(_DATASET).partition("?")[0])
        if os.path.lexists(named):
            yield from _described(named)
        return
    if not _exists(text):
        parts = [part.strip() for part in text.split(",")]
        if len(parts) == 2 and all(map(_exists, parts)):
            for part in parts:
                yield from _described(part)
        else:
            yield {"kind": "name", "path": text}
        return
    yield _of_path(Path(text))


def _of_path(path: Path) -> dict[str, Any]:
    packaged = is_packaged(path)
    shown = path.absolute().relative_to(_PACKAGED.absolute()) if packaged else path
    kind = "folder" if path.is_dir() else "file"
    files = dict(_listed(path)) if path.is_dir() else {"": path}
    return {
        "kind": "packaged" if packaged else kind,
        "path": str(shown),
        "files": {name: _digest(file) for name, file in files.items()},
    }


def _listed(folder: Path) -> list[tuple[str, Path]]:
    """Relative names and files below a folder, without hidden ones."""
    found: list[tuple[str, Path]] = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            found.append((relative.as_posix(), path))
        if len(found) > _MOST_FILES:
            message = (
                f"[run] expected an input folder of at most {_MOST_FILES} files, got more in "
                f"{folder}; name a folder that holds what is read alone"
            )
            raise ValueError(message)
    return found


def _digest(path: Path) -> str:
    if path.stat().st_size > _WHOLE:
        return f"ends:{file_fingerprint([path])}"
    return f"sha256:{file_hash(path)}"


def _require_same(flag: str, path: Path, digest: str) -> None:
    if not path.is_file():
        message = (
            f"[replay] expected {path}, which the run has read as {flag}, got no file there; put "
            f"it back, or name its folder with --from"
        )
        raise FileNotFoundError(message)
    now = _digest(path)
    if now != digest:
        message = (
            f"[replay] expected {path}, which the run has read as {flag}, unchanged at "
            f"{digest[:19]}…, got {now[:19]}…; put the same file there"
        )
        raise ValueError(message)


def _require_inside(name: str) -> None:
    parts = PurePosixPath(name).parts
    if PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        message = f"[replay] expected an input below its folder, got {name[:60]!r}"
        raise ValueError(message)


def _exists(text: str) -> bool:
    try:
        return os.path.lexists(text)
    except ValueError:
        return False
