"""Sampling with common random numbers: one seeded sampler for both backends.

Tokens are drawn by the Gumbel-max trick with noise that depends on (seed, row, step) alone. Two
runs with the same seed therefore differ only where their logits do, which pairs an arm with its
control prompt by prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FinishReason = Literal["length", "stop"]


@dataclass(frozen=True)
class SamplingOptions:
    """How to choose tokens. temperature 0 is greedy; top_k 0 and top_p 1 filter nothing."""

    max_tokens: int = 25
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    seed: int = 0
    stop_at_eos: bool = True

    def __post_init__(self) -> None:
        checks = {
            "max_tokens >= 1": self.max_tokens >= 1,
            "temperature >= 0": np.isfinite(self.temperature) and self.temperature >= 0,
            "top_k >= 0": self.top_k >= 0,
            "0 < top_p <= 1": 0 < self.top_p <= 1,
            "seed >= 0": self.seed >= 0,
        }
        for rule, holds in checks.items():
            if not holds:
                name = rule.split(" >")[0].split("< ")[-1].split(" <")[0]
                message = f"[sampling] expected {rule}, got {getattr(self, name)}"
                raise ValueError(message)


@dataclass(frozen=True)
class Sample:
    """One generated continuation. ids and text leave the prompt out, cut by token ids."""

    prompt: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason


class Sampler:
    """Chooses the next token of each row; row i draws from its own stream of noise."""

    def __init__(self, options: SamplingOptions, rows: Sequence[int]) -> None:
        self.options = options
        self._streams = {
            row: np.random.Generator(np.random.Philox(key=[options.seed, row])) for row in rows
        }

    def choose(self, logits: NDArray[np.float32], rows: Sequence[int]) -> list[int]:
        """Next tokens for (row, vocabulary) logits. ValueError if they are not finite."""
        if np.isnan(logits).any():
            message = "[sampling] expected logits without NaN; the model or the steering broke down"
            raise ValueError(message)
        return [self._one(line, row) for line, row in zip(logits, rows, strict=True)]

    def _one(self, logits: NDArray[np.float32], row: int) -> int:
        options = self.options
        if options.temperature == 0:
            return int(logits.argmax())
        noise = self._streams[row].random(logits.size, dtype=np.float32)
        scaled = logits.astype(np.float64) / options.temperature
        keep = np.arange(logits.size)
        if 0 < options.top_k < logits.size:
            keep = np.argpartition(scaled, -options.top_k)[-options.top_k :]
        if options.top_p < 1:
            keep = _nucleus(scaled, keep, options.top_p)
        tiny = np.finfo(np.float32).tiny
        gumbel = -np.log(-np.log(np.clip(noise[keep], tiny, 1 - 1e-7)))
        return int(keep[np.argmax(scaled[keep] + gumbel)])


def _nucleus(scaled: NDArray[np.float64], keep: NDArray[np.intp], top_p: float) -> NDArray[np.intp]:
    """The fewest most likely tokens whose probabilities reach top_p (Holtzman et al. 2020)."""
    order = keep[np.argsort(-scaled[keep], kind="stable")]
    weights = np.exp(scaled[order] - scaled[order[0]])
    mass = np.cumsum(weights / weights.sum())
    return order[: int(np.searchsorted(mass, top_p)) + 1]
