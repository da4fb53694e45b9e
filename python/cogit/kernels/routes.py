"""Where a matrix product of BLAS is faster than the kernel, measured, and the way there.

Rows of bench/RESULTS.md: ``affine.*.n512`` and ``dense.*.b512`` show the chosen route against the
best torch form. The kernels read their weights once for a few rows, which wins while rows are few
or the rank is low; with many rows and a high rank a blocked matrix product does more with what it
loads. Only the two products move: norms, the addition and the rounding stay in the kernel's own
pass. On CPUs with bfloat16 products a large bfloat16 call uses them, and then its weights and
coefficients are rounded to bfloat16 as in any bfloat16 model: an error of about 2^-8 of the change,
below the rounding of the result as long as the change is shorter than the row.
"""

from __future__ import annotations

from functools import cache

import torch

from cogit.kernels.core import core

# (rows from, rank from) by dtype; nothing else leaves the kernel. CPU only.
AFFINE_BY_BLAS = {torch.float32: (256, 192), torch.bfloat16: (256, 64)}
LEAST_RANK = min(rank for _, rank in AFFINE_BY_BLAS.values())
# (states from, by q at most): a small operator fits the caches whole and BLAS wins earlier.
DENSE_BY_BLAS = ((256, None), (32, 1024))


def affine_by_blas(h: torch.Tensor, rank: int) -> bool:
    """True where rows and rank of a CPU call are in the table."""
    if rank < LEAST_RANK or h.device.type != "cpu":
        return False
    limits = AFFINE_BY_BLAS.get(h.dtype)
    if limits is None or rank < limits[1] or h.numel() < limits[0] * h.shape[-1]:
        return False
    return h.dtype is not torch.bfloat16 or has_bfloat16_products()


def dense_by_blas(psi: torch.Tensor) -> bool:
    """True where the number of states and the size of a CPU call are in the table."""
    if psi.ndim < 2 or psi.device.type != "cpu":
        return False
    q = psi.shape[-1]
    elements = psi.numel()
    return any(
        elements >= max(1, least * q) and (most is None or q <= most)
        for least, most in DENSE_BY_BLAS
    )


def affine_products_by_blas(
    compiled: core.Affine,
    weights: tuple[torch.Tensor, ...],
    h: torch.Tensor,
    strengths: torch.Tensor | None,
) -> torch.Tensor:
    """The two matrix products in h's own dtype; the rest as ever, in float32 and one pass.

    weights: A, a0 and B of ``compiled`` in the dtype of h.
    """
    down, bias, up = weights
    rows = h.reshape(-1, h.shape[-1])
    change = torch.mm(torch.mm(rows, down.T).add_(bias), up)
    out = torch.empty_like(rows)
    compiled.finish(rows, change, strengths, out)
    return out.reshape(h.shape)


def dense_product_by_blas(
    psi: torch.Tensor,
    D: torch.Tensor,
    scales: torch.Tensor | None,
    a: float,
    b: float,
    normalise: bool,
) -> torch.Tensor:
    """The matrix product by BLAS, the blend and the norms in one pass over its result."""
    wide = D
    if not D.is_complex():
        wide = torch.empty(D.shape[:2], dtype=torch.complex64)
        core.dense_unpack(D, scales, wide)
    change = torch.mm(psi.reshape(-1, psi.shape[-1]), wide.T)
    core.dense_finish(psi, change, a, b, normalise)
    return change.reshape(psi.shape)


@cache
def has_bfloat16_products() -> bool:
    """True on CPUs whose matrix products take bfloat16 (AVX512-BF16 or AMX)."""
    flags = torch.backends.cpu.get_cpu_capability()
    return flags.startswith("AVX512") and bool(torch.cpu._is_avx512_bf16_supported())
