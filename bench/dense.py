"""Rows ``dense.…``: blending and renormalising with a dense complex operator, in three storages.

Ours against torch: addmm with the blend in alpha and beta (or addmv for one state), then one
division by the norms. complex64 is compared with torch on the same complex64 matrix. bf16 and int8
are compared with torch on the same storage, unpacked in the call; ``.vs_c64`` compares them with
our own complex64 kernel on the unpacked matrix. The limit is the larger of reading the operator
once from where it lies and doing the arithmetic at the peak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from bench.affine import read
from bench.rows import Row
from bench.timing import compare
from cogit import reference
from cogit.kernels import DenseChange, Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# q, states
SHAPES = (
    (500, 1),
    (500, 8),
    (500, 64),
    (500, 512),
    (1500, 1),
    (1500, 8),
    (1500, 64),
    (1500, 512),
    (2666, 1),
    (2666, 8),
    (2666, 64),
    (2666, 512),
    (5333, 1),
    (5333, 8),
)
QUICK = ((500, 1), (500, 8), (2666, 1))
NAMES: dict[str, Storage] = {"c64": "complex64", "bf16": "bf16", "int8": "int8"}
STRENGTH = 0.3


def dense_rows(q: int, batch: int, *, quick: bool, peak: float) -> list[Row]:
    """The rows of one size and number of states, all storages side by side."""
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(q, q, dtype=torch.complex64, generator=generator) * q**-0.5
    psi = torch.randn(batch, q, dtype=torch.complex64, generator=generator) * q**-0.5
    stored = {name: DenseChange.from_change(change, kind) for name, kind in NAMES.items()}
    runs: dict[str, Callable[[], object]] = {}
    for name, kept in stored.items():
        runs[name] = _ours(kept, psi)
        runs[f"{name} torch"] = _torch(kept, psi)
        runs[f"{name} read"] = _reading(kept)
    if batch == 1:
        runs["c64 addmv"] = _addmv(stored["c64"].values, psi)
    runs["naive"] = _naive(stored["c64"].values, psi)

    timing = compare(
        runs,
        check=lambda: _check(runs, stored, psi),
        rounds=3 if quick else 15,
        seconds=0.002 if quick else 0.02,
    )
    rows: list[Row] = []
    for name in stored:
        ours = timing.median(name)
        limit = max(timing.median(f"{name} read"), 8 * batch * q * q / peak)
        best = timing.fastest(*(run for run in runs if run in {f"{name} torch", f"{name} addmv"}))
        row = Row(
            id=f"dense.{name}.q{q}.b{batch}",
            value=1e6 * ours,
            unit="us",
            baseline=1e6 * timing.median(best),
            ratio=timing.ratio(best, name),
            limit=1e6 * limit,
            of_limit=limit / ours,
            note="torch" if name == "c64" else "torch, unpacked in the call",
        )
        rows.append(row)
        if name == "c64":
            rows.append(_against(row, timing.median("naive"), timing.ratio("naive", name), "naive"))
        elif batch == 1:
            ratio = timing.ratio("c64", name)
            rows.append(_against(row, timing.median("c64"), ratio, "vs_c64"))
    return rows


def _against(row: Row, seconds: float, ratio: float, suffix: str) -> Row:
    note = "our own complex64" if suffix == "vs_c64" else "torch: as the formula is written"
    return Row(
        f"{row.id}.{suffix}",
        row.value,
        row.unit,
        1e6 * seconds,
        ratio,
        row.limit,
        row.of_limit,
        note,
    )


def _check(
    runs: dict[str, Callable[[], object]], stored: dict[str, DenseChange], psi: Tensor
) -> None:
    few = psi[:8]
    for name, kept in stored.items():
        exact = reference.dense_apply(kept.dense(), few, 1.0, STRENGTH, normalise=True)
        for run in (name, f"{name} torch", *(("naive",) if name == "c64" else ())):
            result = runs[run]()
            assert isinstance(result, torch.Tensor)
            # Components of a unit state of q >= 500 are below 0.3; sums are float32.
            np.testing.assert_allclose(result[:8].numpy(), exact, rtol=0, atol=2e-6)


def _ours(kept: DenseChange, psi: Tensor) -> Callable[[], Tensor]:
    return lambda: kept.apply(psi, STRENGTH)


def _torch(kept: DenseChange, psi: Tensor) -> Callable[[], Tensor]:
    if kept.values.is_complex():
        wide = kept.values.T
        return lambda: _normalised(torch.addmm(psi, psi, wide, alpha=STRENGTH))
    scales = None if kept.scales is None else kept.scales[:, None, None]

    def run() -> Tensor:
        pairs = kept.values.float() if scales is None else kept.values * scales
        return _normalised(torch.addmm(psi, psi, torch.view_as_complex(pairs).T, alpha=STRENGTH))

    return run


def _addmv(change: Tensor, psi: Tensor) -> Callable[[], Tensor]:
    return lambda: _normalised(torch.addmv(psi[0], change, psi[0], alpha=STRENGTH)[None])


def _normalised(states: Tensor) -> Tensor:
    pairs = torch.view_as_real(states).flatten(-2)
    pairs.div_(torch.linalg.vector_norm(pairs, dim=-1, keepdim=True))
    return states


def _naive(change: Tensor, psi: Tensor) -> Callable[[], Tensor]:
    unitary = change + torch.eye(len(change), dtype=change.dtype)

    def run() -> Tensor:
        blended = (1 - STRENGTH) * psi + STRENGTH * (psi @ unitary.T)
        return torch.div(blended, torch.linalg.norm(blended, dim=-1, keepdim=True))

    return run


def _reading(kept: DenseChange) -> Callable[[], float]:
    memory = torch.from_numpy(np.ones(kept.nbytes // 4, np.float32))
    return lambda: read(memory)
