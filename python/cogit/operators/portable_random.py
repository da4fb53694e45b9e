"""A tiny counter-based generator that any language can repeat byte for byte.

SplitMix64 (Steele, Lea & Flood 2014) over a counter gives 53-bit uniforms, Box-Muller normals. The
C library's log, cos and sin are called one number at a time, so that a C program calling the same
functions gets the same bits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MASK = (1 << 64) - 1


def uniform(seed: int, stream: int, n: int) -> NDArray[np.float64]:
    """n numbers in (0, 1), the k-th being (splitmix64(start + k) >> 11 + 0.5) / 2^53."""
    start = _mix((seed & _MASK) ^ _mix(stream & _MASK))
    counters = np.arange(n, dtype=np.uint64) + np.uint64(start)
    z = (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def normal(seed: int, stream: int, n: int) -> NDArray[np.float64]:
    """n standard normals, two from each pair of uniforms."""
    pairs = uniform(seed, stream, 2 * ((n + 1) // 2)).reshape(-1, 2)
    values: list[float] = []
    for u, v in pairs.tolist():
        radius = math.sqrt(-2.0 * math.log(u))
        values += [radius * math.cos(2.0 * math.pi * v), radius * math.sin(2.0 * math.pi * v)]
    return np.array(values[:n])


def _mix(value: int) -> int:
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
