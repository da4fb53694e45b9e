"""Continuations under the unsteered model: likelihood, relevance, and what steering changed.

Logits of a large vocabulary do not fit into memory for all texts at once, so that every pass here
goes over a few texts at a time and keeps one number a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cogit.evaluation import measures

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.base import Backend
    from cogit.intervention import Intervention

# Numbers of logits held at once: 256 MiB in float32.
_MOST = 2**26
Ids = Sequence[int]


def likelihoods(
    backend: Backend, prompts: Sequence[Ids], continuations: Sequence[Ids]
) -> list[NDArray[np.float64]]:
    """Log-likelihood of every token of each continuation after its prompt, in nats. (token,)

    As the backend is now; an empty continuation has none, and its prompt is not run.
    """
    kept = [i for i, ids in enumerate(continuations) if len(ids)]
    found: list[NDArray[np.float64]] = [np.zeros(0) for _ in continuations]
    whole = [(*prompts[i], *continuations[i]) for i in kept]
    for start, stop in batches(backend, whole):
        values = measures.log_likelihoods(backend, whole[start:stop])
        for index, value in zip(kept[start:stop], values, strict=True):
            found[index] = value[-len(continuations[index]) :]
    return found


def perplexity(values: Sequence[NDArray[np.float64]]) -> float | None:
    """exp of the mean negative log-likelihood per token; None without tokens."""
    count = sum(len(one) for one in values)
    if count == 0:
        return None
    # Sums are rounded once, so that the same texts in another order give the same number.
    total = float(np.sum(np.sort(np.concatenate(list(values)))))
    return float(np.exp(-total / count))


def relevance(
    backend: Backend,
    prompts: Sequence[Ids],
    continuations: Sequence[Ids],
    own: Sequence[NDArray[np.float64]],
    seed: int,
) -> float | None:
    """Share of continuations likelier after their own prompt than after another one of the set.

    Run it unsteered. own: their likelihoods after their own prompts. The other prompts are a
    random cycle, so that none meets its own. A tie counts one half; None without any text.
    """
    if len(prompts) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(prompts))
    other = np.empty(len(prompts), np.int64)
    other[order] = np.roll(order, 1)
    elsewhere = likelihoods(backend, [prompts[i] for i in other], continuations)
    gains = [
        float(mine.sum() - theirs.sum())
        for mine, theirs in zip(own, elsewhere, strict=True)
        if len(mine)
    ]
    if not gains:
        return None
    return float(np.mean([(gain > 0) + 0.5 * (gain == 0) for gain in gains]))


def text_divergence(
    backend: Backend,
    intervention: Intervention,
    prompts: Sequence[Ids],
    continuations: Sequence[Ids],
) -> float | None:
    """KL(plain ‖ steered) per generated token on given texts, in nats; None without any.

    The backend is steered by ``intervention`` now, and again afterwards.
    """
    kept = [i for i, ids in enumerate(continuations) if len(ids)]
    whole = [(*prompts[i], *continuations[i]) for i in kept]
    lengths = [len(prompts[i]) for i in kept]
    total, count = 0.0, 0
    for start, stop in batches(backend, whole):
        # The logit that predicts a token stands one place before it.
        cuts = [slice(n - 1, len(ids) - 1) for n, ids in zip(lengths, whole, strict=True)]
        part = cuts[start:stop]
        steered = backend.logits(whole[start:stop], n_prompt=lengths[start:stop])
        steered = [rows[cut] for rows, cut in zip(steered, part, strict=True)]
        backend.dial(intervention.at_strength(0.0))
        try:
            plain = backend.logits(whole[start:stop], n_prompt=lengths[start:stop])
        finally:
            backend.dial(intervention)
        plain = [rows[cut] for rows, cut in zip(plain, part, strict=True)]
        tokens = sum(len(rows) for rows in plain)
        total += measures.token_divergence(plain, steered) * tokens
        count += tokens
    return total / count if count else None


def batches(backend: Backend, sequences: Sequence[Ids]) -> Iterator[tuple[int, int]]:
    """Ranges of sequences whose logits fit into memory together; of one sequence at least."""
    start = 0
    vocabulary = backend.identity.vocab_size
    while start < len(sequences):
        longest, stop = 0, start
        while stop < len(sequences) and stop - start < backend.batch_size:
            wider = max(longest, len(sequences[stop]))
            if stop > start and wider * (stop - start + 1) * vocabulary > _MOST:
                break
            longest, stop = wider, stop + 1
        yield start, stop
        start = stop
