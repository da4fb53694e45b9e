"""The compiled kernels for torch tensors and NumPy arrays: zero copy, and nothing falls back.

Each kernel has its plain definition in :mod:`cogit.reference`, which is what the tests trust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cogit.errors import BackendMissingError

try:
    from cogit import _core
except ImportError as error:
    _MESSAGE = f"[kernels] expected the compiled module cogit._core, got {error}; run pip install ."
    raise BackendMissingError(_MESSAGE) from error

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from cogit._core import CoreInfo
    from cogit.affine import Affine

_WHERE = "affine_apply"


def affine_apply(
    affine: Affine,
    h: torch.Tensor,
    strengths: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Apply an affine to rows of the residual stream: restore(h + s * ((h Aᵀ + a0) B + c)).

    h: (n, d_model) float32 on the CPU, any row stride, last stride 1. strengths: (n,) float32
    multiplies the change of each row before its norm is restored; a row of strength 0 is copied
    bit for bit. out: like h, may be h itself. Returns out, or a new tensor. Not differentiable.

    Raises TypeError or ValueError for anything else, BackendMissingError for a CUDA tensor.
    """
    import torch

    rows = _array("h", h)
    if out is None:
        out = torch.empty_like(h)
        target = out.numpy()
    else:
        target = rows if out is h else _array("out", out)
        if not out.is_inference():
            # What autograd saved of this memory is stale now; it finds out by the version.
            torch.autograd.graph.increment_version(out)
    factors = None if strengths is None else _array("strengths", strengths)
    _core.affine_apply(
        affine.A, affine.a0, affine.B, affine.c, affine.restore, rows, factors, target
    )
    return out


def affine_apply_numpy(
    affine: Affine,
    h: NDArray[np.float32],
    strengths: NDArray[np.float32] | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """The same for float32 NumPy arrays."""
    if out is None:
        out = np.empty(np.shape(h), np.float32)
    _core.affine_apply(affine.A, affine.a0, affine.B, affine.c, affine.restore, h, strengths, out)
    return out


def info() -> CoreInfo:
    """The CPU variant that runs, those this machine could run, and whether CUDA was built."""
    return _core.info()


def _array(name: str, tensor: torch.Tensor) -> NDArray[np.float32]:
    """The tensor's own memory; dtype and shape are checked by the kernel's binding."""
    try:
        if tensor.requires_grad:
            tensor = _without_grad(name, tensor)
        array: NDArray[np.float32] = tensor.numpy()
    except (AttributeError, RuntimeError, TypeError) as error:
        raise _refusal(name, tensor) from error
    return array


def _without_grad(name: str, tensor: torch.Tensor) -> torch.Tensor:
    import torch

    if torch.is_grad_enabled():
        message = (
            f"[{_WHERE}] expected {name} without gradient, got requires_grad=True while grad is "
            f"enabled; use torch.no_grad() or {name}.detach()"
        )
        raise ValueError(message)
    return tensor.detach()


def _refusal(name: str, tensor: object) -> Exception:
    """Why torch would not lend its memory to NumPy, as the error to raise."""
    import torch

    if not isinstance(tensor, torch.Tensor):
        expected, got = "a torch tensor", type(tensor).__name__
        remedy = "use affine_apply_numpy for NumPy arrays"
    elif tensor.is_cuda:
        message = (
            f"[{_WHERE}] expected {name} on the CPU, got {tensor.device}: this build has no CUDA "
            f"kernels ({info()['cuda']['reason']}); move it with .cpu()"
        )
        return BackendMissingError(message)
    elif tensor.device.type != "cpu":
        expected, got, remedy = "on the CPU", str(tensor.device), "move it with .cpu()"
    elif tensor.layout is not torch.strided:
        expected, got, remedy = "a dense tensor", str(tensor.layout), "convert it with .to_dense()"
    elif tensor.dtype is not torch.float32:
        expected, got, remedy = "of dtype float32", str(tensor.dtype), "convert it with .float()"
    elif tensor.is_conj() or tensor.is_neg():
        expected, got = "without a conjugate or negative bit", "a lazy view with one"
        remedy = f"use {name}.resolve_conj().resolve_neg()"
    else:
        expected, got, remedy = "a plain tensor", type(tensor).__name__, "pass a torch.Tensor"
    return TypeError(f"[{_WHERE}] expected {name} {expected}, got {got}; {remedy}")
