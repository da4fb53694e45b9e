"""The compiled kernels against the best plain torch, on one thread.

``affine.…``: see bench/affine.py. ``dense.…``: see bench/dense.py. ``dispatch.tensors5``: what it
costs to check five tensors before any work, against torch looking at them (five calls of data_ptr).

Both sides reuse the memory that they freed, so page faults of fresh results do not count.
"""

from __future__ import annotations

import time

import torch

from bench import affine, dense
from bench.rows import Row, arguments, finish
from bench.timing import compare, keep_freed_memory
from cogit.kernels.core import core


def dispatch_row(*, quick: bool) -> Row:
    """Five small tensors through all the checks of a call, and nothing else."""
    tensors = [torch.ones(4) for _ in range(5)]

    def pointers() -> list[int]:
        return [tensor.data_ptr() for tensor in tensors]

    timing = compare(
        {"ours": lambda: core.probe_dispatch(*tensors), "torch": pointers},
        check=lambda: None,
        rounds=5 if quick else 25,
    )
    value, baseline = (1e6 * timing.median(name) for name in ("ours", "torch"))
    return Row("dispatch.tensors5", value, "us", baseline, note="five calls of data_ptr, no checks")


def peak_operations() -> float:
    """Multiplications and additions a second of this core: the best of many short runs."""
    best = 0.0
    for _ in range(50):
        start = time.thread_time_ns()
        operations = core.probe_multiply_add(200_000)
        best = max(best, operations / (time.thread_time_ns() - start))
    return 1e9 * best


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    keep_freed_memory()
    rows: list[Row] = []
    with torch.inference_mode():
        peak = peak_operations()
        rows.append(dispatch_row(quick=options.quick))
        for name in affine.DTYPES:
            for shape in affine.QUICK if options.quick else affine.SHAPES:
                rows += affine.affine_rows(name, shape, quick=options.quick, peak=peak)
        for q, batch in dense.QUICK if options.quick else dense.SHAPES:
            rows += dense.dense_rows(q, batch, quick=options.quick, peak=peak)
    finish("kernels", rows, options, threads=1)


if __name__ == "__main__":
    main()
