"""Calibration: the contrast ranks, the budgets refuse, and the planted block is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from _planted import PLANTED_LAYER, Run, calibration_set, learned, run
from cogit.evaluation import measures
from cogit.evaluation.calibrate import Calibration, Calibrator, Candidate
from cogit.pairs import ContrastPair

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUDGETS = {"perplexity_ratio": 1.12, "neutral_kl": 0.02}


@pytest.fixture(scope="module")
def planted() -> Run:
    return run(connected=True)


@pytest.fixture(scope="module")
def calibrator(planted: Run) -> Calibrator:
    return Calibrator(planted.backend, calibration_set())


@pytest.fixture(scope="module")
def candidates(planted: Run) -> list[Candidate]:
    """Blocks times strengths; the strongest is beyond any budget."""
    return [
        Candidate(
            {"layer": layer, "strength": s}, learned(planted.activations, "additive", layer, s)
        )
        for layer in planted.activations.layers
        for s in (0.5, 1.0, 2.0, 3.0)
    ]


@pytest.fixture(scope="module")
def chosen(calibrator: Calibrator, candidates: Sequence[Candidate]) -> Calibration:
    return calibrator.choose(candidates, show=False)


def at(planted: Run, strength: float) -> Candidate:
    return Candidate({"strength": strength}, planted.additive.at_strength(strength))


def test_the_planted_block_is_picked(chosen: Calibration) -> None:
    assert chosen.chosen.settings["layer"] == PLANTED_LAYER
    assert chosen.chosen.intervention.layers == (PLANTED_LAYER,)


def test_the_planted_block_is_picked_for_the_unitary_too(
    planted: Run, calibrator: Calibrator
) -> None:
    found = [
        Candidate({"layer": layer}, learned(planted.activations, "unitary", layer))
        for layer in planted.activations.layers
    ]
    assert calibrator.choose(found, show=False).chosen.settings == {"layer": PLANTED_LAYER}


def test_the_table_is_ranked_by_contrast(
    chosen: Calibration, candidates: Sequence[Candidate]
) -> None:
    contrasts = [row["contrast"] for row in chosen.table]
    assert contrasts == sorted(contrasts, reverse=True)
    settings = [{k: row[k] for k in ("layer", "strength")} for row in chosen.table]
    expected = [candidate.settings for candidate in candidates]
    assert sorted(settings, key=str) == sorted(expected, key=str)


def test_the_best_candidate_within_the_budgets_is_taken(chosen: Calibration) -> None:
    costed = [row for row in chosen.table if "perplexity_ratio" in row]
    # The strongest has the largest contrast and is refused for its cost; the next one is taken.
    assert len(costed) > 1
    for row in costed[:-1]:
        assert any(row[name] > limit for name, limit in BUDGETS.items())
    assert all(costed[-1][name] <= limit for name, limit in BUDGETS.items())
    assert costed[-1]["contrast"] == chosen.contrast
    assert costed[-1]["perplexity_ratio"] == chosen.perplexity_ratio
    assert costed[-1]["neutral_kl"] == chosen.neutral_kl
    assert {k: costed[-1][k] for k in ("layer", "strength")} == chosen.chosen.settings


def test_calibration_is_repeatable(
    planted: Run, chosen: Calibration, candidates: Sequence[Candidate]
) -> None:
    again = Calibrator(planted.backend, calibration_set()).choose(candidates[-3:], show=False)
    rows = {str(row["strength"]): row["contrast"] for row in again.table}
    expected = {
        str(row["strength"]): row["contrast"]
        for row in chosen.table
        if row["layer"] == PLANTED_LAYER and str(row["strength"]) in rows
    }
    assert rows == expected


@pytest.mark.parametrize("budget", [{"perplexity_budget": 0.01}, {"kl_budget": 0.0}])
def test_no_candidate_within_the_budget_is_refused(planted: Run, budget: dict[str, float]) -> None:
    strict = Calibrator(planted.backend, calibration_set(), **budget)
    with pytest.raises(ValueError, match=r"^\[calibrate\] .*got none of 2; add weaker ones$"):
        strict.choose([at(planted, 1.0), at(planted, 2.0)], show=False)
    assert planted.backend.intervention is None


def test_no_candidates_at_all_are_refused(calibrator: Calibrator) -> None:
    with pytest.raises(ValueError, match="got none of 0"):
        calibrator.choose([], show=False)


def test_strength_zero_has_no_contrast_and_no_cost(planted: Run, calibrator: Calibrator) -> None:
    assert calibrator.contrast(at(planted, 0.0)) == 0.0
    assert calibrator.cost(at(planted, 0.0)) == {"perplexity_ratio": 1.0, "neutral_kl": 0.0}


def test_the_contrast_has_a_sign_and_grows_with_strength(
    planted: Run, calibrator: Calibrator
) -> None:
    contrasts = [calibrator.contrast(at(planted, s)) for s in (-1.0, 0.5, 1.0, 2.0)]
    assert contrasts == sorted(contrasts)
    assert contrasts[0] < 0 < contrasts[1]
    # Both directions count, so that turning the operator round turns the sign: float64 sums.
    assert contrasts[0] == pytest.approx(-contrasts[2], abs=1e-9)


def test_without_the_plant_there_is_no_contrast(planted: Run, calibrator: Calibrator) -> None:
    unplanted = run(connected=False)
    contrast = Calibrator(unplanted.backend, calibration_set()).contrast(at(unplanted, 1.0))
    # What is left comes through the final norm; 2 % of the planted contrast bounds it.
    assert abs(contrast) < 0.02 * calibrator.contrast(at(planted, 1.0))


def test_the_contrast_by_hand(planted: Run, calibrator: Calibrator) -> None:
    """Likelihoods from a hook and a loss of torch's own, in float64 after the logits."""
    data, vector = calibration_set(), planted.additive.operators[PLANTED_LAYER].tensors()["vector"]
    pairs = [[getattr(pair, name) for pair in data.pairs] for name in ("positive", "negative")]
    plain = [by_hand(planted, texts, 0 * vector) for texts in pairs]
    gains = []
    for sign in (1, -1):
        added = [by_hand(planted, t, sign * vector) - p for t, p in zip(pairs, plain, strict=True)]
        gains.append(sign * (added[0] - added[1]))
    # float32 logits of about 20 in other batches and another order: 1e-5 each, means of five.
    assert calibrator.contrast(at(planted, 1.0)) == pytest.approx(np.mean(gains), abs=1e-4)


