"""The evaluation on models of known truth: it finds what is there and nothing else."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from _evaluated import (
    JUDGE,
    backend,
    evaluated,
    settings,
    source_subject,
    states,
    subject,
    suite,
)
from _planted import learned
from cogit.errors import InterventionError
from cogit.evaluation.arm_result import ArmResult
from cogit.evaluation.dose import strength_sweep
from cogit.evaluation.engine import Engine
from cogit.evaluation.evaluation import Evaluation, evaluate
from cogit.evaluation.statistics import Interval
from cogit.evaluation.subject import Subject

ZERO = Interval(0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def planted() -> Evaluation:
    return evaluated(connected=True)


@pytest.fixture(scope="module")
def unplanted() -> Evaluation:
    return evaluated(connected=False)


def only(found: Evaluation, role: Any) -> ArmResult:
    (arm,) = found.of(role)
    return arm


def criterion(found: Evaluation, part: str) -> Any:
    (one,) = [one for one in found.verdict.criteria if part in one.name]
    return one


def test_a_planted_effect_is_found(planted: Evaluation) -> None:
    """N1: every criterion of the effect holds; steering the facts too is told as its cost."""
    assert all(one.holds for one in planted.verdict.criteria if one.kind == "effect")
    assert planted.verdict.word == "effect beyond the budget"
    assert any("drift" in reason for reason in planted.verdict.reasons)


def test_without_the_plant_there_is_no_effect(unplanted: Evaluation) -> None:
    """N1."""
    assert unplanted.verdict.word == "no effect"
    assert criterion(unplanted, "lift on held-out prompts").holds is False
    assert criterion(unplanted, "permutation test").holds is False
    assert only(unplanted, "learned").lift.contains(0.0)
    # The operator does act, or there would be nothing to find: the logits move.
    assert only(unplanted, "learned").run.neutral_kl


def test_learned_random_and_strength_zero(planted: Evaluation) -> None:
    """D8: the learned interval excludes 0, that of random operators includes it, 0 is exactly 0."""
    assert only(planted, "learned").lift.low > 0
    draws = planted.of("random")
    assert len(draws) == 20
    # 95 % intervals: of 20 that know nothing one may miss; three would be rare (p = .08).
    assert sum(not one.lift.contains(0.0) for one in draws) <= 3
    mean = np.mean([one.run.hits for one in draws], axis=0) - planted.results[0].run.hits
    assert abs(100 * float(mean.mean())) < 5
    for role in ("strength_zero", "identity"):
        one = only(planted, role)
        assert one.lift == ZERO
        assert one.override == ZERO
        assert one.drift == ZERO
        assert one.run.neutral_kl == 0.0
        assert one.run.changed is False
        assert one.perplexity_ratio == 1.0


def test_every_arm_of_rows_n1_and_q50_is_there(planted: Evaluation) -> None:
    """N1, Q50."""
    roles = [one.arm.role for one in planted.results]
    expected = {"random": 20, "random_same_subspace": 4, "shuffled": 2, "diagonal": 2}
    single = ("baseline", "learned", "sign_flipped", "identity", "strength_zero", "additive")
    expected |= dict.fromkeys((*single, "prompt_only", "prompt_and_steer"), 1)
    assert {role: roles.count(role) for role in set(roles)} == expected
    assert [one.arm.name for one in planted.of("diagonal")] == ["diagonal 1234", "diagonal 1235"]


def test_the_sign_flipped_arm_is_what_steering_the_other_way_writes(planted: Evaluation) -> None:
    flipped, learned_arm = only(planted, "sign_flipped"), only(planted, "learned")
    assert flipped.lift.high < 0
    assert flipped.arm.towards is not None
    model = backend(connected=True)
    with model.steer(flipped.arm.towards[1], verify=False):
        again = model.replicate(suite().prompts, settings().sampling, settings().seeds)
    assert again == flipped.run.samples[1] == learned_arm.run.samples[-1]


def test_random_numbers_are_common_to_all_arms(planted: Evaluation) -> None:
    """Q24: the same seed at strength 0 gives the same tokens; another seed gives others."""
    plain = only(planted, "baseline").run.samples[1]
    for role in ("strength_zero", "identity"):
        assert only(planted, role).run.samples[1] == plain
    assert [one.ids for one in plain[0]] != [one.ids for one in plain[1]]


def test_matched_controls_cost_what_the_learned_one_does(planted: Evaluation) -> None:
    matched = [one.arm.match for one in planted.results if one.arm.match is not None]
    assert len(matched) == 1 + 2 + 20 + 4 + 2
    exact = [one for one in matched if one.exact]
    for one in exact:
        # The search stops within 5 %; 10 % is what row N1's "equal" is taken to mean.
        assert one.reached == pytest.approx(one.target, rel=0.1)
    # One diagonal may wrap before it gets there, and then it says so.
    assert len(exact) >= len(matched) - 2


def test_relevance_is_not_measured_where_the_plain_model_has_none(planted: Evaluation) -> None:
    """Q52: a criterion that cannot be measured does not hold silently."""
    one = criterion(planted, "relevance")
    assert one.holds is None
    assert one.found.startswith("not measured: ")
    assert any("relevance" in reason and "not measured" in reason for reason in _reasons(planted))


def _reasons(found: Evaluation) -> tuple[str, ...]:
    return found.verdict.reasons


def test_separation_and_fidelity_never_decide(planted: Evaluation) -> None:
    """Q52; DESIGN section 5."""
    shown = [one for one in planted.verdict.criteria if not one.decides]
    assert [one.name.split()[0] for one in shown] == ["separation", "fidelity", "fidelity"]
    assert criterion(planted, "fidelity to +1").holds is False
    assert planted.verdict.word != "no effect"


def test_the_source_systems_null_is_no_effect() -> None:
    """The first source system, averaged, its norm lost, broadcast: no effect on a model that has
    one to find.
    """
    found = evaluate(
        backend(connected=True),
        source_subject(),
        suite(16, instructions={}, opposite={}, neutral_prompts=()),
        JUDGE,
        settings(seeds=(42,), doses=(), match="none", n_same_subspace=0),
        show=False,
    )
    assert found.verdict.word == "no effect"
    assert criterion(found, "lift on held-out prompts").holds is False
    # No pairs were given: what could not be compared says so and decides nothing.
    assert criterion(found, "fits to shuffled classes").found.startswith("not measured: ")


def test_the_source_systems_default_blend_is_refused() -> None:
    """Q21, Q23: released with a blend of 0, it changes nothing, and that is an error."""
    released = source_subject().learned.at_strength(0.0)
    with pytest.raises(InterventionError, match="changes nothing; raise its strength"):
        Subject(released)


# ---- the report ----


def test_numbers_are_finite_or_null(planted: Evaluation) -> None:
    json.dumps(planted.to_json(), allow_nan=False)
    for value in _leaves(planted.to_json()):
        assert not isinstance(value, float) or math.isfinite(value)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _leaves(one)
    else:
        yield value


TOP = {
    *("format", "format_version", "title", "backend", "model", "intervention", "settings"),
    *("facts", "arms", "comparisons", "dose", "power", "criteria", "verdict", "reasons"),
    *("summary", "records", "neutral_summary", "neutral_records", "tokens", "layers"),
}
ARM = {
    *("name", "role", "draw", "strength", "match", "n_prompts", "n_samples", "positive_rate"),
    *("success", "score", "lift_pp", "override_pp", "p", "p_holm", "mcnemar_p", "cohen_h"),
    *("anti_steered", "perplexity", "perplexity_ratio", "neutral_kl", "text_kl", "repetition"),
    *("drift_pp", "relevance", "capability", "displacement"),
}
RATES = {"positive_rate", "avg_sentiment_score", "avg_perplexity"}
LIFTS = {"lift_vs_baseline", "lift_ci_vs_baseline", "lift_vs_random", "lift_ci_vs_random"}


def test_the_report_has_every_key(planted: Evaluation) -> None:
    """Q25, Q56."""
    data = planted.to_json()
    assert data.keys() == TOP
    assert (data["format"], data["format_version"]) == ("cogit evaluation", 1)
    assert all(arm.keys() == ARM for arm in data["arms"])
    assert data["criteria"][0].keys() == {"name", "holds", "found", "expected", "decides"}
    assert data["comparisons"][0].keys() == {
        *("one", "other", "lift_pp", "override_pp", "p", "mcnemar_p")
    }
    assert data["model"]["name"] == "planted"
    assert data["intervention"]["hash"] == subject(connected=True).learned.content_hash
    power = {"n_prompts", "discordance", "detectable_pp", "power_at_threshold", "n_for_80"}
    assert data["power"].keys() == power
    for name in ("seeds", "match", "sampling", "thresholds", "judge", "sizes", "strengths"):
        assert data["settings"][name]


def test_the_five_conditions(planted: Evaluation) -> None:
    """Q50, Q56."""
    found = planted.to_json()["summary"]
    names = ["baseline", "learned_to_positive", "learned_to_negative", "random_a", "random_b"]
    assert list(found) == names
    for name, one in found.items():
        assert one.keys() == (RATES | LIFTS if name.startswith("learned") else RATES)
    arm = planted.to_json()["arms"][1]
    assert found["learned_to_positive"]["positive_rate"] == arm["positive_rate"]["+1"]
    gain = found["learned_to_negative"]["positive_rate"] - found["baseline"]["positive_rate"]
    # Means of the same zeros and ones, in points: float64 sums.
    assert found["learned_to_negative"]["lift_vs_baseline"] == pytest.approx(100 * gain, abs=1e-9)
    assert planted.to_json()["neutral_summary"].keys() == set(names[:3])


def test_records_are_cut_by_token_ids(planted: Evaluation) -> None:
    """Q27: what is judged and stored is the continuation, without the prompt."""
    model = backend(connected=True)
    for sample in only(planted, "learned").run.samples[1][0]:
        assert sample.text == model.detokenize(sample.ids)
        assert sample.prompt_ids == tuple(model.tokenize(sample.prompt))
    rows = planted.to_json()["records"]
    assert rows[0].keys() == {"arm", "draw", "sign", "seed", "prompt", "text", "score"}
    counts = {name: sum(row["arm"] == name for row in rows) for name in ("baseline", "learned")}
    assert counts == {"baseline": 48, "learned": 96}
    assert sum(row["arm"] == "random" for row in rows) == 20 * 2 * 2 * 3


def test_an_instruction_is_not_shown_to_the_judge(planted: Evaluation) -> None:
    run = only(planted, "prompt_only").run
    assert [one.prompt for one in run.samples[1][0]] == list(suite().prompts)
    assert len(run.samples[1][0][0].prompt_ids) == 1 + 2 + 3
    assert only(planted, "prompt_only").lift.low > 0


def test_tokens_say_where_the_operator_acts(planted: Evaluation) -> None:
    views = planted.to_json()["tokens"]
    assert [view["sign"] for view in views] == [1, 1, 1, -1, -1, -1]
    for view in views:
        changes = [token["change"] for token in view["tokens"]]
        # The first token is left alone.
        assert changes[0] == 0.0
        assert min(changes[1:]) > 0
        assert [token["generated"] for token in view["tokens"]].count(True) == 4
        assert "".join(token["text"] for token in view["tokens"]).startswith(view["prompt"])


def test_dose_response(planted: Evaluation) -> None:
    dose = planted.to_json()["dose"]
    assert dose.keys() == {"learned", "additive"}
    for one in dose.values():
        assert [point["strength"] for point in one["points"]] == [-1.0, -0.5, 0.0, 0.5, 1.0]
        assert one["slope"]["low"] > 0
        # At full strength the share saturates and a tie may turn.
        assert one["spearman"] > 0.9
        assert one["points"][2]["perplexity_ratio"] == 1.0


def test_an_evaluation_is_the_same_each_time(unplanted: Evaluation) -> None:
    few = settings(
        seeds=(42,), doses=(), n_random=1, n_same_subspace=1, n_shuffled=1, match="displacement"
    )
    bare = suite(6, opposite={}, instructions={}, neutral_prompts=())
    one, again = (
        evaluate(
            backend(connected=False), subject(connected=False), bare, JUDGE, few, show=False
        ).to_json()
        for _ in range(2)
    )
    assert one == again
    # One draw allows no rank below .05, so that nothing can be called an effect.
    (rank,) = [
        row for row in one["criteria"] if "random operators of the same family" in row["name"]
    ]
    assert rank["holds"] is None
    assert rank["found"].startswith("not measured: 1 draws")


def test_strengths_over_three_decades(planted: Evaluation) -> None:
    """Q57: the response to log-spaced strengths is monotone until the text breaks down."""
    engine = Engine(backend(connected=True), suite(), JUDGE, settings(seeds=(42, 43)))
    additive = learned(states(connected=True), "additive")
    found = strength_sweep(engine, additive, strengths=np.geomspace(0.01, 5, 7), show=False)
    shares = [point["share_positive"] for point in found["points"]]
    coherent = [
        share
        for point, share in zip(found["points"], shares, strict=True)
        if point["strength"] <= found["coherent_up_to"]
    ]
    assert len(coherent) >= 4
    # Common random numbers: a stronger push never loses a prompt but by a rounded tie.
    assert all(b >= a - 0.05 for a, b in itertools.pairwise(coherent))
    assert coherent[-1] > coherent[0] + 0.3
    assert found["slope"]["low"] > 0
    assert found["slope"]["unit"] == "points per decade of strength"
    # Five times the classes is beyond them: junk words, which the bound catches.
    assert found["coherent_up_to"] < 5.0


def test_blocks_alone_are_corrected_for_together() -> None:
    """N1: Holm over layers."""
    both = learned(states(connected=True), "additive", 1)
    last = learned(states(connected=True), "additive", 2)
    wide = replace(both, operators={**both.operators, **last.operators})
    few = settings(seeds=(42,), doses=(), n_random=0, n_same_subspace=0)
    found = evaluate(
        backend(connected=True),
        Subject(wide),
        suite(12, opposite={}, instructions={}, neutral_prompts=()),
        JUDGE,
        few,
        show=False,
    )
    learned_arms = found.of("learned")
    assert [one.arm.name for one in learned_arms] == [
        "learned",
        "learned at block 1 alone",
        "learned at block 2 alone",
    ]
    ordered = sorted(learned_arms, key=lambda one: one.p or 0.0)
    assert ordered[0].p_holm == pytest.approx(min(1.0, 3 * (ordered[0].p or 0.0)))
    assert found.verdict.word == "no effect"  # without random draws there is no proof


def test_a_wrong_model_is_refused() -> None:
    wrong = subject(connected=True).learned
    wrong = replace(wrong, identity=replace(wrong.identity, n_layers=7))
    with pytest.raises(ValueError, match="expected a model with 7 blocks"):
        evaluate(backend(connected=True), Subject(wrong), suite(), JUDGE, settings(), show=False)
