"""The compiled kernels against the best plain torch: python -m bench.kernels --json FILE [--quick].

One row per shape and baseline: ``value`` is our time, ``ratio`` how many times longer the baseline
takes, ``limit`` the time that this machine needs at least to read and write the same bytes or to do
the same arithmetic, and ``of_limit`` the share of it that we reach. Both limits come from BLAS on
the same core: a dot product over as many bytes, and a large matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.rows import Row, arguments, finish
from bench.timing import compare
from cogit import kernels, reference
from cogit.affine import Affine

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ((3584, 16, 1), (3584, 16, 32), (3584, 16, 512), (896, 16, 1))  # d, rank, n


def affine_rows(d: int, rank: int, n: int, quick: bool, peak: float) -> list[Row]:
    """Our affine with the norm restored against two good torch forms and the naive one."""
    rng = np.random.default_rng(0)
    down = rng.normal(size=(rank, d)).astype(np.float32) / np.float32(d**0.5)
    up = rng.normal(size=(rank, d)).astype(np.float32) * np.float32(0.02)
    bias, c = rng.normal(size=rank).astype(np.float32), rng.normal(size=d).astype(np.float32)
    affine = Affine(down, bias, up, c, restore=True)
    h = torch.from_numpy(rng.normal(size=(n, d)).astype(np.float32))

    size = 2 * rank * d + d + 2 * n * d
    probe = torch.ones(size)
    candidates = torch_forms(affine, h)
    baselines = dict(candidates)
    candidates["ours"] = lambda: kernels.affine_apply(affine, h)

    def check() -> None:
        exact = reference.affine_apply(affine, h.numpy())
        for run in candidates.values():
            np.testing.assert_allclose(run().numpy(), exact, rtol=1e-5, atol=1e-4)

    timing = compare(
        {**candidates, "read": lambda: torch.dot(probe, probe)},
        check=check,
        rounds=5 if quick else 25,
        seconds=0.002 if quick else 0.01,
    )
    ours = timing.median("ours")
    limit = max(timing.median("read"), 4 * n * d * rank / peak)
    best = timing.fastest(*(name for name in baselines if name != "naive"))

    def row(suffix: str, baseline: str) -> Row:
        return Row(
            id=f"affine.f32.d{d}.r{rank}.n{n}{suffix}",
            value=1e6 * ours,
            unit="us",
            baseline=1e6 * timing.median(baseline),
            ratio=timing.ratio(baseline, "ours"),
            limit=1e6 * limit,
            of_limit=limit / ours,
            note=baseline,
        )

    return [row("", best), row(".naive", "naive")]


def torch_forms(affine: Affine, h: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    down, bias, up, c = (torch.from_numpy(x) for x in (affine.A, affine.a0, affine.B, affine.c))
    wide = down.T
    # c as one more row of B whose coefficient is always 1 saves a pass over the result.
    folded_wide = torch.cat([down, torch.zeros_like(down[:1])]).T
    folded_bias = torch.cat([bias, torch.ones(1)])
    folded_up = torch.cat([up, c[None]])

    def restored(y: torch.Tensor) -> torch.Tensor:
        factor = torch.linalg.vector_norm(h, dim=-1, keepdim=True)
        return y.mul_(factor.div_(torch.linalg.vector_norm(y, dim=-1, keepdim=True)))

    def addmm() -> torch.Tensor:
        return restored(torch.addmm(h, torch.addmm(bias, h, wide), up).add_(c))

    def folded() -> torch.Tensor:
        return restored(torch.addmm(h, torch.addmm(folded_bias, h, folded_wide), folded_up))

    def naive() -> torch.Tensor:
        y: torch.Tensor = h + ((h @ down.T + bias) @ up + c)
        norms = [torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (h, y)]
        return torch.mul(y, norms[0] / norms[1])

    return {"addmm": addmm, "folded": folded, "naive": naive}


def peak_flops(quick: bool) -> float:
    """Operations per second of a large float32 matrix product."""
    size = 256 if quick else 1024
    a, b = torch.ones(size, size), torch.ones(size, size)
    product = torch.empty(size, size)
    timing = compare(
        {"gemm": lambda: torch.mm(a, b, out=product)}, check=lambda: None, rounds=5, seconds=0.02
    )
    return 2 * size**3 / timing.median("gemm")


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    rows: list[Row] = []
    with torch.inference_mode():
        peak = peak_flops(options.quick)
        for d, rank, n in SHAPES:
            rows += affine_rows(d, rank, n, options.quick, peak)
    finish("kernels", rows, options, threads=1)


if __name__ == "__main__":
    main()
