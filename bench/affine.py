"""Rows ``affine.…``: the steering kernel against the good torch forms of the same thing.

Two addmm and the norms written with few passes, c added or folded into B as one more row, and the
formula as one writes it first (``.naive`` too): the best of the three counts. For bfloat16 and
float16 they run in that dtype, weights and all; ``.widened`` converts the rows to float32 and back,
which is as exact as ours. The limit is the larger of two times: reading the same bytes once, as
fast as this core reads that many, and doing the same arithmetic at its peak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.rows import Row
from bench.timing import compare
from cogit import kernels, reference
from cogit.affine import Affine
from cogit.kernels.core import core

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    Form = Callable[[], Tensor]

# d_model, rank, rows
SHAPES = (
    (896, 16, 1),
    (3584, 4, 1),
    (3584, 16, 1),
    (3584, 64, 1),
    (5120, 16, 1),
    (8192, 16, 1),
    (8192, 64, 1),
    (3584, 16, 8),
    (3584, 4, 32),
    (3584, 16, 32),
    (3584, 64, 32),
    (8192, 16, 32),
    (896, 64, 512),
    (3584, 4, 512),
    (3584, 16, 512),
    (3584, 64, 512),
    (3584, 256, 512),
    (8192, 64, 512),
)
QUICK = ((896, 16, 1), (3584, 16, 1), (3584, 16, 32), (3584, 16, 512))
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def affine_rows(name: str, shape: tuple[int, int, int], *, quick: bool, peak: float) -> list[Row]:
    """The rows of one dtype and shape. peak: multiply-adds of this core, operations a second."""
    d, rank, n = shape
    dtype = DTYPES[name]
    affine, h = example(d, rank, n)
    rows = h.to(dtype)
    compiled = kernels.CompiledAffine(affine)
    forms = torch_forms(affine, rows)
    probe = torch.ones(2 * rank * d + d + 2 * n * d * dtype.itemsize // 4)

    def check() -> None:
        exact = reference.affine_apply(affine, rows.float().numpy())
        # Values are below 5; half dtypes also round weights and coefficients, 64 of them or more.
        allowed = 1e-4 if dtype is torch.float32 else 16 * float(torch.finfo(dtype).eps)
        for result in (*(run() for run in forms.values()), compiled.apply(rows)):
            np.testing.assert_allclose(result.float(), exact, rtol=allowed, atol=allowed)

    timing = compare(
        {**forms, "ours": lambda: compiled.apply(rows), "read": lambda: read(probe)},
        check=check,
        rounds=5 if quick else 25,
        seconds=0.002 if quick else 0.01,
    )
    ours = timing.median("ours")
    limit = max(timing.median("read"), 4 * n * d * rank / peak)

    def row(suffix: str, form: str) -> Row:
        return Row(
            id=f"affine.{name}.d{d}.r{rank}.n{n}{suffix}",
            value=1e6 * ours,
            unit="us",
            baseline=1e6 * timing.median(form),
            ratio=timing.ratio(form, "ours"),
            limit=1e6 * limit,
            of_limit=limit / ours,
            note=f"torch: {form}",
        )

    rows_of = {"": ("addmm", "folded", "naive"), ".naive": ("naive",)}
    if dtype is not torch.float32:
        rows_of[".widened"] = ("addmm.widened", "folded.widened")
    return [row(suffix, timing.fastest(*names)) for suffix, names in rows_of.items()]


def example(d: int, rank: int, n: int) -> tuple[Affine, Tensor]:
    """A random affine with restore, and float32 rows of unit variance."""
    rng = np.random.default_rng(0)

    def draw(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    down, up = draw(rank, d, scale=d**-0.5), draw(rank, d, scale=0.02)
    affine = Affine(down, draw(rank), up, draw(d), restore=True)
    return affine, torch.from_numpy(draw(n, d))


def read(probe: Tensor) -> float:
    """One pass over the probe, by the compiled read loop."""
    return core.probe_read(probe)


def torch_forms(affine: Affine, h: Tensor) -> dict[str, Form]:
    """The forms that a competent user would write, and the naive one."""
    forms = _forms_in(affine, h, lambda: h)
    if h.dtype is torch.float32:
        return forms

    def narrowed(run: Form) -> Form:
        return lambda: run().to(h.dtype)

    wide = _forms_in(affine, h.float(), h.float)
    return forms | {
        f"{name}.widened": narrowed(run) for name, run in wide.items() if name != "naive"
    }


def _forms_in(affine: Affine, like: Tensor, rows: Form) -> dict[str, Form]:
    arrays = (affine.A, affine.a0, affine.B, affine.c)
    down, bias, up, c = (torch.from_numpy(x).to(like) for x in arrays)
    wide = down.T
    folded_wide = torch.cat([down, torch.zeros_like(down[:1])]).T
    folded_bias = torch.cat([bias, torch.ones_like(bias[:1])])
    folded_up = torch.cat([up, c[None]])

    def norm(x: Tensor) -> Tensor:
        size: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return size

    def restored(h: Tensor, y: Tensor) -> Tensor:
        return y.mul_(norm(h).div_(norm(y)).to(y.dtype))

    def addmm() -> Tensor:
        h = rows()
        return restored(h, torch.addmm(h, torch.addmm(bias, h, wide), up).add_(c))

    def folded() -> Tensor:
        h = rows()
        return restored(h, torch.addmm(h, torch.addmm(folded_bias, h, folded_wide), folded_up))

    def naive() -> Tensor:
        h = rows()
        y: Tensor = h + ((h @ down.T + bias) @ up + c)
        return torch.mul(y, h.norm(dim=-1, keepdim=True) / y.norm(dim=-1, keepdim=True))

    return {"addmm": addmm, "folded": folded, "naive": naive}
