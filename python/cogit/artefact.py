"""One container for everything cogit saves: safetensors with JSON metadata, never pickle.

The header's ``__metadata__`` holds four strings: ``format`` ("cogit"), ``format_version``, ``kind``
("intervention", "subspace", "activations") and ``json`` (everything else). Writing is atomic:
a reader sees the old file or the new one, and a failed write leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.errors import ArtefactError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT_VERSION = 1
_MAX_FILE = 16 * 2**30
Tensors = Mapping[str, "NDArray[Any]"]


def write(
    path: str | Path,
    kind: str,
    tensors: Tensors,
    metadata: Mapping[str, Any],
    *,
    version: int = FORMAT_VERSION,
) -> Path:
    """Save tensors and metadata to ``path``. ArtefactError if a tensor is not finite.

    version: a higher one where an older reader would overlook what decides the output.
    """
    from safetensors.numpy import save

    target = Path(path)
    arrays = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    _check_finite(target, arrays)
    header = {
        "format": "cogit",
        "format_version": str(version),
        "kind": kind,
        "json": json.dumps(metadata, sort_keys=True, allow_nan=False),
    }
    write_bytes(target, _sorted_header(save(arrays, metadata=header)))
    return target


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing."""
    if not path.parent.is_dir():
        message = f"[save] expected an existing folder, got {path.parent}; create it first"
        raise FileNotFoundError(message)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(
    path: str | Path, kind: str, *, newest: int = FORMAT_VERSION
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Load tensors and metadata, checking container, version and kind.

    newest: the highest format version that is understood for this kind.

    Raises FileNotFoundError, or ArtefactError naming what is wrong: truncated, not safetensors,
    not written by cogit, another version, another kind, not finite.
    """
    from safetensors import SafetensorError, safe_open

    source = Path(path)
    if not source.is_file():
        state = "a folder" if source.is_dir() else "which does not exist"
        message = f"[load] expected a file, got {source}, {state}"
        raise FileNotFoundError(message)
    if source.stat().st_size > _MAX_FILE:
        message = f"[load] {source} is larger than {_MAX_FILE // 2**30} GiB, the limit for a file"
        raise ArtefactError(message)
    try:
        with safe_open(source, framework="np") as stream:
            header = stream.metadata() or {}
            metadata = _check_header(source, kind, header, newest)
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError) as error:
        message = f"[load] expected a whole safetensors file, got {source}: {_one_line(error)}"
        raise ArtefactError(message) from error
    _check_finite(source, tensors)
    return tensors, metadata


def content_hash(tensors: Tensors, metadata: Mapping[str, Any]) -> str:
    """SHA-256 over names, dtypes, shapes, bytes and metadata; the same on every machine."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True, allow_nan=False).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name}:{array.dtype.name}:{array.shape}".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def _sorted_header(data: bytes) -> bytes:
    """The same safetensors file with its header in one order: safetensors shuffles the metadata."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors stay aligned
    return len(header).to_bytes(8, "little") + header + data[start:]


def _check_header(
    source: Path, kind: str, header: Mapping[str, str], newest: int
) -> dict[str, Any]:
    if header.get("format") != "cogit":
        message = f"[load] expected a file written by cogit, got {source} of another origin"
        raise ArtefactError(message)
    if header.get("format_version") not in [str(v) for v in range(FORMAT_VERSION, newest + 1)]:
        versions = (
            f"{FORMAT_VERSION}" if newest == FORMAT_VERSION else f"{FORMAT_VERSION}..{newest}"
        )
        message = (
            f"[load] expected format version {versions}, got {header.get('format_version')} "
            f"in {source}; use the cogit release that wrote it"
        )
        raise ArtefactError(message)
    if header.get("kind") != kind:
        message = f"[load] expected a file of kind {kind}, got {header.get('kind')} in {source}"
        raise ArtefactError(message)
    try:
        metadata = json.loads(header.get("json", ""))
    except (ValueError, RecursionError) as error:
        message = f"[load] expected JSON metadata in {source}, got {_one_line(error)}"
        raise ArtefactError(message) from error
    if not isinstance(metadata, dict):
        message = f"[load] expected a JSON object as metadata of {source}"
        raise ArtefactError(message)
    return metadata


def _check_finite(source: Path, tensors: Tensors) -> None:
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            message = f"[artefact] expected finite values in {name} of {source}, got NaN or inf"
            raise ArtefactError(message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
