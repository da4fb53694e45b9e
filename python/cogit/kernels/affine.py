"""The steering kernel on torch tensors and NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from cogit.kernels import library, plain
from cogit.kernels.core import core, require_cuda, run_affine
from cogit.kernels.routes import affine_by_blas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.affine import Affine

_WHERE = "affine_apply"


class CompiledAffine:
    """An affine placed on a device, its weights checked once: what a hook calls for every token.

    Calling it gives restore(h + s * ((h Aᵀ + a0) B + c)), row by row, with float32 weights and sums
    whatever the dtype of h; a bfloat16 or float16 result is rounded once. Shapes where BLAS is
    faster take that route instead (:mod:`cogit.kernels.routes`).

    h: (..., n, d_model) float32, bfloat16 or float16 on ``device``, last stride 1, rows at equal
    distances. strengths: (number of rows,) float32, multiplies the change of each row before its
    norm is restored; a row of strength 0 is copied bit for bit. out: like h, may be h itself.
    Returns out, or a new tensor.

    Where h needs a gradient (and under torch.compile) the call goes through
    ``torch.ops.cogit.affine_apply``, which has one; then ``out`` is refused.

    Raises TypeError or ValueError for anything else, BackendMissingError for a CUDA device in a
    build without CUDA kernels.
    """

    def __init__(self, affine: Affine, device: torch.device | str = "cpu") -> None:
        self.affine = affine
        self.device = torch.device(device)
        if self.device.type == "cuda":
            require_cuda(_WHERE)

        def placed(weight: NDArray[np.float32]) -> torch.Tensor:
            # On the CPU this is the affine's own array, aligned as the kernel likes it.
            return torch.from_numpy(weight).to(self.device)

        self._weights = placed(affine.A), placed(affine.a0), placed(affine.B), placed(affine.c)
        self._core = core.Affine(*self._weights, affine.restore)

    def __call__(
        self,
        h: torch.Tensor,
        strengths: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if out is None:
            if _needs_autograd(h, strengths):
                through = library.affine_apply(h, *self._weights, self.affine.restore, strengths)
                return cast(torch.Tensor, through)
            if affine_by_blas(h, self.affine.rank):
                return plain.affine_apply(h, *self._weights, self.affine.restore, strengths)
            return run_affine(self._core, h, strengths, torch.empty_like(h))
        run_affine(self._core, h, strengths, out)
        if not out.is_inference():
            # What autograd saved of this memory is stale now; it finds out by the version.
            torch.autograd.graph.increment_version(out)
        return out


def affine_apply(
    affine: Affine,
    h: torch.Tensor,
    strengths: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Apply an affine once: ``CompiledAffine(affine, h.device)(h, strengths, out)``."""
    return CompiledAffine(affine, getattr(h, "device", "cpu"))(h, strengths, out)


def affine_apply_numpy(
    affine: Affine,
    h: NDArray[np.float32 | np.float16],
    strengths: NDArray[np.float32] | None = None,
    out: NDArray[np.float32 | np.float16] | None = None,
) -> NDArray[np.float32 | np.float16]:
    """The same for float32 or float16 NumPy arrays, always by the kernel."""
    if out is None:
        out = np.empty(np.shape(h), getattr(h, "dtype", np.float32))
    compiled = core.Affine(affine.A, affine.a0, affine.B, affine.c, affine.restore)
    compiled.apply(h, strengths, out)
    return out


def _needs_autograd(h: torch.Tensor, strengths: torch.Tensor | None) -> bool:
    if torch.is_grad_enabled() and (
        h.requires_grad or (strengths is not None and strengths.requires_grad)
    ):
        return True
    return torch.compiler.is_compiling()
