"""The compiled module: private; use cogit.kernels."""

from typing import Any, TypedDict

class CudaDevice(TypedDict):
    name: str
    capability: str
    multiprocessors: int
    memory: int

class CudaInfo(TypedDict):
    built: bool
    reason: str
    runtime: int
    driver: int
    devices: list[CudaDevice]

class CoreInfo(TypedDict):
    cpu_variant: str
    variants: list[str]
    threads: int
    cuda: CudaInfo
    version: str
    compiler: str

# Arrays are torch tensors or NumPy arrays; the module checks them itself.
class Affine:
    def __init__(self, A: Any, a0: Any, B: Any, c: Any, restore: bool) -> None: ...
    def apply(self, h: Any, strengths: Any, out: Any, threads: int = 0) -> None: ...
    def finish(self, h: Any, change: Any, strengths: Any, out: Any) -> None: ...
    def apply_new(self, h: Any, strengths: Any) -> Any: ...

def dense_apply(
    D: Any,
    scales: Any,
    psi: Any,
    out: Any,
    a: float,
    b: float,
    normalise: bool,
    threads: int = 0,
) -> None: ...
def dense_check(D: Any, scales: Any, psi: Any) -> None: ...
def dense_unpack(D: Any, scales: Any, out: Any) -> None: ...
def dense_finish(psi: Any, change: Any, a: float, b: float, normalise: bool) -> None: ...
def info() -> CoreInfo: ...
def set_cpu_variant(name: str) -> None: ...
def set_threads(threads: int) -> None: ...
def probe_read(array: Any) -> float: ...
def probe_multiply_add(rounds: int) -> int: ...
def probe_dispatch(a: Any, b: Any, c: Any, d: Any, e: Any) -> int: ...
