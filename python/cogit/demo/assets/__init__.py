"""Where the shipped demo model lies."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent
GGUF_TYPES = ("f32", "f16", "q8_0")


def demo_model(backend: str, gguf_type: str = "f32") -> Path:
    """The demo model for a backend: a folder for ``transformers``, a GGUF file for ``llamacpp``.

    Raises ValueError for an unknown backend or type, FileNotFoundError if the package lacks it.
    """
    if backend not in ("transformers", "llamacpp") or gguf_type not in GGUF_TYPES:
        message = (
            f"[demo] expected transformers or llamacpp and a type among {', '.join(GGUF_TYPES)}, "
            f"got {backend!r} and {gguf_type!r}"
        )
        raise ValueError(message)
    name = "model" if backend == "transformers" else f"demo-{gguf_type}.gguf"
    path = _FOLDER / name
    present = (path / "config.json").is_file() if backend == "transformers" else path.is_file()
    if not present:
        message = f"[demo] expected the shipped demo model at {path}, got none; reinstall cogit"
        raise FileNotFoundError(message)
    return path
