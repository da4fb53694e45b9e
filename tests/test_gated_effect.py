"""What a gate is for: the effect under a condition, at less of its cost elsewhere."""

from __future__ import annotations

import functools
import json
from functools import partial
from typing import Any

import numpy as np
import pytest

from _conditional import (
    conditional_backend,
    conditional_intervention,
    conditional_set,
    off_topic,
    on_topic,
)
from _models import push, steering, tiny_backend
from _planted import PLANTED_LAYER
from cogit.activations import record
from cogit.backends import load_backend
from cogit.demo import grammar
from cogit.demo.assets import demo_model
from cogit.evaluation.evaluate import Arm, ArmResult, EvaluationSet, Evaluator
from cogit.gates import fit_learned_gate, fit_similarity_gate
from cogit.gating import fit_gates
from cogit.intervention import Intervention
from cogit.operators import fit_operator
from cogit.sampling import SamplingOptions
from cogit.subspace import fit_subspace

FITS: dict[str, Any] = {
    "similarity": fit_similarity_gate,
    "smooth": partial(fit_similarity_gate, measure="projection", smooth=True),
    "learned": fit_learned_gate,
    "by prompt": partial(fit_similarity_gate, scope="prompt"),
}


@functools.cache
def evaluator() -> Evaluator:
    return Evaluator(conditional_backend(), conditional_set())


@functools.cache
def ungated() -> ArmResult:
    return evaluator().run(Arm.both_ways("ungated", conditional_intervention()))


@functools.cache
def fitted(name: str) -> Intervention:
    gated, _ = fit_gates(
        conditional_backend(),
        conditional_intervention(),
        on_topic(40, 1),
        off_topic(40, 2),
        fit=FITS[name],
    )
    return gated


@functools.cache
def result(name: str) -> ArmResult:
    return evaluator().run(Arm.both_ways(name, fitted(name)))


@pytest.mark.parametrize("name", FITS)
def test_gated_effect_at_half_the_neutral_divergence(name: str) -> None:
    """N11, on prompts, contexts and neutral texts that no fit has seen."""
    assert ungated().lift.low > 20  # percentage points: there is an effect to keep
    assert ungated().neutral_kl > 0.1  # nats per token: and a cost to save
    assert result(name).lift.mean >= 0.9 * ungated().lift.mean
    assert result(name).lift.low <= ungated().lift.mean <= result(name).lift.high
    assert result(name).neutral_kl <= 0.5 * ungated().neutral_kl


def test_random_gates_do_not_save_what_a_fitted_one_saves() -> None:
    """The control: random directions that open for the same share of the fitting texts.

    A single draw may come near, so that the control is ten of them.
    """
    backend, gated = conditional_backend(), fitted("similarity")
    texts = [backend.tokenize(text) for text in (*on_topic(40, 1), *off_topic(40, 2))]
    rows = np.concatenate([s[0, 1:] for s in backend.residuals(texts, [PLANTED_LAYER])])
    own = gated.gates[PLANTED_LAYER]
    results = [
        evaluator().run(Arm.both_ways(f"random {seed}", gated.gated(own.randomised(seed, rows))))
        for seed in range(10)
    ]
    assert all(result("similarity").neutral_kl < 0.2 * r.neutral_kl for r in results)
    assert all(result("similarity").lift.mean >= r.lift.mean for r in results)
    assert np.mean([r.lift.mean for r in results]) < 0.75 * ungated().lift.mean
    # As much of the cost as of the texts: nothing is saved but by steering less.
    share = float((own.factor(own.score(rows)) > 0).mean())
    assert np.mean([r.neutral_kl for r in results]) > 0.5 * share * ungated().neutral_kl


