"""What steering costs, measured on the model's own logits: perplexity, divergence, repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax

from cogit.sampling import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.base import Backend


def log_likelihoods(
    backend: Backend, sequences: Sequence[Sequence[int]]
) -> list[NDArray[np.float64]]:
    """Log-likelihood of every token but the first, in nats, as steered now. (position - 1,)"""
    result: list[NDArray[np.float64]] = []
    for ids, logits in zip(sequences, backend.logits(sequences), strict=True):
        rows = logits[:-1]
        top = rows.max(axis=-1, keepdims=True)
        # Float32 exponentials, float64 sum: the error stays below that of the logits themselves.
        total = np.log(np.exp(rows - top).sum(axis=-1, dtype=np.float64))
        chosen = rows[np.arange(len(rows)), list(ids[1:])]
        result.append(chosen.astype(np.float64) - top[:, 0] - total)
    return result


def negative_log_likelihood(backend: Backend, samples: Sequence[Sample]) -> float:
    """Mean nats per generated token, prompts given, under the backend as it is now."""
    kept = [sample for sample in samples if sample.ids]
    if not kept:
        message = "[perplexity] expected generated tokens, got none"
        raise ValueError(message)
    whole = [(*sample.prompt_ids, *sample.ids) for sample in kept]
    values = log_likelihoods(backend, whole)
    continuations = [v[-len(s.ids) :] for v, s in zip(values, kept, strict=True)]
    return float(-np.concatenate(continuations).mean())


def token_divergence(
    plain: Sequence[NDArray[np.float32]], steered: Sequence[NDArray[np.float32]]
) -> float:
    """Mean KL(plain ‖ steered) per token, in nats, of two runs over the same sequences.

    A token that the plain run rules out (a logit of -inf) adds nothing. Raises ValueError where
    logits are NaN: a broken run has no divergence, least of all a small one.
    """
    totals = 0.0
    count = 0
    for a, b in zip(plain, steered, strict=True):
        if a.shape != b.shape or np.isnan(a).any() or np.isnan(b).any():
            message = (
                f"[divergence] expected logits of one shape without NaN, got {a.shape} and "
                f"{b.shape}; check the model, or lower the strength"
            )
            raise ValueError(message)
        log_a = log_softmax(a.astype(np.float64), axis=-1)
        log_b = log_softmax(b.astype(np.float64), axis=-1)
        possible = log_a > -np.inf
        totals += float((np.exp(log_a[possible]) * (log_a[possible] - log_b[possible])).sum())
        count += len(a)
    if count == 0:
        message = "[divergence] expected logits of at least one token, got none"
        raise ValueError(message)
    return max(0.0, totals / count)


def repetition(samples: Sequence[Sample]) -> float:
    """Mean share of a continuation's 3-grams of tokens that it has used before."""
    shares: list[float] = []
    for sample in samples:
        grams = list(zip(sample.ids, sample.ids[1:], sample.ids[2:], strict=False))
        if grams:
            shares.append(1.0 - len(set(grams)) / len(grams))
    return float(np.mean(shares)) if shares else 0.0
