"""Settings of the Born training."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from cogit.training.cayley_module import SPREAD, Family

if TYPE_CHECKING:
    from cogit.presets import Preset

_DTYPES = {
    "complex64": (torch.float32, torch.complex64),
    "complex128": (torch.float64, torch.complex128),
}
# What may differ between the run that wrote a checkpoint and the one that goes on from it.
_FREE = ("epochs", "log_every", "check_every", "tolerance")


@dataclass(frozen=True)
class BornConfig:
    """Settings of one training; the defaults are those of the source system.

    weight_decay: Adam's own, added to the gradient. patience, factor: the learning rate falls by
    ``factor`` after that many epochs without a better mean loss. clip: the largest gradient norm.
    check_every, tolerance: every so many epochs max |UᴴU - I| must not exceed the tolerance.
    family, rank, spread: the module (see `make_unitary`). held_out: the share of pairs never
    trained on. centred: take the mean of all training states out before normalising. The identity
    is then no near-optimum; but the classes lie opposite each other, their states are the same up
    to sign, and the loss, which sees no sign, finds a half turn that goes both ways alike.
    precision: of the states.
    """

    epochs: int = 100
    batch_size: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    patience: int = 20
    factor: float = 0.5
    clip: float = 1.0
    seed: int = 42
    log_every: int = 20
    check_every: int = 50
    tolerance: float = 1e-4
    family: Family = "dense"
    rank: int = 4
    spread: float = SPREAD
    held_out: float = 0.2
    centred: bool = False
    precision: Literal["complex64", "complex128"] = "complex64"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "log_every", "check_every", "rank"):
            self._require(name, type(getattr(self, name)) is int and getattr(self, name) >= 1)
        self._require("patience", type(self.patience) is int and self.patience >= 0)
        self._require("seed", type(self.seed) is int and 0 <= self.seed < 2**63)
        for name in ("learning_rate", "clip", "tolerance"):
            value = getattr(self, name)
            self._require(name, math.isfinite(value) and value > 0)
        for name in ("weight_decay", "spread"):
            value = getattr(self, name)
            self._require(name, math.isfinite(value) and value >= 0)
        self._require("factor", 0 < self.factor < 1)
        self._require("held_out", 0 < self.held_out <= 0.5)
        self._require("family", self.family in ("dense", "lowrank", "diagonal"))
        self._require("precision", self.precision in _DTYPES)

    @classmethod
    def of(cls, preset: Preset) -> BornConfig:
        """The schedule and seed of a preset (see `cogit.presets`)."""
        return cls(
            epochs=preset.epochs,
            batch_size=preset.batch_size,
            learning_rate=preset.learning_rate,
            seed=preset.seed,
        )

    def settings(self) -> dict[str, Any]:
        """What a checkpoint must agree with."""
        return {key: value for key, value in asdict(self).items() if key not in _FREE}

    @property
    def real_dtype(self) -> torch.dtype:
        """Of the parameters."""
        return _DTYPES[self.precision][0]

    @property
    def complex_dtype(self) -> torch.dtype:
        """Of the states."""
        return _DTYPES[self.precision][1]

    def _require(self, name: str, holds: bool) -> None:
        if not holds:
            allowed = {
                "factor": "between 0 and 1",
                "held_out": "above 0, at most 0.5",
                "patience": "a whole number of 0 or more",
                "seed": "a whole number of 0 or more",
                "weight_decay": "0 or more",
                "spread": "0 or more",
                "family": "dense, lowrank or diagonal",
                "precision": "complex64 or complex128",
            }.get(name, "above 0")
            message = f"[born] expected {name} {allowed}, got {getattr(self, name)!r}"
            raise ValueError(message)
