"""Born fidelity and flips of held-out states, for each of the two directions, beside controls.

The fidelity is that of the steered class with its target: |⟨c|c'⟩|² of the target's normalised mean
with the mean of the steered states. That of single pairs, which the source system's gate asked for
on the pairs that it trained on, is beside it: on held-out pairs it is bounded by how much two texts
differ in all else. The identity may have nearly as much of either, so neither decides alone. Both
are measured where the operator acts: on encoded states for a trained unitary, else on the residual
stream. There the strength is chosen by what it does to text, which may be beyond the class's mean:
the fidelity is the largest on the way, over tenths of the strength.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import reference
from cogit.evaluation.flip import Boundary, held_out_flip_rate
from cogit.operators import Dense

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cogit.activations import Activations
    from cogit.intervention import Intervention
    from cogit.operators import Operator
    from cogit.pipeline.fitted import Fitted

_STEPS = tuple(tenth / 10 for tenth in range(1, 11))
DIRECTIONS = {"to_positive": 1, "to_negative": -1}
NOTE = (
    "fidelity is no measure of success: the identity has nearly as much; the flips and the "
    "contrast beside their controls decide"
)


def fidelities(found: Fitted, unseen: Activations) -> dict[str, Any]:
    """Of both directions: trained (the operator), identity and shuffled, means over held-out pairs.

    With several blocks, the lowest one's: a gate must not pass on an average.
    """
    rows: dict[str, Any] = {"space": _space(found.learned), "note": NOTE}
    for name, sign in DIRECTIONS.items():
        learned = found.towards(sign)
        controls = [found.towards(sign, number) for number in range(len(found.shuffled))]
        rows[name] = min(
            (_at(learned, controls, unseen, layer, sign) for layer in learned.layers),
            key=lambda row: row["trained"],
        )
    return rows


def flips_of_both(found: Fitted, states: Activations, unseen: Activations) -> dict[str, Any]:
    """Held-out states that each direction carries over, of the block that carries fewest.

    identity: the share that lies on the other side anyway.
    """
    result: dict[str, Any] = {}
    for layer in found.learned.layers:
        boundary = Boundary.between(*states.at(layer))
        positive, negative = unseen.at(layer)
        back = None if found.opposite is None else found.opposite.operators[layer]
        rate = held_out_flip_rate(
            found.learned.operators[layer],
            positive,
            negative,
            boundary,
            strength=found.learned.strength,
            reverse=back,
        )
        before = {
            "to_positive": float(boundary.is_positive(negative).mean()),
            "to_negative": float(boundary.is_negative(positive).mean()),
        }
        for name, share in (("to_positive", rate.to_positive), ("to_negative", rate.to_negative)):
            row = {**share.to_json(), "identity": before[name]}
            if name not in result or row["rate"] < result[name]["rate"]:
                result[name] = row
    return result


def born_fidelity(moved: NDArray[Any], target: NDArray[Any]) -> float:
    """Mean |⟨t|m⟩|² of matched rows (n, width), real or complex, of any length but zero."""
    overlap = (np.conj(target) * moved).sum(axis=1)
    lengths = np.linalg.norm(moved, axis=1) * np.linalg.norm(target, axis=1)
    return float((np.abs(overlap / np.where(lengths == 0.0, 1.0, lengths)) ** 2).mean())


def class_fidelity(moved: NDArray[Any], target: NDArray[Any]) -> float:
    """|⟨c|c'⟩|² of the normalised means of two sets of rows (n, width)."""
    means = (rows.mean(axis=0, keepdims=True) for rows in (moved, target))
    return born_fidelity(*means)


def _at(
    learned: Intervention,
    controls: list[Intervention],
    unseen: Activations,
    layer: int,
    sign: int,
) -> dict[str, float]:
    positive, negative = (x.astype(np.float64) for x in unseen.at(layer))
    start, end = (negative, positive) if sign > 0 else (positive, negative)
    encode = _encoder(learned.operators[layer])
    target = encode(end)
    found: dict[str, float] = {}
    for prefix, measure in (("", class_fidelity), ("pairs_", born_fidelity)):
        controlled = [_best(measure, one, layer, start, target) for one in controls]
        found |= {
            f"{prefix}trained": _best(measure, learned, layer, start, target),
            f"{prefix}identity": measure(encode(start), target),
            f"{prefix}shuffled": float(np.mean(controlled)),
        }
    return found


def _best(
    measure: Callable[[NDArray[Any], NDArray[Any]], float],
    one: Intervention,
    layer: int,
    rows: NDArray[np.float64],
    target: NDArray[Any],
) -> float:
    """The largest on the way to the strength; on encoded states, that of U, which has no way."""
    operator = one.operators[layer]
    if isinstance(operator, Dense):
        return measure(_encoder(operator)(rows) @ operator.matrix.T, target)
    folds = (operator.fold(step * one.strength) for step in _STEPS)
    return max(measure(reference.affine_apply(fold, rows), target) for fold in folds)


def _encoder(operator: Operator) -> Callable[[NDArray[Any]], NDArray[Any]]:
    if isinstance(operator, Dense):
        return lambda rows: operator.projection.encode(rows)[0]
    return lambda rows: rows


def _space(intervention: Intervention) -> str:
    dense = all(isinstance(one, Dense) for one in intervention.operators.values())
    return "encoded" if dense else "residual"
