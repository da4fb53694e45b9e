"""The five conditions of row Q56 in short: baseline, both directions, two random controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cogit.evaluation.arm_result import ArmResult, points
from cogit.evaluation.continuations import perplexity
from cogit.evaluation.engine import Engine
from cogit.evaluation.suite import SIGNS


def conditions(
    engine: Engine, results: Sequence[ArmResult], *, neutral: bool = False
) -> dict[str, dict[str, Any]]:
    """positive_rate, avg_sentiment_score and avg_perplexity of each; lifts of the learned ones.

    A lift is the share of positive texts minus that of the baseline, or of the two random controls
    together, in points: towards the negative class it is below zero. random_a and random_b are the
    diagonal phases of row Q50 towards +1. neutral: the same on neutral prompts, where they were
    continued.
    """
    by_role = {role: [one for one in results if one.arm.role == role] for role in _ROLES}
    plain, learned = by_role["baseline"][0], by_role["learned"][0]
    randoms = by_role["diagonal"]
    found = {"baseline": _condition(engine, plain, 0, neutral)}
    others = {} if neutral else {"random": randoms}
    for sign, name in zip((0, 1), ("learned_to_positive", "learned_to_negative"), strict=True):
        found[name] = _condition(engine, learned, sign, neutral)
        found[name] |= _lifts(engine, learned, sign, {"baseline": [plain], **others}, neutral)
    if not neutral:
        for name, one in zip(("random_a", "random_b"), randoms, strict=False):
            found[name] = _condition(engine, one, 0, neutral)
    return found


_ROLES = ("baseline", "learned", "diagonal")


def _condition(engine: Engine, one: ArmResult, index: int, neutral: bool) -> dict[str, Any]:
    scores = one.run.neutral_scores if neutral else one.run.scores
    samples = one.run.neutral_samples if neutral else one.run.samples
    if scores is None:
        return {"positive_rate": None, "avg_sentiment_score": None, "avg_perplexity": None}
    texts = [text for row in samples[SIGNS[index]] for text in row]
    values = perplexity(_likelihoods(engine, texts))
    return {
        "positive_rate": float((scores[:, :, index] > 0).mean()),
        "avg_sentiment_score": float(scores[:, :, index].mean()),
        "avg_perplexity": values,
    }


def _likelihoods(engine: Engine, texts: Sequence[Any]) -> Any:
    from cogit.evaluation.continuations import likelihoods

    prompts = [engine.backend.tokenize(text.prompt) for text in texts]
    return likelihoods(engine.backend, prompts, [text.ids for text in texts])


def _lifts(
    engine: Engine,
    learned: ArmResult,
    index: int,
    others: dict[str, list[ArmResult]],
    neutral: bool,
) -> dict[str, Any]:
    settings = engine.settings
    mine = _positive(learned, index, neutral)
    found: dict[str, Any] = {}
    for name, arms in others.items():
        if mine is None or not arms:
            continue
        theirs = [_positive(one, 0, neutral) for one in arms]
        kept = [one for one in theirs if one is not None]
        if kept:
            gap = points(mine - np.mean(kept, axis=0), settings.resamples, settings.seed)
            found[f"lift_vs_{name}"] = gap.mean
            found[f"lift_ci_vs_{name}"] = [gap.low, gap.high]
    return found


def _positive(one: ArmResult, index: int, neutral: bool) -> Any:
    scores = one.run.neutral_scores if neutral else one.run.scores
    return None if scores is None else (scores[:, :, index] > 0).astype(np.float64)
