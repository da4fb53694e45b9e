"""Gates for tiny models, and what the tests ask of a gated backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from _models import D_MODEL, prompt, steering
from cogit import verify
from cogit.gates import Gate
from cogit.sampling import SamplingOptions

CLOSED, OPEN = 1e9, -1e9  # thresholds of a projection that no state and every state reaches


def gate(threshold: float = 0.0, seed: int = 0, **options: Any) -> Gate:
    rng = np.random.default_rng([seed, 7])
    return Gate(rng.standard_normal(D_MODEL), np.zeros(D_MODEL), threshold, **options)


def generated(backend: Any, n_prompts: int = 5) -> list[Any]:
    """Prompts of different lengths in one batch, so with padding on the left."""
    options = SamplingOptions(max_tokens=6, temperature=0.0)
    return [s.ids for s in backend.generate([prompt(3 + i, i) for i in range(n_prompts)], options)]


def split(backend: Any, layer: int, sequences: list[list[int]], **options: Any) -> Gate:
    """A gate that opens for about half of the tokens, or prompts, of the plain model.

    Its threshold lies amid the widest gap of the middle scores, well off rounding.
    """
    made = gate(**options)
    rows = [s[0, 1:] for s in backend.residuals(sequences, [layer])]
    if made.scope == "prompt" and len(rows) > 1:
        rows = [row.mean(axis=0, keepdims=True) for row in rows]
    score = np.sort(made.score(np.concatenate(rows)))
    middle = score[len(score) // 4 : -(len(score) // 4)]
    at = int(np.diff(middle).argmax())
    threshold = float(middle[at] + middle[at + 1]) / 2
    # A smooth gate opens where its sigmoid reaches the floor.
    return replace(made, threshold=threshold + made.threshold - made.opening_score)


def probe_ids(backend: Any) -> list[int]:
    """The tokens that verification runs."""
    return verify._probe_tokens(backend, steering(backend, [0]))[0]
