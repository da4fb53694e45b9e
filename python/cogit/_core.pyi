"""The compiled module: private; use cogit.kernels."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

class CudaInfo(TypedDict):
    built: bool
    reason: str

class CoreInfo(TypedDict):
    cpu_variant: str
    variants: list[str]
    cuda: CudaInfo
    version: str
    compiler: str

def info() -> CoreInfo: ...
def set_cpu_variant(name: str) -> None: ...
def affine_apply(
    A: NDArray[np.float32],
    a0: NDArray[np.float32],
    B: NDArray[np.float32],
    c: NDArray[np.float32],
    restore: bool,
    h: NDArray[np.float32],
    strengths: NDArray[np.float32] | None,
    out: NDArray[np.float32],
) -> None: ...
