"""Gradient training through the frozen model: gradients, freezing, resume, stopping."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from _planted import FACTS, PLANTED_LAYER, planted_backend, planted_model, texts, word_tokenizer
from _planted import pairs as planted_pairs
from _refine import SETTINGS, Interrupted, losses, planted_data, small_start
from cogit.backends.transformers import TransformersBackend
from cogit.evaluation.teacher_forced import Budget, TeacherForced
from cogit.intervention import Intervention
from cogit.operators import Unitary
from cogit.training.lifted import LiftedUnitary
from cogit.training.refine_objective import objective
from cogit.training.steered_pass import SteeredPass, token_log_likelihoods
from cogit.training.through_model import Refined, RefineData, RefineSettings, refine


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    return planted_backend()


@pytest.fixture(scope="module")
def start(backend: TransformersBackend) -> Intervention:
    return small_start(backend)


@pytest.fixture(scope="module")
def data() -> RefineData:
    return planted_data()


@pytest.fixture(scope="module")
def whole(
    backend: TransformersBackend,
    start: Intervention,
    data: RefineData,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Refined, Path]:
    """An uninterrupted run and its checkpoint folder."""
    folder = tmp_path_factory.mktemp("whole")
    return refine(backend, start, data, SETTINGS, checkpoint=folder), folder


# ---- the pass ----


def test_the_pass_steers_as_the_backend_does(
    backend: TransformersBackend, start: Intervention
) -> None:
    """Same hook point, same kernel, first token left alone, padding or not."""
    sequences = [backend.tokenize(text) for text in ("good1 word2 word3", "word1 bad2")]
    steered = SteeredPass(backend, {PLANTED_LAYER: start.operators[PLANTED_LAYER]})  # type: ignore[dict-item]
    trained = LiftedUnitary(start.operators[PLANTED_LAYER])  # type: ignore[arg-type]
    for strength in (1.0, -0.6):
        with torch.no_grad():
            found = steered.run(sequences, {PLANTED_LAYER: trained.signal_map(strength)})
        with backend.steer(start.at_strength(strength)):
            expected = backend.logits(sequences)
        for row, logits in enumerate(expected):
            wanted = torch.from_numpy(logits).log_softmax(dim=-1)
            # The affine has another factorisation here: float32 sums of logits of about 20.
            torch.testing.assert_close(
                found.log_chances(0)[row, : len(logits)], wanted, atol=1e-4, rtol=0
            )


def test_likelihood_and_divergence_by_hand(backend: TransformersBackend) -> None:
    sequences = [backend.tokenize(text) for text in ("good1 word2 word3", "word1 bad2")]
    steered = SteeredPass(backend, {})
    with torch.no_grad():
        result = steered.run(sequences, None)
    found = token_log_likelihoods(result, 2)
    for row, (ids, logits) in enumerate(zip(sequences, backend.logits(sequences), strict=True)):
        chances = torch.from_numpy(logits).double().log_softmax(dim=-1)
        wanted = [float(chances[i, token]) for i, token in enumerate(ids[1:])]
        # Float32 log-softmax of logits of about 20.
        np.testing.assert_allclose(found[row, : len(wanted)], wanted, atol=1e-5)
        assert not found[row, len(wanted) :].any()
    assert float(result.divergence_from(result, first=0)) == 0.0
    moved = replace(result, logits=2 * result.logits)
    a, b = (x.logits.double().log_softmax(dim=-1) for x in (result, moved))
    terms = (a.exp() * (a - b)).sum(dim=-1)[1][: len(sequences[1])]
    assert float(moved.divergence_from(result, first=1)) == pytest.approx(
        float(terms.mean()), rel=1e-5
    )


def test_gradients_through_the_model_are_right(start: Intervention) -> None:
    """Float64 weights, one leaf at a time, against finite differences."""
    model = planted_model().double()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    backend = TransformersBackend(model, word_tokenizer(), name="planted")
    operator = start.operators[PLANTED_LAYER]
    assert isinstance(operator, Unitary)
    steered = SteeredPass(backend, {PLANTED_LAYER: operator})
    trained = LiftedUnitary(operator)
    sequences = [backend.tokenize("word1 word2 good3 good1")]

    def value() -> torch.Tensor:
        maps = {PLANTED_LAYER: trained.signal_map(0.8)}
        return token_log_likelihoods(steered.run(sequences, maps), 1).sum()

    value().backward()  # type: ignore[no-untyped-call]
    for leaf in trained.leaves().values():
        assert leaf.grad is not None
        index = int(leaf.grad.abs().argmax())
        step, ends = 1e-3, []
        for sign in (1, -1):
            with torch.no_grad():
                leaf.reshape(-1)[index] += sign * step
                ends.append(float(value()))
                leaf.reshape(-1)[index] -= sign * step
        slope = (ends[0] - ends[1]) / (2 * step)
        # log_softmax is float32 (1e-6 of a sum near 20), so the difference quotient has 1e-2.
        assert float(leaf.grad.reshape(-1)[index]) == pytest.approx(slope, abs=2e-2, rel=2e-2)


@pytest.mark.parametrize(
    ("price", "part"), [("kl_price", "neutral_kl"), ("target_price", "target_loss")]
)
def test_every_price_is_in_the_loss(start: Intervention, price: str, part: str) -> None:
    """The loss, and its gradient, hold the preference and each cost times its price."""
    backend = planted_backend()
    for parameter in backend.model.parameters():
        parameter.requires_grad_(False)
    operator = replace(start.operators[PLANTED_LAYER], amplitude=20.0)  # type: ignore[type-var]
    steered = SteeredPass(backend, {PLANTED_LAYER: operator})  # type: ignore[dict-item]
    trained = LiftedUnitary(operator)  # type: ignore[arg-type]
    pair = planted_pairs(1, 61, n_plain=4, n_class=1)[0]
    rows = [
        [steered.tokenize(text) for text in (*pair.texts, *reversed(pair.texts))],
        # Texts with the class in them: those of facts cost the planted model next to nothing.
        [steered.tokenize(text) for text in planted_pairs(1, 62, n_plain=4, n_class=1)[0].texts],
    ]
    free = RefineSettings(kl_price=0.0, target_price=0.0)
    found, slopes = [], []
    for settings in (free, replace(free, **{price: 7.0})):
        parts = objective(steered, {PLANTED_LAYER: trained}, rows, 1.0, settings)
        (slope,) = torch.autograd.grad(parts["loss"], [trained.leaves()["log_gain"]])
        found.append({name: float(value.detach()) for name, value in parts.items()})
        slopes.append(float(slope))
    without, with_price = found
    assert without["loss"] == without["preference"]
    assert without[part] > 1e-3
    wanted = without["preference"] + 7.0 * without[part]
    # float32 sums of a few nats.
    assert with_price["loss"] == pytest.approx(wanted, rel=1e-5)
    assert abs(slopes[1] - slopes[0]) > 1e-3


# ---- training ----


def test_the_effect_rises_on_pairs_that_were_not_trained_on(
    backend: TransformersBackend, start: Intervention, whole: tuple[Refined, Path]
) -> None:
    refined, _ = whole
    unseen = TeacherForced(
        backend, planted_pairs(24, 51, n_plain=4, n_class=1), texts(6, 52, FACTS, 8)
    )
    before, after = unseen.score(start), unseen.score(refined.intervention)
    assert after.contrast > 1.5 * before.contrast > 0
    assert after.interval.low > 0
    assert refined.after.within(Budget())
    assert refined.step > 0
    assert not refined.intervention.changes_nothing()


def test_the_result_is_an_ordinary_intervention(
    whole: tuple[Refined, Path], start: Intervention, tmp_path: Path
) -> None:
    refined, _ = whole
    path = refined.intervention.save(tmp_path / "refined.safetensors")
    loaded = Intervention.load(path)
    assert loaded.content_hash == refined.intervention.content_hash
    assert isinstance(loaded.operators[PLANTED_LAYER], Unitary)
    assert loaded.lineage["refined"]["start"] == start.content_hash
    assert loaded.lineage["refined"]["seed"] == SETTINGS.seed


def test_the_model_is_left_as_it_was(start: Intervention, data: RefineData) -> None:
    """Also after an interruption: weights, gradient flags and hooks."""
    backend = planted_backend()
    parameters = dict(backend.model.named_parameters())
    frozen = next(iter(parameters))
    parameters[frozen].requires_grad_(False)
    before = {name: value.detach().clone() for name, value in parameters.items()}

    def stop(row: dict[str, Any]) -> None:
        assert not any(parameter.requires_grad for parameter in backend.model.parameters())
        if "loss" in row:
            raise Interrupted

    with pytest.raises(Interrupted):
        refine(backend, start, data, SETTINGS, on_step=stop)
    for name, value in backend.model.named_parameters():
        assert value.requires_grad == (name != frozen)
        assert value.grad is None
        assert torch.equal(value, before[name])
    assert backend.intervention is None
    assert not backend._blocks[PLANTED_LAYER]._forward_hooks


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    backend: TransformersBackend,
    start: Intervention,
    data: RefineData,
    whole: tuple[Refined, Path],
    tmp_path: Path,
) -> None:
    """Q14: killed between two checkpoints, resumed, same final loss to 1e-6."""

    def stop(row: dict[str, Any]) -> None:
        if row["step"] == 12:
            raise Interrupted

    with pytest.raises(Interrupted):
        refine(backend, start, data, SETTINGS, checkpoint=tmp_path, on_step=stop)
    seen: list[int] = []
    resumed = refine(
        backend,
        start,
        data,
        SETTINGS,
        checkpoint=tmp_path,
        resume=True,
        on_step=lambda row: seen.append(row["step"]),
    )
    refined, folder = whole
    assert seen[0] == 11  # the last checkpoint is of step 10
    assert losses(resumed.history) == pytest.approx(losses(refined.history), abs=1e-6)
    assert resumed.step == refined.step
    assert resumed.after.contrast == pytest.approx(refined.after.contrast, abs=1e-6)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert len(losses(rows)) == SETTINGS.steps
    assert {path.name for path in folder.iterdir()} == {"checkpoint.safetensors", "history.jsonl"}


def test_a_finished_run_is_resumed_without_a_step(
    backend: TransformersBackend, start: Intervention, data: RefineData, whole: tuple[Refined, Path]
) -> None:
    refined, folder = whole
    again = refine(backend, start, data, SETTINGS, checkpoint=folder, resume=True)
    assert again.history == refined.history
    assert again.intervention.content_hash == refined.intervention.content_hash


def test_runs_repeat_by_seed(
    backend: TransformersBackend, start: Intervention, data: RefineData, whole: tuple[Refined, Path]
) -> None:
    refined, _ = whole
    short = replace(SETTINGS, steps=3)
    one, two, other = (
        losses(refine(backend, start, data, settings).history)
        for settings in (short, short, replace(short, seed=9))
    )
    assert one == two
    assert one != other
    # The first step is the same in the long run; later ones have another learning rate.
    assert one[0] == losses(refined.history)[0]


def test_both_directions_and_a_drawn_strength(whole: tuple[Refined, Path]) -> None:
    """λ stays in its range and differs; the operator steers either way."""
    refined, _ = whole
    drawn = [row["lambda"] for row in refined.history if "loss" in row]
    assert len(set(drawn)) == SETTINGS.steps
    assert min(drawn) >= SETTINGS.strengths[0]
    assert max(drawn) <= SETTINGS.strengths[1]
    operator = refined.intervention.operators[PLANTED_LAYER]
    assert isinstance(operator, Unitary)
    for sign in (1.0, -1.0):
        assert sign * float(operator.basis[:, 0] @ operator.fold(sign).c) > 0


def test_training_stops_without_a_better_effect(
    backend: TransformersBackend, start: Intervention, data: RefineData
) -> None:
    """A step of no size improves nothing: the start is returned, and its step is 0."""
    still = RefineSettings(
        steps=40, learning_rate=1e-12, batch_pairs=2, evaluate_every=2, patience=2, seed=1
    )
    refined = refine(backend, start, data, still)
    assert refined.steps_done <= 6
    assert refined.step < refined.steps_done
    matrix = refined.intervention.operators[PLANTED_LAYER].matrix  # type: ignore[attr-defined]
    np.testing.assert_allclose(matrix, start.operators[PLANTED_LAYER].matrix, atol=1e-9)  # type: ignore[attr-defined]


def test_half_precision_models_are_trained(start: Intervention, data: RefineData) -> None:
    model = planted_model().bfloat16()
    backend = TransformersBackend(model, word_tokenizer(), name="planted")
    refined = refine(backend, start, data, replace(SETTINGS, steps=8))
    found = losses(refined.history)
    assert np.isfinite(found).all()
    assert refined.after.contrast > 0


def test_several_blocks_and_a_norm_restore(
    backend: TransformersBackend, start: Intervention, data: RefineData
) -> None:
    operator = start.operators[PLANTED_LAYER]
    both = replace(
        start,
        operators={1: operator, PLANTED_LAYER: replace(operator, restore=True)},  # type: ignore[type-var]
    )
    refined = refine(backend, both, data, replace(SETTINGS, steps=3))
    assert refined.intervention.layers == (1, PLANTED_LAYER)
    assert [one.restore for one in refined.intervention.operators.values()] == [False, True]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_refined_against_closed_form_at_equal_kl_on_the_demo_model() -> None:
    """Acceptance: at equal KL the refined operator's held-out effect, with an interval.

    On a smaller scale than the bench, whose full figures are in bench/RESULTS.md.
    """
    from bench.refine import Sizes, measure

    sizes = Sizes(open_prompts=64, opposite=60, steps=150, levels=(0.01,))
    rows = {row.id.split(".")[-1]: row for row in measure(sizes, seed=0)}
    assert {"lift", "override", "contrast", "kl", "perplexity"} == set(rows)
    for name in ("lift", "override", "contrast"):
        assert "difference" in rows[name].note
    assert rows["override"].ratio is not None
    assert rows["override"].ratio >= 1.0
    # Open prompts are close to saturated by both: a tie within the interval of the bench.
    assert rows["lift"].value >= (rows["lift"].baseline or 0.0) - 4.0
