"""A dense complex operator on many states: its change U - I, stored small, and applied in one pass.

Blending a unitary with the identity and renormalising, (1 - λ)ψ + λUψ, is ψ + λDψ with D = U - I.
D is what is stored: near the identity U itself cannot be quantised, because its rounding would be
as large as the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

from cogit.kernels import library, plain
from cogit.kernels.core import core
from cogit.kernels.routes import dense_by_blas, dense_product_by_blas

if TYPE_CHECKING:
    from numpy.typing import NDArray

Storage = Literal["complex64", "bf16", "int8"]
_STORAGES = ("complex64", "bf16", "int8")


@dataclass(frozen=True)
class DenseChange:
    """D = U - I of a dense operator on C^q.

    values: (q, q) complex64, or (q, q, 2) bfloat16 or int8 pairs of real and imaginary part.
    scales: (q,) float32 for int8: a row's entries are its values times its scale.

    Relative error of the change Dψ: float32's for complex64, below 3e-3 for bfloat16 and 2e-2 for
    int8. 8, 4 and 2 bytes an entry.
    """

    values: torch.Tensor
    scales: torch.Tensor | None = None

    @classmethod
    def from_unitary(cls, unitary: torch.Tensor, storage: Storage = "complex64") -> DenseChange:
        """Store U - I. unitary: (q, q) complex; any square matrix will do."""
        return cls.from_change(_square("unitary", unitary), storage, subtract_identity=True)

    @classmethod
    def from_change(
        cls,
        change: torch.Tensor,
        storage: Storage = "complex64",
        *,
        subtract_identity: bool = False,
    ) -> DenseChange:
        """Store a change D itself. ValueError for values that are not finite."""

        if storage not in _STORAGES:
            message = f"[dense] expected a storage among {', '.join(_STORAGES)}, got {storage!r}"
            raise ValueError(message)
        exact = _square("change", change).detach().resolve_conj()
        if subtract_identity:
            # Before rounding: a complex128 unitary near the identity keeps all of its change.
            exact = exact - torch.eye(len(exact), dtype=exact.dtype, device=exact.device)
        if not torch.isfinite(torch.view_as_real(exact)).all():
            message = "[dense] expected finite values in the change, got NaN or infinity"
            raise ValueError(message)
        pairs = torch.view_as_real(exact.to(torch.complex64)).contiguous()
        if storage == "complex64":
            return cls(torch.view_as_complex(pairs))
        if storage == "bf16":
            return cls(pairs.to(torch.bfloat16))
        scales = pairs.abs().amax(dim=(1, 2)) / 127
        steps = pairs / torch.where(scales == 0, 1.0, scales)[:, None, None]
        return cls(steps.round_().to(torch.int8), scales)

    @property
    def q(self) -> int:
        return int(self.values.shape[0])

    @property
    def nbytes(self) -> int:
        """Memory of the stored change in bytes."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def to(self, device: torch.device | str) -> DenseChange:
        return DenseChange(
            self.values.to(device), None if self.scales is None else self.scales.to(device)
        )

    def dense(self) -> torch.Tensor:
        """What is stored, as a (q, q) complex64 matrix."""
        return plain.widened(self.values, self.scales)

    def apply(
        self,
        psi: torch.Tensor,
        strength: float = 1.0,
        *,
        normalise: bool = True,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(1 - λ)ψ + λUψ, brought to unit norm where ``normalise``. psi: (..., n, q) complex64."""
        result = dense_apply(
            self.values, psi, b=strength, normalise=normalise, scales=self.scales, out=out
        )
        return cast(torch.Tensor, result)


def dense_apply(
    D: torch.Tensor | NDArray[Any],
    psi: torch.Tensor | NDArray[np.complex64],
    *,
    a: float = 1.0,
    b: float = 1.0,
    normalise: bool = False,
    scales: torch.Tensor | NDArray[np.float32] | None = None,
    out: torch.Tensor | NDArray[np.complex64] | None = None,
) -> torch.Tensor | NDArray[np.complex64]:
    """normalise(a·ψ + b·Dψ) for every state; sums are float32. A state of norm 0 stays as it is.

    D: (q, q) complex64, or (q, q, 2) bfloat16 or int8 pairs, the latter with ``scales`` (q,)
    float32. psi: (..., n, q) complex64 on the same device, last stride 1. out: like psi, with
    memory of its own. All are torch tensors or all NumPy arrays. Returns out, or a new one.

    With torch tensors, a gradient of ψ or D is kept (then ``out`` is refused) and many states go to
    BLAS (:mod:`cogit.kernels.routes`). Raises TypeError or ValueError for what does not fit,
    BackendMissingError for CUDA tensors in a build without CUDA kernels.
    """
    if isinstance(psi, np.ndarray):
        out = np.empty(psi.shape, np.complex64) if out is None else out
        core.dense_apply(D, scales, psi, out, a, b, normalise)
        return out

    if out is None and isinstance(psi, torch.Tensor) and isinstance(D, torch.Tensor):
        grad = torch.is_grad_enabled() and (psi.requires_grad or D.requires_grad)
        if grad or torch.compiler.is_compiling():
            through = library.dense_apply(psi, D, scales, a, b, normalise)
            return cast(torch.Tensor, through)
        if b != 0 and dense_by_blas(psi):
            core.dense_check(D, scales, psi)
            return dense_product_by_blas(psi, D, cast(Any, scales), a, b, normalise)
    target = torch.empty_like(psi) if out is None else cast(torch.Tensor, out)
    core.dense_apply(D, scales, psi, target, a, b, normalise)
    if out is not None and not target.is_inference():
        # What autograd saved of this memory is stale now; it finds out by the version.
        torch.autograd.graph.increment_version(target)
    return target


def _square(name: str, matrix: torch.Tensor) -> torch.Tensor:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.is_complex():
        message = (
            f"[dense] expected {name} as a complex (q, q) matrix, got {tuple(matrix.shape)} "
            f"{matrix.dtype}"
        )
        raise ValueError(message)
    return matrix
