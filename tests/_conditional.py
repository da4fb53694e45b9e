"""The planted model with a topic: a second head carries it, and steering is wanted under it only.

Four of the plain words belong to the topic. The last block looks for them in the context and writes
the topic onto a dimension of its own, which no word's logit reads. Texts of the topic are the
condition; all others, of plain words and of facts, are neutral.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from _planted import (
    CONSTANT,
    FACTS,
    IDS,
    NEGATIVE,
    PLAIN,
    PLANTED_LAYER,
    POSITIVE,
    SINK,
    judge,
    learned,
    planted_model,
    recorded,
    sampling,
    word_tokenizer,
)
from cogit.backends.transformers import TransformersBackend
from cogit.evaluation.evaluate import EvaluationSet
from cogit.intervention import Intervention

TOPIC = PLAIN[:4]
TOPIC_FLAG, TOPIC_READOUT = 86, 87
_HEAD, _SLOW = 16, 7


@functools.cache
def conditional_backend() -> TransformersBackend:
    model = planted_model()
    attention = model.model.layers[PLANTED_LAYER].self_attn
    with torch.no_grad():
        for word in TOPIC:
            model.model.embed_tokens.weight[IDS[word], TOPIC_FLAG] = 8.0
        attention.q_proj.weight[_HEAD + _SLOW, CONSTANT] = 1.0
        # As for words of a class: the flag wins over the first token, which wins over the rest.
        attention.k_proj.weight[_HEAD + _SLOW, TOPIC_FLAG] = 3.6
        attention.k_proj.weight[_HEAD + _SLOW, SINK] = 1.8
        attention.v_proj.weight[_HEAD, TOPIC_FLAG] = 1.0
        attention.o_proj.weight[TOPIC_READOUT, _HEAD] = 3.0
    return TransformersBackend(model, word_tokenizer(), name="conditional")


def on_topic(n: int, seed: int, length: int = 8) -> list[str]:
    """A word of the topic, then words of every kind."""
    rng = np.random.default_rng([seed, 1])
    rest = (*PLAIN, *POSITIVE, *NEGATIVE, *FACTS)
    return [
        " ".join(
            [TOPIC[rng.integers(4)], *(rest[i] for i in rng.integers(0, len(rest), length - 1))]
        )
        for _ in range(n)
    ]


def off_topic(n: int, seed: int, length: int = 8) -> list[str]:
    """The same without a word of the topic."""
    rng = np.random.default_rng([seed, 0])
    words = (*PLAIN[4:], *POSITIVE, *NEGATIVE, *FACTS)
    return [" ".join(words[i] for i in rng.integers(0, len(words), length)) for _ in range(n)]


@functools.cache
def conditional_intervention(kind: str = "unitary") -> Intervention:
    """An operator fitted without any thought of the topic."""
    return learned(recorded(conditional_backend()), kind)


def conditional_set(n: int = 48) -> EvaluationSet:
    """Prompts of the topic, with contexts of the other class; neutral texts of no topic."""

    def prompts(seed: int, words: tuple[str, ...]) -> list[str]:
        rng = np.random.default_rng(seed)
        return [
            " ".join([TOPIC[rng.integers(4)], *(words[i] for i in rng.integers(0, len(words), 3))])
            for _ in range(n if words is PLAIN else n // 2)
        ]

    return EvaluationSet(
        open_prompts=prompts(11, PLAIN),
        opposite={1: prompts(12, NEGATIVE), -1: prompts(13, POSITIVE)},
        neutral=off_topic(24, 14),
        judge=judge,
        sampling=sampling(),
    )
