"""The transport gate: how far an operator carries tokens apart along the contrast's direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import reference
from cogit.evaluation.statistics import Interval, bootstrap_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.operators import Operator


def transport(
    operator: Operator,
    states: Sequence[NDArray[np.floating[Any]]],
    direction: NDArray[np.floating[Any]],
    half_separation: float,
    *,
    strength: float = 1.0,
    reverse: Operator | None = None,
    factors: Sequence[NDArray[np.float64]] | None = None,
) -> Interval:
    """Antisymmetric transport, mean u·(S₊(h) - S₋(h)) / 4s, with an interval over prompts.

    S± is the operator at ±strength. states: one (token, d_model) array of residual-stream rows for
    each open prompt. direction: (d_model,) the unit mean difference u, from negative to positive.
    half_separation: s, half the distance of the class means. reverse: an operator of its own for
    the way back, which is then S₋, at +strength. factors: (token,) of each prompt, what a gate
    multiplies the edit by; a token of factor 0 is not carried and counts as such.

    0.5 carries neutral tokens to the class means, 0 does not tell +λ from -λ. Over the operators
    and models that were tried it ranks them as generated text does (rank correlation .93 to .98),
    which fidelity does not. It says nothing of what the steering costs.

    Raises ValueError for no states, other widths, a direction that is not a unit vector, and a
    separation that is not positive.
    """
    u = np.asarray(direction, dtype=np.float64)
    if u.shape != (operator.d_model,) or not np.isclose(np.linalg.norm(u), 1.0, atol=1e-4):
        message = (
            f"[transport] expected a unit direction of width {operator.d_model}, got shape "
            f"{u.shape} and norm {np.linalg.norm(u):.4g}"
        )
        raise ValueError(message)
    if not (half_separation > 0 and np.isfinite(half_separation)):
        message = f"[transport] expected a half separation above zero, got {half_separation}"
        raise ValueError(message)
    back = operator.fold(-strength) if reverse is None else reverse.fold(strength)
    folds = operator.fold(strength), back
    values: list[float] = []
    for number, rows in enumerate(states):
        if rows.ndim != 2 or rows.shape[1] != operator.d_model or not len(rows):
            message = (
                f"[transport] expected states (token, {operator.d_model}) of each prompt, "
                f"got {rows.shape}"
            )
            raise ValueError(message)
        plus, minus = (reference.affine_apply(fold, rows) for fold in folds)
        apart = (plus - minus) @ u
        if factors is not None:
            apart = apart * factors[number]
        values.append(float(apart.mean()) / (4.0 * half_separation))
    return bootstrap_mean(values)
