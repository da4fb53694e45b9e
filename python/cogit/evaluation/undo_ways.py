"""The undo ratio of an operator on given states, taken back in both ways that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation.undo import Undo, by_affine, by_inverse, undo_ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.operators import Operator

    Rows = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class UndoWays:
    """own_inverse: by the operator's exact inverse, or None and why it has none. opposite: by the
    opposite strength, or by the operator of the way back where there is one.
    """

    own_inverse: Undo | None
    own_inverse_refused: str
    opposite: Undo

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def undo_ways(
    operator: Operator,
    positive: Rows,
    negative: Rows,
    *,
    strength: float = 1.0,
    reverse: Operator | None = None,
) -> UndoWays:
    """Of matched states (pair, d_model) of both classes; intervals are over pairs.

    reverse: the way back, applied at ``strength``; by default the operator at -strength. Edits
    below the floor of `cogit.evaluation.undo` do not count.
    """
    states: Sequence[Rows] = list(np.stack([positive, negative], axis=1))
    forward = operator.fold(strength)
    back = operator.fold(-strength) if reverse is None else reverse.fold(strength)
    own, refused = None, ""
    try:
        own = undo_ratio(forward, by_inverse(operator.inverse(strength)), states)
    except ValueError as error:
        refused = str(error)
    return UndoWays(own, refused, undo_ratio(forward, by_affine(back), states))
