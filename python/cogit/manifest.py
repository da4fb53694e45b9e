"""The manifest of a run: what was run, on what, with which seeds and versions, and what came out.

One JSON object, ``manifest.json`` in a run folder or ``FILE.run.json`` beside a single file, from
which ``cogit replay`` repeats the run. ``places`` says where its outputs lie: by flag their name in
``outputs``, "." for the folder itself, null for what is not compared.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cogit import __version__
from cogit.hashing import file_hash as file_hash
from cogit.hashing import tree_hashes
from cogit.run_inputs import Given, describe_inputs

FORMAT = "cogit run"
FORMAT_VERSION = 2
FILE_NAME = "manifest.json"
SIDECAR = ".run.json"
_PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "llama-cpp-python",
    "gguf",
    "numpy",
    "scipy",
    "safetensors",
    "matplotlib",
)


def build_manifest(
    command: str,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    seconds: Mapping[str, float],
    models: Mapping[str, Any],
    inputs: Mapping[str, Given | list[dict[str, Any]]] | None = None,
    seeds: Mapping[str, int] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    threads: int | None = None,
    argv: Sequence[str] = (),
    places: Mapping[str, str | None] | None = None,
    outputs: Mapping[str, str] | None = None,
    unhashed: Iterable[str] = (),
) -> dict[str, Any]:
    """Everything needed to repeat a run and to recognise its outputs.

    Hashes every file that lies in ``folder`` now or below it, except manifests, hidden files and
    ``unhashed`` ones: relative names of outputs that cannot be the same twice, such as logs.

    inputs: by flag a path, several, a hub id or a specification, or what ``describe_inputs`` said
    of it earlier. seeds: by default those of the settings whose names begin with seed. argv: the
    command's name and its arguments, so that the run can be repeated; without, it cannot. threads:
    those that were asked for. outputs: hashes by name, instead of those of the folder.
    """
    skipped = sorted(unhashed)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "command": command,
        "arguments": list(argv),
        "working_folder": str(Path.cwd()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": dict(settings),
        "seeds": dict(_seeds(settings) if seeds is None else seeds),
        "models": dict(models),
        "device": device,
        "dtype": dtype,
        "threads": {"given": threads, "torch": _torch_threads(), "cores": cores()},
        "versions": versions(),
        "builds": builds(),
        "platform": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "system": platform.system(),
            "cpu": cpu_model(),
            "cpu_variant": cpu_variant(),
        },
        "peak_memory_mib": peak_memory_mib(),
        "peak_gpu_memory_mib": peak_gpu_memory_mib(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "inputs": _described(inputs or {}),
        "places": dict({"out": "."} if places is None else places),
        "outputs": dict(tree_hashes(folder, skipped) if outputs is None else outputs),
        "unhashed": skipped,
    }


def versions() -> dict[str, str]:
    """Versions of cogit and of what decides its numbers; ``absent`` where not installed."""
    found = {"cogit": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def builds() -> dict[str, str]:
    """SHA-256 of the compiled parts and of cogit's Python sources; ``absent`` for a part."""
    import hashlib

    package = Path(__file__).parent
    core = sorted(package.glob("_core*.so"))
    library = package / "_llama" / "libllama.so"
    named = os.environ.get("LLAMA_CPP_LIB_PATH")
    if named is not None:
        library = Path(named) / "libllama.so"
    sources = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if relative.parts[0] != "_llama":
            sources.update(relative.as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "core": file_hash(core[0]) if core else "absent",
        "libllama": file_hash(library) if library.is_file() else "absent",
        "sources": sources.hexdigest(),
    }


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return round(peak * unit / 2**20, 1)


def peak_gpu_memory_mib() -> dict[str, dict[str, float]] | None:
    """Peaks of torch's allocator in MiB by CUDA device; None where torch used none."""
    torch: Any = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return {
        f"cuda:{index}": {
            "allocated": round(torch.cuda.max_memory_allocated(index) / 2**20, 1),
            "reserved": round(torch.cuda.max_memory_reserved(index) / 2**20, 1),
        }
        for index in range(torch.cuda.device_count())
    }


def _described(inputs: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Those that were described before, and a description of the others."""
    before = {
        flag: given
        for flag, given in inputs.items()
        if isinstance(given, list) and given and isinstance(given[0], dict)
    }
    others = {flag: given for flag, given in inputs.items() if flag not in before}
    return {**before, **describe_inputs(others)}


def _seeds(settings: Mapping[str, Any]) -> dict[str, int]:
    return {name: value for name, value in settings.items() if name.startswith("seed")}


def _torch_threads() -> int | None:
    torch: Any = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_variant() -> str:
    """Which compiled form of the kernels this process uses."""
    try:
        from cogit import _core
    except ImportError:
        return "absent"
    return str(_core.info()["cpu_variant"])


def cpu_model() -> str:
    source = Path("/proc/cpuinfo")
    if source.is_file():
        for line in source.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
