"""The planted and unplanted models of ``_planted`` through the whole evaluation, once each."""

from __future__ import annotations

import functools
from typing import Any

from _planted import (
    FACTS,
    NEGATIVE,
    PLAIN,
    PLANTED_LAYER,
    POSITIVE,
    judge,
    learned,
    planted_backend,
    recorded,
    texts,
)
from cogit.activations import Activations
from cogit.autofit import Recipe
from cogit.backends.transformers import TransformersBackend
from cogit.demo import arms
from cogit.evaluation.evaluation import Evaluation, evaluate
from cogit.evaluation.judges import FunctionJudge
from cogit.evaluation.subject import Subject
from cogit.evaluation.suite import Suite
from cogit.evaluation.thresholds import Settings
from cogit.sampling import SamplingOptions

SAMPLING = SamplingOptions(max_tokens=4, temperature=1.0, top_k=0)
JUDGE = FunctionJudge("planted words", judge)


def suite(n: int = 24, **changes: Any) -> Suite:
    def some(count: int, seed: int, words: tuple[str, ...], length: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(texts(count, seed, words, length)))

    parts: dict[str, Any] = {
        "prompts": some(n, 11, PLAIN, 3),
        "neutral_prompts": some(8, 15, FACTS, 4),
        "neutral_texts": some(8, 13, FACTS, 8),
        "calibration_prompts": some(12, 22, PLAIN, 4),
        "calibration_texts": some(8, 23, FACTS, 9),
        "opposite": {1: some(8, 12, NEGATIVE, 3), -1: some(8, 12, POSITIVE, 3)},
        "instructions": {1: "good1 good2", -1: "bad1 bad2\n"},
    }
    return Suite(**(parts | changes))


def settings(**changes: Any) -> Settings:
    chosen: dict[str, Any] = {
        "seeds": (42, 43),
        "n_same_subspace": 4,
        "n_shuffled": 2,
        "doses": (-1.0, -0.5, 0.0, 0.5, 1.0),
        "sampling": SAMPLING,
        "resamples": 1000,
    }
    return Settings(**(chosen | changes))


@functools.cache
def backend(*, connected: bool) -> TransformersBackend:
    return planted_backend(connected=connected)


@functools.cache
def states(*, connected: bool) -> Activations:
    return recorded(backend(connected=connected))


@functools.cache
def subject(*, connected: bool, kind: str = "unitary") -> Subject:
    found = states(connected=connected)
    return Subject.from_activations(learned(found, kind), found, Recipe(kind, gain=1.0))


@functools.cache
def evaluated(*, connected: bool) -> Evaluation:
    """The unitary at the planted block; the unplanted model without what it needs no more."""
    few: dict[str, Any] = {"seeds": (42,), "doses": (), "n_same_subspace": 2, "n_shuffled": 1}
    return evaluate(
        backend(connected=connected),
        subject(connected=connected),
        suite() if connected else suite(opposite={}, instructions={}),
        JUDGE,
        settings(**({} if connected else few)),
        show=False,
    )


@functools.cache
def source_subject() -> Subject:
    """The first source system's method on the planted model, one trained operator for each way."""
    found = states(connected=True)
    arm, _ = arms.source_arm(
        backend(connected=True), found, PLANTED_LAYER, texts(8, 31, PLAIN, 5), seed=0, epochs=4
    )
    assert arm.interventions is not None
    return Subject(arm.interventions[1], reverse=arm.interventions[-1])
