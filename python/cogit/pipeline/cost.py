"""What a run cost: hours times a rate that the user gives for the hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rate:
    """Money per hour. ValueError for a rate below 0, or none that is finite."""

    per_hour: float
    currency: str = "$"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_hour) and self.per_hour >= 0):
            message = f"[rate] expected a rate per hour of 0 or more, got {self.per_hour}"
            raise ValueError(message)

    def cost(self, seconds: float) -> float:
        """Of so many seconds."""
        return self.per_hour * seconds / 3600

    def words(self, seconds: float) -> str:
        """For people: ``$0.0125 (1.50 min at $0.5 an hour)``."""
        return (
            f"{self.currency}{self.cost(seconds):.4f} ({seconds / 60:.2f} min at "
            f"{self.currency}{self.per_hour:g} an hour)"
        )