def test_the_fits_say_what_they_are_worth() -> None:
    gated = fitted("learned")
    lineage = gated.lineage["gates"]
    assert lineage["ungated"] == conditional_intervention().content_hash
    assert (lineage["on"]["texts"], lineage["off"]["texts"]) == (40, 40)
    rates = lineage["fits"][str(PLANTED_LAYER)]["held_out"]
    assert rates["accuracy"]["low"] > 0.75
    assert rates["auc_p"] == 0.001
    assert 0.3 < lineage["fits"][str(PLANTED_LAYER)]["chance_accuracy"]["mean"] < 0.7
    json.dumps(gated.lineage, allow_nan=False)


def test_texts_of_one_kind_on_both_sides_are_refused() -> None:
    backend = conditional_backend()
    with pytest.raises(ValueError, match=r"^\[gate\] expected conditions that held-out texts"):
        fit_gates(backend, conditional_intervention(), off_topic(40, 3), off_topic(40, 4))
    with pytest.raises(
        ValueError, match=r"expected texts of 2 to 64 tokens \(the context\), got 1"
    ):
        fit_gates(backend, conditional_intervention(), ["", *on_topic(9, 1)], off_topic(9, 1))
    assert backend.intervention is None


def test_later_blocks_are_fitted_behind_earlier_gates() -> None:
    """The second gate's states are those that the first one leaves, not the plain model's."""
    backend = tiny_backend()
    base = steering(backend, [0, 2], push(length=4.0))
    words = {sign: [" ".join(f"w{i}" for i in row) for row in rows] for sign, rows in _rows()}
    seen: list[list[Any]] = []

    def fit(on: Any, off: Any) -> Any:
        seen.append([*on, *off])
        return fit_similarity_gate(on, off, allow_chance=True)

    gated, fits = fit_gates(backend, base, words[1], words[-1], fit=fit)
    assert list(fits) == list(gated.gates) == [0, 2]
    ids = [backend.tokenize(text) for text in (*words[1], *words[-1])]
    with backend.steer(gated.on_blocks([0]), verify=False):
        behind = [s[0, 1:] for s in backend.residuals(ids, [2])]
    plain = [s[0, 1:] for s in backend.residuals(ids, [2])]
    assert all(np.array_equal(a, b) for a, b in zip(seen[1], behind, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(seen[1], plain, strict=True))


def _rows() -> list[tuple[int, Any]]:
    rng = np.random.default_rng(0)
    return [(1, rng.integers(3, 40, (12, 5))), (-1, rng.integers(50, 90, (12, 5)))]


@pytest.mark.slow
def test_gated_effect_on_the_demo_model() -> None:
    """N11 on a trained model: sentiment steered in reviews, facts left alone."""
    with load_backend("transformers", str(demo_model("transformers")), device="cpu") as backend:
        layer = backend.identity.n_layers // 2
        recorded = record(backend, grammar.contrast_pairs(60, 0), show_progress=False)
        operator = fit_operator(fit_subspace(recorded, layer), "unitary")
        bare = Intervention({layer: operator}, backend.identity)
        reviews = [
            text
            for pair in grammar.contrast_pairs(40, 1)
            for text in (pair.positive, pair.negative)
        ]
        gated, fits = fit_gates(backend, bare, reviews, grammar.facts(80, 1, "train"))
        data = EvaluationSet(
            open_prompts=grammar.open_prompts(48, 0, "test"),
            opposite={s: grammar.context_prompts(24, -s, 0, "test") for s in (1, -1)},
            neutral=grammar.facts(24, 0, "test"),
            judge=grammar.sentiment,
            sampling=SamplingOptions(max_tokens=16, temperature=0.8, top_k=50, seed=0),
        )
        judged = Evaluator(backend, data)
        results = [judged.run(Arm.both_ways("arm", arm)) for arm in (bare, gated)]
    assert fits[layer].held_out.true_positive.low > 0.7
    assert fits[layer].held_out.false_positive.high < 0.3
    assert results[0].lift.low > 20
    assert results[1].lift.mean >= 0.9 * results[0].lift.mean
    assert results[1].neutral_kl <= 0.5 * results[0].neutral_kl
