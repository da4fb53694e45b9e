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
# Uniforms are kept off 0 and 1, where the double logarithm is infinite.
_SMALLEST, _LARGEST = np.float32(2.0**-32), np.float32(1.0 - 2.0**-24)


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
            "max_tokens": ("max_tokens >= 1", self.max_tokens >= 1),
            "temperature": (
                "temperature >= 0",
                np.isfinite(self.temperature) and self.temperature >= 0,
            ),
            "top_k": ("top_k >= 0", self.top_k >= 0),
            "top_p": ("0 < top_p <= 1", 0 < self.top_p <= 1),
            "seed": ("0 <= seed < 2^64", 0 <= self.seed < 2**64),
        }
        for name, (rule, holds) in checks.items():
            if not holds:
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

    def __init__(
        self, options: SamplingOptions, rows: Sequence[int], seeds: Sequence[int] | None = None
    ) -> None:
        """seeds: several replicates in one go. Row r is then row r % n under the seed r // n, where
        n is the number of rows over that of seeds; the seed of the options does not count.
        """
        self.options = options
        keys = {row: (options.seed, row) for row in rows}
        if seeds is not None:
            n = len(rows) // len(seeds)
            keys = {row: (seeds[row // n], row % n) for row in rows}
        self._streams = {
            row: np.random.Generator(np.random.Philox(key=np.array(key, dtype=np.uint64)))
            for row, key in keys.items()
        }

    def choose(self, logits: NDArray[np.float32], rows: Sequence[int]) -> list[int]:
        """Next tokens for (row, vocabulary) logits; -inf forbids a token.

        ValueError for NaN, for +inf, and for a row that forbids every token.
        """
        best = logits.max(axis=1)
        if not np.isfinite(best).all():
            message = (
                f"[sampling] expected finite logits, got {best[~np.isfinite(best)][0]} as the "
                f"largest; the model or the steering broke down"
            )
            raise ValueError(message)
        options = self.options
        if options.temperature == 0:
            return [int(token) for token in logits.argmax(axis=-1)]
        noise = np.empty(logits.shape, np.float32)
        for line, row in zip(noise, rows, strict=True):
            self._streams[row].random(out=line, dtype=np.float32)
        np.clip(noise, _SMALLEST, _LARGEST, out=noise)
        scaled = logits / np.float32(options.temperature)
        scores = scaled - np.log(-np.log(noise))
        if 0 < options.top_k < logits.shape[1] or options.top_p < 1:
            for line, score in zip(scaled, scores, strict=True):
                score[~_kept(line, options)] = -np.inf
        return [int(token) for token in scores.argmax(axis=-1)]


def _kept(scaled: NDArray[np.float32], options: SamplingOptions) -> NDArray[np.bool_]:
    """Which tokens survive top-k and top-p."""
    keep = np.arange(scaled.size)
    if 0 < options.top_k < scaled.size:
        keep = np.argpartition(scaled, -options.top_k)[-options.top_k :]
    if options.top_p < 1:
        keep = _nucleus(scaled.astype(np.float64), keep, options.top_p)
    mask = np.zeros(scaled.size, np.bool_)
    mask[keep] = True
    return mask


def _nucleus(scaled: NDArray[np.float64], keep: NDArray[np.intp], top_p: float) -> NDArray[np.intp]:
    """The fewest most likely tokens whose probabilities reach top_p (Holtzman et al. 2020)."""
    order = keep[np.argsort(-scaled[keep], kind="stable")]
    weights = np.exp(scaled[order] - scaled[order[0]])
    mass = np.cumsum(weights / weights.sum())
    return order[: int(np.searchsorted(mass, top_p)) + 1]
