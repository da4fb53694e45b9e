"""Where a matrix product of BLAS is faster than the kernel, measured: the one table of routes.

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


def dense_by_blas(states: int, q: int, device: str) -> bool:
    """True where the number of states and the size of a CPU call are in the table."""
    return device == "cpu" and any(
        states >= least and (most is None or q <= most) for least, most in DENSE_BY_BLAS
    )


@cache
def has_bfloat16_products() -> bool:
    """True on CPUs whose matrix products take bfloat16 (AVX512-BF16 or AMX)."""
    flags = torch.backends.cpu.get_cpu_capability()
    return flags.startswith("AVX512") and bool(torch.cpu._is_avx512_bf16_supported())
