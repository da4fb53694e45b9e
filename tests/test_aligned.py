"""Arrays on cache lines."""

from __future__ import annotations

import numpy as np

from cogit.aligned import ALIGNMENT, aligned_float32


def test_aligned_weights_begin_on_a_cache_line() -> None:
    for size in (1, 7, 896):
        array = aligned_float32(np.arange(2 * size, dtype=np.float64).reshape(2, size))
        assert array.ctypes.data % ALIGNMENT == 0
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert aligned_float32(array) is array
        np.testing.assert_array_equal(array.ravel(), np.arange(2 * size))
