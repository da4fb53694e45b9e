"""The steering kernel on torch tensors and NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch.compiler import is_compiling

from cogit.kernels import library
from cogit.kernels.core import core, require_cuda
from cogit.kernels.routes import LEAST_RANK, affine_by_blas, affine_products_by_blas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.affine import Affine

_WHERE = "affine_apply"


class CompiledAffine:
    """An affine placed on a device, its weights checked once: what a hook applies to every token.

    Raises BackendMissingError for a CUDA device in a build without CUDA kernels.
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
        # Looked up once: this is called for every token and block.
        self._apply_new = self._core.apply_new
        self._by_blas = affine.rank >= LEAST_RANK
        self._cast: dict[torch.dtype, tuple[torch.Tensor, ...]] = {}

    def apply(
        self,
        h: torch.Tensor,
        strengths: torch.Tensor | None = None,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """restore(h + s * ((h Aᵀ + a0) B + c)), row by row.

        Weights and sums are float32 whatever the dtype of h; a bfloat16 or float16 result is
        rounded once. Shapes where BLAS is faster take that route instead
        (:mod:`cogit.kernels.routes`).

        h: (..., n, d_model) float32, bfloat16 or float16 on the affine's device, last stride 1,
        rows at equal distances. strengths: (number of rows,) float32, multiplies the change of each
        row before its norm is restored; a row of strength 0 is copied bit for bit. out: like h, may
        be h itself. Returns out, or a new tensor.

        Where h needs a gradient, and under torch.compile, the call goes through
        ``torch.ops.cogit.affine_apply``, which has one; ``out`` is refused then.

        Raises TypeError or ValueError for anything else.
        """
        if out is None:
            if not self._by_blas and not is_compiling():
                new: torch.Tensor | None = self._apply_new(h, strengths)
                if new is not None:
                    return new
            return self._elsewhere(h, strengths)
        self._core.apply(h, strengths, out)
        if not out.is_inference():
            # What autograd saved of this memory is stale now; it finds out by the version.
            torch.autograd.graph.increment_version(out)
        return out

    def _elsewhere(self, h: torch.Tensor, strengths: torch.Tensor | None) -> torch.Tensor:
        """Calls that autograd, torch.compile or BLAS may have to see."""
        if not isinstance(h, torch.Tensor) or h.shape[-1:] != (self.affine.d_model,):
            return cast(torch.Tensor, self._apply_new(h, strengths))  # says what is wrong with it
        wanted = torch.is_grad_enabled() and (
            h.requires_grad or (strengths is not None and strengths.requires_grad)
        )
        if wanted or is_compiling():
            through = library.affine_apply(h, *self._weights, self.affine.restore, strengths)
            return cast(torch.Tensor, through)
        if affine_by_blas(h, self.affine.rank):
            if h.dtype not in self._cast:
                self._cast[h.dtype] = tuple(x.to(h.dtype) for x in self._weights[:3])
            return affine_products_by_blas(self._core, self._cast[h.dtype], h, strengths)
        return cast(torch.Tensor, self._apply_new(h, strengths))


def affine_apply(
    affine: Affine,
    h: torch.Tensor,
    strengths: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Apply an affine once: ``CompiledAffine(affine, h.device).apply(h, strengths, out)``."""
    return CompiledAffine(affine, getattr(h, "device", "cpu")).apply(h, strengths, out)


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