def by_hand(planted: Run, texts: Sequence[str], vector: NDArray[np.float64]) -> float:
    """Mean log-likelihood per text with a vector added to all tokens but the first."""

    def push(module: Any, args: Any, output: Any) -> Any:
        output[:, 1:] += torch.from_numpy(vector).float()
        return output

    handle = planted.backend.model.model.layers[PLANTED_LAYER].register_forward_hook(push)
    totals = []
    try:
        for text in texts:
            ids = torch.tensor([planted.backend.tokenize(text)])
            with torch.inference_mode():
                logits = planted.backend.model(ids).logits[0, :-1].double()
            loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
            totals.append(-float(loss))
    finally:
        handle.remove()
    return float(np.mean(totals))


def test_the_cost_is_measured_both_ways(planted: Run, calibrator: Calibrator) -> None:
    forth, back = (calibrator.cost(at(planted, s)) for s in (2.0, -2.0))
    # The same two directions in the other order: float64 sums.
    assert forth == pytest.approx(back, rel=1e-12)
    weak = calibrator.cost(at(planted, 0.5))
    assert weak["neutral_kl"] < forth["neutral_kl"]


def test_the_calibration_split_is_all_that_counts(planted: Run, calibrator: Calibrator) -> None:
    """Turned pairs turn the contrast: the pairs define the target."""
    data = calibration_set()
    turned = [type(pair)(pair.negative, pair.positive) for pair in data.pairs]
    other = Calibrator(planted.backend, replace(data, pairs=turned))
    # The same texts in the other order: float64 sums.
    expected = -calibrator.contrast(at(planted, 1.0))
    assert other.contrast(at(planted, 1.0)) == pytest.approx(expected, abs=1e-9)


def test_the_prompt_of_a_pair_is_read_and_not_scored(planted: Run) -> None:
    """A prompt split off the texts leaves what is read as it was; its tokens add no likelihood."""
    data = calibration_set()
    pairs = []
    for pair in data.pairs[:4]:
        # Only the last word has a class.
        (head, one), (same, other) = (text.rsplit(" ", 1) for text in pair.texts)
        assert head == same
        pairs.append(ContrastPair(f" {one}", f" {other}", head))
    found = Calibrator(planted.backend, replace(data, pairs=pairs))
    expected = np.zeros(2)
    for pair in pairs:
        start = len(planted.backend.tokenize(pair.prompt))
        for side, text in enumerate(pair.texts):
            ids = planted.backend.tokenize(text)
            (values,) = measures.log_likelihoods(planted.backend, [ids])
            assert len(ids) > start
            expected[side] += values[start - 1 :].sum() / len(pairs)
    # Batches of other lengths round float32 logits otherwise.
    np.testing.assert_allclose(found._likelihoods(), expected, rtol=1e-5)
