"""The manifest of a run: what was run, with which seeds and versions, and what came out."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import resource
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cogit import __version__

_PACKAGES = ("torch", "transformers", "llama-cpp-python", "gguf", "numpy", "scipy", "safetensors")


def build_manifest(
    command: str,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    seconds: Mapping[str, float],
    models: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything needed to repeat a run and to recognise its outputs.

    Hashes every file that lies in ``folder`` now, except the manifest itself.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != "manifest.json")
    return {
        "format_version": 1,
        "command": command,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": dict(settings),
        "models": dict(models),
        "versions": versions(),
        "platform": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": platform.system(),
        },
        "peak_memory_mib": peak_memory_mib(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "outputs": {path.name: file_hash(path) for path in files},
    }


def versions() -> dict[str, str]:
    """Versions of cogit and of what decides its numbers; ``absent`` where not installed."""
    found = {"cogit": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(peak * unit / 2**20, 1)


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
