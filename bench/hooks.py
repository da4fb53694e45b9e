"""What a steering hook costs on one block of a transformers model, apart from any model.

A block that returns its input is called with and without the hook; the difference is the cost.
Beside it a hook that a competent user would write for the same operator in plain torch. One thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from bench.rows import Row
from bench.timing import compare
from cogit.backends.hooks import SteeringHooks, TokenClock
from cogit.identity import ModelIdentity
from cogit.intervention import Intervention
from cogit.operators import LowRank
from cogit.positions import Positions

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SHAPES = ((3584, 16), (896, 16))  # d_model, rank; one token


class Block(nn.Module):
    """Returns its input. The weight says where and in which precision the model is."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d_model))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden


def lowrank(d_model: int, rank: int) -> LowRank:
    rng = np.random.default_rng(0)
    down, up = rng.standard_normal((2, rank, d_model)) * d_model**-0.5
    return LowRank(down, rng.standard_normal(rank), up, 0.1 * rng.standard_normal(d_model))


def attached(d_model: int, operator: LowRank, positions: Positions) -> tuple[Block, TokenClock]:
    """A block with its hook, and a clock that stands at the first token of a sequence."""
    block, clock = Block(d_model), TokenClock()
    identity = ModelIdentity("bench", "none", 1, d_model, 1)
    SteeringHooks(
        nn.ModuleList([block]), clock, Intervention({0: operator}, identity, 1.0, positions)
    )
    tick(clock, block)
    return block, clock


def tick(clock: TokenClock, module: nn.Module) -> None:
    """What the clock does once in each forward pass."""
    ids = torch.zeros((1, 1), dtype=torch.long)
    clock.before_forward(module, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def plain(d_model: int, operator: LowRank) -> Block:
    """The same operator as a hook in plain torch."""
    fold = operator.fold(1.0)
    wide = torch.from_numpy(fold.A).T
    bias, up, shift = (torch.from_numpy(x) for x in (fold.a0, fold.B, fold.c))

    def steer(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        rows = output.view(-1, d_model)
        return torch.addmm(rows, torch.addmm(bias, rows, wide), up).add_(shift).view_as(output)

    block = Block(d_model)
    block.register_forward_hook(steer)
    return block


def hook_rows(*, quick: bool) -> list[Row]:
    """Rows ``hook.…``: microseconds that a hook adds to a block's call."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return [row for d, rank in SHAPES for row in _rows(d, rank, quick=quick)]
    finally:
        torch.set_num_threads(threads)


def _rows(d_model: int, rank: int, *, quick: bool) -> list[Row]:
    operator = lowrank(d_model, rank)
    hidden = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 1, d_model))).float()
    bare, by_hand = Block(d_model), plain(d_model, operator)
    steered, clock = attached(d_model, operator, Positions(first_token=True))
    outside, _ = attached(d_model, operator, Positions("range", 4, 8))
    calls: dict[str, Callable[[], Any]] = {
        "bare": lambda: bare(hidden),
        "plain": lambda: by_hand(hidden),
        "steered": lambda: steered(hidden),
        "outside": lambda: outside(hidden),
        "clock": lambda: tick(clock, steered),
    }

    def check() -> None:
        assert not torch.equal(calls["plain"](), hidden)
        torch.testing.assert_close(calls["steered"](), calls["plain"](), rtol=1e-5, atol=1e-5)
        assert torch.equal(calls["outside"](), hidden)

    timing = compare(
        calls, check=check, rounds=5 if quick else 25, seconds=0.002 if quick else 0.01
    )
    extra = {name: 1e6 * timing.difference(name, "bare") for name in calls}
    steered_id = f"hook.steered.d{d_model}.r{rank}.n1"
    rows = [
        Row(
            steered_id,
            extra["steered"],
            "us",
            extra["plain"],
            extra["plain"] / extra["steered"],
            note="a hook in plain torch; 1 thread",
        )
    ]
    if d_model == SHAPES[0][0]:
        rows += [
            Row(
                "hook.unsteered",
                extra["outside"],
                "us",
                note="attached, outside its positions; 1 thread",
            ),
            Row(
                "hook.clock",
                1e6 * timing.median("clock"),
                "us",
                note="once in a forward pass; 1 thread",
            ),
        ]
    return rows
