"""The two backends. ``load_backend`` picks one by name; neither framework loads before that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from cogit.backends.base import Backend

BackendName = Literal["transformers", "llamacpp"]
BACKENDS: tuple[BackendName, ...] = ("transformers", "llamacpp")

__all__ = ["BACKENDS", "Backend", "BackendName", "load_backend"]


def load_backend(name: str, model: str | Path, **options: Any) -> Backend:
    """Load a model: a folder or hub id for ``transformers``, a GGUF file for ``llamacpp``.

    ``options`` are those of TransformersBackend.load or LlamaCppBackend.
    """
    if name == "transformers":
        from cogit.backends.transformers import TransformersBackend

        return TransformersBackend.load(model, **options)
    if name == "llamacpp":
        from cogit.backends.llamacpp import LlamaCppBackend

        return LlamaCppBackend(model, **options)
    message = f"[backend] expected one of {', '.join(BACKENDS)}, got {name!r}"
    raise ValueError(message)
