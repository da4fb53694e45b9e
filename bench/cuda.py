"""Rows ``cuda.…``: the kernels on a GPU against eager torch on the same GPU.

``cuda.affine.…``: a decode step's rows through one launch against the best eager form, as a user
calls both: host time and launches included, many calls in a row, then one wait.
``cuda.dense.…``: blend and renormalise with a dense complex operator; the limit is reading it at
the bandwidth of a large device-to-device copy, bytes read and written counted.
"""

from __future__ import annotations

import sys
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.affine import DTYPES, example, torch_forms
from bench.rows import Row, arguments, finish
from cogit import kernels, reference
from cogit.kernels import DenseChange, Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AFFINE = (
    (3584, 16, 1),
    (3584, 16, 8),
    (3584, 16, 32),
    (3584, 16, 512),
    (896, 16, 1),
    (8192, 64, 1),
)
DENSE = ((2666, 1), (5333, 1), (9333, 1), (5333, 8))
STORAGES: dict[str, Storage] = {"c64": "complex64", "bf16": "bf16", "int8": "int8"}
STRENGTH = 0.3


def compare(runs: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each candidate, one entry a round, by turns on the current stream."""
    calls = {name: _calls(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(_seconds(run, calls[name]))
    return seconds


def _calls(run: Callable[[], object]) -> int:
    for _ in range(3):
        run()
    return max(1, min(500, round(0.01 / _seconds(run, 5))))


def _seconds(run: Callable[[], object], calls: int) -> float:
    start, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(calls):
        run()
    end.record()
    end.synchronize()
    return 1e-3 * float(start.elapsed_time(end)) / calls


def ratio(seconds: Mapping[str, list[float]], slower: str, faster: str) -> float:
    return median(a / b for a, b in zip(seconds[slower], seconds[faster], strict=True))


def copy_bandwidth() -> float:
    """Bytes a second of a copy of a gigabyte, counting those read and those written."""
    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    seconds = compare({"copy": lambda: target.copy_(source)}, rounds=15)
    return 2 * source.nbytes / median(seconds["copy"])


def affine_row(name: str, shape: tuple[int, int, int], rounds: int, bandwidth: float) -> Row:
    d, rank, n = shape
    dtype = DTYPES[name]
    affine, wide = example(d, rank, n)
    h = wide.to("cuda", dtype)
    compiled = kernels.CompiledAffine(affine, "cuda")
    forms = {f"torch: {form}": run for form, run in torch_forms(affine, h).items()}
    exact = reference.affine_apply(affine, h.float().cpu())
    # As in bench/affine.py; TF32 is off by default and stays off.
    allowed = 1e-4 if dtype is torch.float32 else 16 * float(torch.finfo(dtype).eps)
    for result in (*(run() for run in forms.values()), compiled.apply(h)):
        np.testing.assert_allclose(result.float().cpu(), exact, rtol=allowed, atol=allowed)
    seconds = compare({**forms, "ours": lambda: compiled.apply(h)}, rounds=rounds)
    best = min(forms, key=lambda form: median(seconds[form]))
    ours = median(seconds["ours"])
    limit = (8 * rank * d + 2 * n * d * dtype.itemsize) / bandwidth
    return Row(
        f"cuda.affine.{name}.d{d}.r{rank}.n{n}",
        1e6 * ours,
        "us",
        1e6 * median(seconds[best]),
        ratio(seconds, best, "ours"),
        1e6 * limit,
        limit / ours,
        note=f"eager {best}",
    )


def dense_row(name: str, q: int, batch: int, rounds: int, bandwidth: float) -> Row:
    generator = torch.Generator("cuda").manual_seed(0)
    change = torch.randn(q, q, dtype=torch.complex64, device="cuda", generator=generator) * q**-0.5
    psi = torch.randn(batch, q, dtype=torch.complex64, device="cuda", generator=generator) * q**-0.5
    kept = DenseChange.from_change(change, STORAGES[name])
    double, exactly = psi.to(torch.complex128), kept.dense().to(torch.complex128)
    exact = torch.addmm(double, double, exactly.T, alpha=STRENGTH)
    exact /= torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
    wide = change.T

    def eager() -> torch.Tensor:
        states = torch.addmm(psi, psi, wide, alpha=STRENGTH)
        pairs = torch.view_as_real(states).flatten(-2)
        pairs.div_(torch.linalg.vector_norm(pairs, dim=-1, keepdim=True))
        return states

    got = kept.apply(psi, STRENGTH)
    # Components of a unit state of q > 2000 are below 0.1; sums are float32.
    np.testing.assert_allclose(got.cpu(), exact.cpu(), rtol=0, atol=2e-6)
    runs = {"ours": lambda: kept.apply(psi, STRENGTH), "eager": eager}
    seconds = compare(runs, rounds=rounds)
    ours = median(seconds["ours"])
    limit = kept.nbytes / bandwidth
    return Row(
        f"cuda.dense.{name}.q{q}.b{batch}",
        1e6 * ours,
        "us",
        1e6 * median(seconds["eager"]),
        ratio(seconds, "eager", "ours"),
        1e6 * limit,
        limit / ours,
        note="eager torch in complex64",
    )


def main() -> None:
    options = arguments(__doc__)
    cuda = kernels.info()["cuda"]
    if not (cuda["built"] and cuda["devices"]):
        reason = cuda["reason"] if not cuda["built"] else "no CUDA device here"
        sys.exit(f"[bench.cuda] expected a GPU and a build with CUDA kernels, got: {reason}")
    rounds = 5 if options.quick else 25
    with torch.inference_mode():
        bandwidth = copy_bandwidth()
        rows = [Row("cuda.copy", 1e-9 * bandwidth, "GB/s", note="read and written")]
        rows += [affine_row(name, shape, rounds, bandwidth) for name in DTYPES for shape in AFFINE]
        rows += [dense_row(name, *size, rounds, bandwidth) for name in STORAGES for size in DENSE]
    device = torch.cuda.get_device_name()
    finish("cuda", rows, options, threads=torch.get_num_threads(), device=device)


if __name__ == "__main__":
    main()
