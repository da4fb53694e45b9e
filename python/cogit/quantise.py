"""GGUF files of fewer bits, made by libllama's own quantiser, from a GGUF or a model folder.

A type is a mixture: Q4_K_M holds some tensors in Q6_K, and norms stay in float32. Beyond that, the
quantiser gives a tensor whose rows do not divide into the type's blocks (256 numbers for Q4_K,
32 for Q8_0) another type. Those are counted, so that nothing falls back silently.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cogit.backends.llama_library import load_library
from cogit.backends.llama_model import load_model, quantize_file
from cogit.demo.convert import convert_to_gguf
from cogit.errors import ArtefactError
from cogit.inspection import inspect_path

# The types that each mixture has by design; the first one gives it its name.
TYPES: Mapping[str, tuple[str, ...]] = {
    "f32": ("F32",),
    "f16": ("F16",),
    "q8_0": ("Q8_0",),
    "q4_k_m": ("Q4_K", "Q6_K"),
}
_FULL = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Quantised:
    """A GGUF file that was made, and opened.

    tensors: how many of two dimensions or more have which type. fallbacks: those whose type is
    none of the mixture's, by name.
    """

    path: Path
    kind: str
    n_bytes: int
    tensors: Mapping[str, int]
    fallbacks: Mapping[str, str]

    def describe(self) -> str:
        """Its size, its types, and how many tensors could not have the type that was asked for."""
        types = ", ".join(f"{count} {name}" for name, count in self.tensors.items())
        line = f"{self.kind}, {self.n_bytes / 2**20:.1f} MiB: {types}"
        if self.fallbacks:
            kept = Counter(self.fallbacks.values())
            others = ", ".join(f"{count} in {name}" for name, count in kept.items())
            line += f"; {len(self.fallbacks)} not of this type ({others})"
        return line


def quantise(source: str | Path, out: str | Path, kind: str) -> Quantised:
    """Write a GGUF file of full precision, or the model in a folder, as f32, f16, q8_0 or q4_k_m.

    Raises ValueError for another type or a source of less than 16 bits, FileExistsError where
    ``out`` exists, FileNotFoundError without a source or a folder for it, ArtefactError for a file
    that cannot be read or a result that does not open, BackendMissingError without libllama or the
    converter. A failure leaves no file behind.
    """
    given, target = Path(source), Path(out)
    if kind not in TYPES:
        message = f"[quantise] expected one of {', '.join(TYPES)}, got {kind!r}"
        raise ValueError(message)
    if target.exists() or target.is_symlink():
        message = f"[quantise] expected a new file, got {target}, which exists; name another"
        raise FileExistsError(message)
    if not target.absolute().parent.is_dir():
        message = f"[quantise] expected an existing folder, got {target.parent}; create it first"
        raise FileNotFoundError(message)
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".quantise-") as folder:
        full, made = Path(folder) / "full.gguf", Path(folder) / "made.gguf"
        if given.is_dir():
            convert_to_gguf(given, full)
        else:
            _require_full(given)
            full = given
        quantize_file(load_library(), full, made, kind)
        _require_opens(made)
        made.replace(target)
    return _described(target, kind)


def _require_full(source: Path) -> None:
    facts = inspect_path(source)
    if facts["kind"] != "gguf" or facts["file_type"] not in _FULL:
        message = (
            f"[quantise] expected a GGUF model of {', '.join(_FULL)}, got {source}, "
            f"{facts.get('file_type') or facts['kind']}; quantise from full precision"
        )
        raise ValueError(message)


def _require_opens(path: Path) -> None:
    """ArtefactError unless libllama loads the whole file."""
    library = load_library()
    library.api.llama_model_free(load_model(library, path, use_mmap=False))


def _described(path: Path, kind: str) -> Quantised:
    from gguf import GGUFReader

    try:
        tensors = {
            str(tensor.name): str(tensor.tensor_type.name)
            for tensor in GGUFReader(path).tensors
            if sum(size > 1 for size in tensor.shape) > 1
        }
    except (ValueError, KeyError, IndexError) as error:
        message = f"[quantise] expected a whole GGUF file in {path}, got: {error}"
        raise ArtefactError(message) from error
    fallbacks = {name: found for name, found in tensors.items() if found not in TYPES[kind]}
    counted = dict(Counter(tensors.values()).most_common())
    return Quantised(path, kind, path.stat().st_size, counted, fallbacks)
