"""The compiled module, or one sentence on what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cogit.errors import BackendMissingError

try:
    from cogit import _core as core
except ImportError as error:
    _MESSAGE = f"[kernels] expected the compiled module cogit._core, got {error}; run pip install ."
    raise BackendMissingError(_MESSAGE) from error

if TYPE_CHECKING:
    from cogit._core import CoreInfo

__all__ = ["core", "info", "require_cuda", "set_threads"]


def info() -> CoreInfo:
    """The CPU variant that runs, those this machine could run, threads, and what CUDA there is."""
    return core.info()


def set_threads(threads: int) -> None:
    """How many threads a large call on NumPy arrays may use; torch tensors follow torch's setting.

    The default is COGIT_NUM_THREADS, else the cores this process may run on. ValueError below 1.
    """
    core.set_threads(threads)


def require_cuda(where: str) -> None:
    """BackendMissingError, saying why, unless the kernels and torch can both use a GPU."""

    cuda = core.info()["cuda"]
    if not cuda["built"]:
        message = (
            f"[{where}] expected a build with CUDA kernels, got one without ({cuda['reason']}); "
            "build where nvcc is installed, or use the CPU"
        )
        raise BackendMissingError(message)
    if not torch.cuda.is_available():
        message = f"[{where}] expected a CUDA device, got none that torch can use; use the CPU"
        raise BackendMissingError(message)
