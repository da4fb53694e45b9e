"""Models for the commands: which one is meant, loading it, and saying what runs it."""

from __future__ import annotations

import os
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from cogit.backends import Backend
    from cogit.memory_estimate import Workload

MODEL_VARIABLE = "COGIT_MODEL"


class BackendChoice(StrEnum):
    transformers = "transformers"
    llamacpp = "llamacpp"


class Dtype(StrEnum):
    f32 = "f32"
    bf16 = "bf16"
    f16 = "f16"


@dataclass(frozen=True)
class ModelSource:
    """A folder, hub id or GGUF file, and where the choice came from."""

    path: str
    origin: str

    @classmethod
    def choose(cls, backend: BackendChoice, given: str | None) -> Self:
        """The flag, else the settings, else the environment, else the shipped demo model."""
        shared = SHARED_MODEL.get()
        if shared is not None and given in (None, shared.path):
            return cls(shared.path, shared.origin)
        if given:
            return cls(given, "--model")
        if named := os.environ.get(MODEL_VARIABLE):
            return cls(named, MODEL_VARIABLE)
        from cogit.demo.assets import demo_model

        return cls(str(demo_model(backend.value)), "the shipped demo model")


# Of the settings, while a command runs; see `cogit.cli.settings_map`.
SHARED_MODEL: ContextVar[ModelSource | None] = ContextVar("cogit_shared_model", default=None)


@dataclass(frozen=True)
class Runtime:
    """How to run a model. n_ctx is of llamacpp, device and dtype of transformers.

    assume_yes, check_memory: go on where memory may not suffice; look at all before the load.
    """

    device: str = "auto"
    dtype: Dtype = Dtype.f32
    threads: int | None = None
    n_ctx: int | None = None
    n_parallel: int = 1
    assume_yes: bool = False
    check_memory: bool = True

    def require(self, backend: BackendChoice) -> None:
        """ValueError for a flag that the backend cannot honour: none is ignored."""
        if backend is BackendChoice.transformers:
            if self.n_ctx is not None:
                message = (
                    "[n-ctx] expected --n-ctx with --backend llamacpp only, got transformers, "
                    "which takes the model's own context; leave it out"
                )
                raise ValueError(message)
            return
        if self.dtype is not Dtype.f32:
            message = (
                f"[dtype] expected no --dtype with --backend llamacpp, got {self.dtype.value}: the "
                f"GGUF file decides; give a file of that type instead"
            )
            raise ValueError(message)
        if self.device not in ("auto", "cpu"):
            message = (
                f"[device] expected auto or cpu with --backend llamacpp, got {self.device}: the "
                f"packaged libllama is built for the CPU; use --backend transformers"
            )
            raise ValueError(message)


def open_model(
    backend: BackendChoice,
    model: str,
    runtime: Runtime,
    *,
    workload: Workload | None = None,
    **options: Any,
) -> Backend:
    """Load a model, if its memory suffices or someone says so; say on which device and why.

    workload: what will be run, as far as it is known. ValueError, OSError or BackendMissingError if
    the model cannot be had, MemoryRefusedError if it does not fit.
    """
    from cogit.backends import load_backend
    from cogit.cli.memory_check import check_model
    from cogit.cli.run_record import noted

    runtime.require(backend)
    device = check_model(backend.value, model, runtime, workload)
    if backend is BackendChoice.llamacpp:
        opened = load_backend(
            backend.value,
            model,
            n_ctx=runtime.n_ctx,
            n_parallel=runtime.n_parallel,
            threads=runtime.threads,
            **options,
        )
        return noted(opened, describe_runtime(opened, runtime), runtime.threads)
    from cogit.disk import require_disk_for_model

    require_disk_for_model(model)
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if runtime.threads is not None:
        torch.set_num_threads(runtime.threads)
    opened = load_backend(backend.value, model, device=device, dtype=runtime.dtype.value, **options)
    return noted(opened, describe_runtime(opened, runtime), runtime.threads)


def describe_runtime(backend: Backend, runtime: Runtime) -> dict[str, str]:
    """Kernel, dtype and device of a loaded model, for people and for JSON."""
    loaded: Any = backend
    if backend.name == BackendChoice.llamacpp.value:
        from cogit.inspection import file_type_name

        declared = loaded.engine.metadata.get("general.file_type")
        dtype = "undeclared type" if declared is None else file_type_name(int(declared))
        return {"kernel": "llama.cpp graph operation", "dtype": dtype, "device": "cpu"}
    from cogit import kernels

    kernel = str(loaded.kernel)
    if kernel == "compiled":
        kernel = f"compiled for {kernels.info()['cpu_variant']}"
    return {"kernel": kernel, "dtype": runtime.dtype.value, "device": str(loaded.device)}


def display_name(source: ModelSource) -> str:
    """A short name for people: the last part of a path, or the hub id."""
    path = Path(source.path)
    return path.name if path.exists() else source.path
