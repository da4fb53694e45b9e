"""What steering operators take: folded ones at their rank, dense ones with U and its workspace.

The coefficients of the dense ones are numbers of q x q entries that are alive at once, as the code
of `cogit.training` allocates them; docs/memory.md has what they were measured at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cogit.memory import Part

# Bytes for each of the q² entries. Stored: the free real parameters in float32. Cached: U in
# complex64 and the copy of the parameters that it was formed from. Forming: the Hermitian H, I,
# I - iH and its inverse, in complex64; one step of training the same with its gradient.
STORED, CACHED, FORMING = 4, 12, 20
OPTIMISER, STEP = 12, 33
# On the host: U in complex128, as the operators that come out hold it, and the checks of the last.
KEPT_COMPLEX128, CHECKS = 16, 40
# Room that matrix libraries take once.
_LIBRARIES = 110_000_000


@dataclass(frozen=True)
class OperatorNeed:
    """What one operator takes on a device, in bytes.

    stored: what is saved. cached: what is formed from it at first use and kept. workspace: what
    applying it takes for a moment; of several operators only the largest counts.
    """

    stored: int
    cached: int = 0
    workspace: int = 0

    @property
    def total(self) -> int:
        return self.stored + self.cached + self.workspace


def dense_need(q: int, *, batch: int = 1) -> OperatorNeed:
    """A dense Cayley unitary in C^q: 36 bytes an entry, 4.5 times its U, and a batch of states."""
    return OperatorNeed(STORED * q * q, CACHED * q * q, FORMING * q * q + 4 * 8 * batch * q)


def projection_need(d_model: int, q: int) -> OperatorNeed:
    """A projection W (d_model, q) in complex64, and its pseudo-inverse in complex128."""
    return OperatorNeed(8 * d_model * q, 16 * d_model * q, 16 * d_model * q)


def training_need(q: int, *, batch: int = 10) -> OperatorNeed:
    """A dense unitary in training: parameters, then gradient and two moments, then one step."""
    work = STEP * q * q + 8 * 8 * batch * q
    return OperatorNeed(STORED * q * q, OPTIMISER * q * q, work)


def fold_bytes(rank: int, d_model: int, blocks: int = 1) -> int:
    """Folded affines of some blocks: A, B, a0 and c in float32, and the copy on the device."""
    return 2 * 4 * blocks * (2 * rank * d_model + rank + d_model)


def total_need(needs: Iterable[OperatorNeed]) -> int:
    """All operators together: what each keeps, and the largest workspace."""
    found = list(needs)
    kept = sum(need.stored + need.cached for need in found)
    return kept + max((need.workspace for need in found), default=0)


def need_of(operator: Any) -> OperatorNeed:
    """Of a unitary module of `cogit.training`, a DenseChange, an operator, or any with tensors.

    TypeError for what has none.
    """
    if getattr(operator, "family", None) == "dense":
        return dense_need(int(operator.q))
    if callable(getattr(operator, "parameters", None)) and hasattr(operator, "free_parameters"):
        stored = sum(p.numel() * p.element_size() for p in operator.parameters())
        return OperatorNeed(stored, 2 * stored, 2 * stored)
    if callable(getattr(operator, "tensors", None)):
        return operator_need(operator)
    if isinstance(size := getattr(operator, "nbytes", None), int):
        return OperatorNeed(size, 0, 4 * size)
    message = f"[memory] expected an operator with tensors, got {type(operator).__name__}"
    raise TypeError(message)


def operator_need(operator: Any) -> OperatorNeed:
    """An operator of `cogit.operators`: its arrays, its fold twice, the work of folding it."""
    own = sum(array.nbytes for array in operator.tensors().values())
    if getattr(operator, "kind", "") == "dense":
        d, q = int(operator.d_model), len(operator.matrix)
        # change = (C (Uᵀ - I)) C⁺ in complex128, and the affine of rank d.
        return OperatorNeed(own, 8 * d * d + fold_bytes(d, d), 16 * (q * q + 3 * d * q + d * d))
    affine = operator.fold(1.0)
    return OperatorNeed(own, fold_bytes(affine.rank, affine.d_model))


def intervention_parts(intervention: Any) -> tuple[Part, ...]:
    """The parts of an intervention's operators; one that serves several blocks counts once."""
    found = {id(op): op for op in intervention.operators.values()}
    needs = [operator_need(op) for op in found.values()]
    own = sum(need.stored for need in needs)
    folds = sum(operator_need(op).cached for op in intervention.operators.values())
    work = max(need.workspace for need in needs)
    note = f"{len(found)} on {len(intervention.operators)} blocks, with their folds"
    return (
        Part("operators", own + folds, "run", note),
        *([Part("operator workspace", work, "run", "folding")] if work else []),
    )


def training_needs(
    family: str, q: int, *, batch: int = 10, trainings: int = 10
) -> list[OperatorNeed]:
    """What is on a device at once: one training, beside the trained of both directions and the
    control of each.
    """
    kept = min(4, trainings)
    if family == "dense":
        return [training_need(q, batch=batch), *[dense_need(q)] * kept]
    # Phases, or two thin factors; U is formed once at the end, and checked.
    small = 64 * q * max(1, batch)
    return [OperatorNeed(small, 3 * small, 3 * 8 * q * q)] * (1 + kept)


def born_parts(
    d_model: int, q: int, *, trainings: int = 10, batch: int = 10, blocks: int = 1
) -> tuple[Part, ...]:
    """Training dense unitaries on encoded states, as ``cogit fit --method born-adam`` does.

    trainings: of every block, both directions and all controls; they run one after the other, and
    the U of each stays in complex128 until the end.
    """
    entries, width = q * q, projection_need(d_model, q)
    one = training_need(q, batch=batch)
    kept = (KEPT_COMPLEX128 + STORED + CACHED) * entries * trainings * blocks
    return (
        Part("projection", width.total * blocks, "run", f"W and its pseudo-inverse, q = {q}"),
        Part("operators", kept, "run", f"{trainings * blocks} trained U, complex128 and complex64"),
        Part("optimiser", one.stored + one.cached, "run", "parameters, gradient, two moments"),
        Part("operator workspace", max(one.workspace, CHECKS * entries) + _LIBRARIES, "run"),
    )
