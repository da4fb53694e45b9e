"""What the benches should show: one table of acceptance limits by row id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from bench.rows import Row

Rule = Literal["value <=", "value >=", "ratio >=", "of_limit >="]
BENCHES = (
    "kernels",
    "inject",
    "record",
    "subspace",
    "fit",
    "families",
    "refine",
    "calibrated",
    "memory_estimate",
    "cuda",
)


@dataclass(frozen=True)
class Target:
    """A limit for one row, or for every row of a pattern such as ``affine.*``.

    bench: whose result file holds the row. text: what the limit means, for people. but: rows of the
    pattern that it is not about.
    """

    bench: str
    pattern: str
    rule: Rule
    bound: float
    text: str
    but: str = ""

    @property
    def many(self) -> bool:
        return "*" in self.pattern

    def measured(self, row: Row) -> float | None:
        """The number of a row that the rule is about."""
        number = getattr(row, self.rule.split()[0])
        return None if number is None else float(number)

    def met_by(self, number: float) -> bool:
        return number <= self.bound if self.rule.endswith("<=") else number >= self.bound

    def worst(self, rows: Iterable[Row]) -> tuple[Row, float] | None:
        """The row that meets the rule worst, and its number; None where no row has one."""
        found = [
            (row, number)
            for row in rows
            if fnmatchcase(row.id, self.pattern) and not fnmatchcase(row.id, self.but)
            if (number := self.measured(row)) is not None
        ]
        if not found:
            return None
        choose = max if self.rule.endswith("<=") else min
        return choose(found, key=lambda pair: pair[1])


_FASTER = "times faster than the best torch form"
_OWN_C64 = "times faster than our own complex64"

TARGETS = (
    Target("kernels", "affine.f32.d3584.r16.n1", "ratio >=", 2.3, _FASTER),
    Target("kernels", "affine.f32.d3584.r16.n1", "value <=", 10.0, "microseconds a token"),
    Target("kernels", "affine.f32.d896.r16.n1", "ratio >=", 4.0, _FASTER),
    Target("kernels", "affine.f32.d3584.r16.n32", "ratio >=", 1.4, _FASTER),
    Target("kernels", "affine.f32.d3584.r16.n512", "ratio >=", 1.35, _FASTER),
    Target("kernels", "affine.bf16.d3584.r16.n1", "ratio >=", 5.0, _FASTER),
    Target("kernels", "affine.*", "ratio >=", 0.95, "no shape loses to torch"),
    Target("kernels", "dense.*", "ratio >=", 0.95, "no shape loses to torch", but="*.vs_c64"),
    Target("kernels", "dense.c64.q2666.b1", "ratio >=", 1.3, _FASTER),
    Target("kernels", "dense.c64.q2666.b1", "of_limit >=", 0.75, "share of the read bandwidth"),
    Target("kernels", "dense.bf16.q2666.b1.vs_c64", "ratio >=", 1.3, _OWN_C64),
    Target("kernels", "dense.int8.q2666.b1.vs_c64", "ratio >=", 1.8, _OWN_C64),
    Target("kernels", "dispatch.tensors5", "value <=", 1.0, "microseconds for five tensors"),
    Target("inject", "hook.unsteered", "value <=", 3.0, "microseconds of an idle hook"),
    Target("inject", "hook.steered.d3584.r16.n1", "value <=", 12.0, "microseconds of a hook"),
    Target("subspace", "subspace.cpca.l64.d5120.n50", "value <=", 3.0, "seconds for 64 layers"),
    Target("subspace", "subspace.cpca.l64.d5120.n50", "ratio >=", 50.0, "times faster than dense"),
    Target("fit", "fit.closed.q2666", "ratio >=", 100.0, "times faster than 100 epochs of Adam"),
    Target("fit", "fit.closed.q2666.fidelity", "ratio >=", 1.0, "held out, at least Adam's"),
    Target("fit", "fit.closed.q2666.flip", "ratio >=", 1.0, "held out, at least Adam's"),
    Target("fit", "fit.closed.q2666.flip", "value >=", 0.9, "share of held-out negatives turned"),
    Target("fit", "fit.shuffled.q2666.flip", "value <=", 0.3, "the control turns few"),
    Target(
        "refine", "refine.kl0_01.override", "ratio >=", 1.0, "held out, at least a closed form's"
    ),
    Target("refine", "refine.kl0_01.lift", "ratio >=", 1.0, "points, at least a closed form's"),
    Target("calibrated", "calibrated.power", "value >=", 90.0, "% of planted models found"),
    Target(
        "calibrated", "calibrated.false_positives", "value <=", 5.0, "% of unplanted models found"
    ),
    *(
        Target("cuda", f"cuda.affine.{dtype}.d3584.r16.n{n}", "ratio >=", 3.0, _FASTER)
        for dtype in ("f32", "bf16")
        for n in (1, 8, 32)
    ),
    *(
        Target("cuda", f"cuda.dense.c64.q{q}.b1", "of_limit >=", 0.7, "share of the read bandwidth")
        for q in (5333, 9333)
    ),
)
