"""Families of trainable unitaries: O(q r) against O(q²): python -m bench.families [--quick].

``apply``: carrying 8 states with the operator formed, as in use. Baseline: the same operator as a
dense (q, q) matrix, one matrix product. ``step``: forming it, carrying 8 states and the gradient of
the Born loss, as in training. Baseline: the dense Cayley module at the same unitary. The limit is
what the counts of weights allow: q² / (2 q r) for rank r, q for phases. One thread, float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.rows import Row, arguments, finish
from bench.timing import compare, keep_freed_memory
from cogit.training.cayley_module import DenseCayley, UnitaryModule, make_unitary

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

APPLY, STEP = (500, 2666), (250, 500)
QUICK_APPLY, QUICK_STEP = (500,), (100,)
RANK, STATES = 8, 8


def family_rows(family: str, q: int, *, step: bool, quick: bool) -> list[Row]:
    """One row: a family against the dense form of the same unitary."""
    generator = torch.Generator().manual_seed(0)
    states, targets = (
        torch.nn.functional.normalize(
            torch.randn(STATES, q, dtype=torch.complex64, generator=generator), dim=-1
        )
        for _ in range(2)
    )
    module = make_unitary("lowrank" if family == "lowrank" else "diagonal", q, rank=RANK, seed=1)
    with torch.no_grad():
        matrix = module.unitary().resolve_conj().contiguous()
    runs: dict[str, Callable[[], Tensor]] = {}
    if step:
        dense = DenseCayley.from_unitary(matrix)
        runs = {"ours": _step(module, states, targets), "dense": _step(dense, states, targets)}
    else:
        module.eval()
        runs = {"ours": _apply(module, states), "dense": lambda: states @ matrix.T}

    def check() -> None:
        # Unit states in float32, and a dense solve on one side of the steps.
        torch.testing.assert_close(runs["ours"](), runs["dense"](), rtol=0, atol=1e-4)

    timing = compare(runs, check=check, rounds=3 if quick else 15, seconds=0.01)
    limit = q / (2 * RANK) if family == "lowrank" else float(q)
    ratio = timing.ratio("dense", "ours")
    kind = "step" if step else "apply"
    return [
        Row(
            id=f"{kind}.{family}.q{q}",
            value=1e6 * timing.median("ours"),
            unit="us",
            baseline=1e6 * timing.median("dense"),
            ratio=ratio,
            note=f"dense; weights touched: {limit:.0f} times fewer",
        )
    ]


def _apply(module: UnitaryModule, states: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.no_grad():
            moved: Tensor = module(states)
            return moved

    return run


def _step(module: UnitaryModule, states: Tensor, targets: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        module.zero_grad()
        moved: Tensor = module(states)
        overlaps = (targets.conj() * moved).sum(dim=-1)
        loss = 1 - (overlaps.real.square() + overlaps.imag.square()).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    return run


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    keep_freed_memory()
    rows: list[Row] = []
    for family in ("lowrank", "diagonal"):
        for q in QUICK_APPLY if options.quick else APPLY:
            rows += family_rows(family, q, step=False, quick=options.quick)
        for q in QUICK_STEP if options.quick else STEP:
            rows += family_rows(family, q, step=True, quick=options.quick)
    finish("families", rows, options, threads=1)


if __name__ == "__main__":
    main()
