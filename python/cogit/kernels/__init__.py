"""The compiled kernels for torch tensors and NumPy arrays: zero copy, and nothing falls back.

Each kernel has its plain definition in :mod:`cogit.reference`, which is what the tests trust, and
its form in plain torch in :mod:`cogit.kernels.plain`, which is what gradients go through. The same
kernels are registered with torch as ``torch.ops.cogit.*`` by :mod:`cogit.kernels.library`.
"""

from __future__ import annotations

from cogit.kernels.affine import CompiledAffine, affine_apply, affine_apply_numpy
from cogit.kernels.core import info, set_threads
from cogit.kernels.dense import DenseChange, Storage, dense_apply

__all__ = [
    "CompiledAffine",
    "DenseChange",
    "Storage",
    "affine_apply",
    "affine_apply_numpy",
    "dense_apply",
    "info",
    "set_threads",
]
