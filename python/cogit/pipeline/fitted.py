"""What the fit phase found, before it is judged and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cogit.intervention import Intervention


@dataclass(frozen=True)
class Fitted:
    """What was found. opposite: an operator of its own for the way back, or None.

    shuffled: the same fit to shuffled classes, with its way back. settings, table: of the choice.
    training: the report of a training, or None.
    """

    learned: Intervention
    opposite: Intervention | None
    shuffled: tuple[tuple[Intervention, Intervention | None], ...]
    settings: dict[str, Any]
    table: list[dict[str, Any]]
    training: dict[str, Any] | None = None

    def towards(self, sign: int, number: int | None = None) -> Intervention:
        """What steers to a class, +1 or -1, at its own strength; of a control by its number."""
        one, back = (self.learned, self.opposite) if number is None else self.shuffled[number]
        if sign > 0:
            return one
        return back if back is not None else one.at_strength(-one.strength)
