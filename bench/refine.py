"""Gradient-refined unitary against closed-form rotations at equal KL: python -m bench.refine.

On the demo model, in transformers. Three splits of its grammar: pairs and facts to fit and train
on, others to choose and to match on, others that are reported. At each level of KL on neutral facts
(nats per token, matched on the calibration split) two arms steer both ways:

ours: the plane rotation that the automatic choice takes, refined by gradients through the model,
dialled to the level. baseline: the plane rotation with the largest teacher-forced contrast on the
calibration split among all blocks and angles, each dialled to the level and held to the same rise
of the target's NLL. One dial serves both: the geodesic strength up to 1, the reference amplitude
beyond. A level that an arm cannot reach within the NLL budget has no rows.

lift: points of sentiment on open prompts over the plain model. override: the same where the context
says the opposite. contrast: nats per pair, teacher-forced, held out. kl: on held-out facts. The
note holds the paired difference with its bootstrap interval over prompts or pairs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from bench.rows import Row, arguments, finish
from cogit import autofit
from cogit.activations import Activations, record
from cogit.backends.transformers import TransformersBackend
from cogit.demo import grammar
from cogit.demo.assets import demo_model
from cogit.evaluation.evaluate import Arm, ArmResult, EvaluationSet, Evaluator, paired_difference
from cogit.evaluation.statistics import Interval, bootstrap_mean
from cogit.evaluation.teacher_forced import Budget, Score, TeacherForced
from cogit.intervention import Intervention
from cogit.operators import Unitary
from cogit.sampling import SamplingOptions
from cogit.subspace import fit_subspace
from cogit.training.through_model import Refined, RefineData, RefineSettings, refine

LEVELS = (0.0025, 0.005, 0.01, 0.02)
ANGLES, GAIN = (60.0, 75.0, 90.0), 2.0
_DIAL = (0.05, 8.0)
_HALVINGS = 12
_CLOSE = 0.02  # of the level


@dataclass(frozen=True)
class Sizes:
    pairs: int = 100
    calibration: int = 48
    held_out: int = 96
    facts: int = 24
    open_prompts: int = 128
    opposite: int = 100
    steps: int = 300
    levels: tuple[float, ...] = LEVELS


QUICK = Sizes(32, 12, 16, 8, 16, 8, 20, (0.01,))


@dataclass(frozen=True)
class Bench:
    """The model, its states, and the two scorers."""

    backend: TransformersBackend
    states: Activations
    check: TeacherForced
    held_out: TeacherForced
    evaluator: Evaluator
    budget: Budget

    @classmethod
    def make(cls, sizes: Sizes, seed: int) -> Bench:
        backend = TransformersBackend.load(demo_model("transformers"), device="cpu")
        data = EvaluationSet(
            open_prompts=grammar.open_prompts(sizes.open_prompts, seed, "test"),
            opposite={
                +1: grammar.context_prompts(sizes.opposite, -1, seed, "test"),
                -1: grammar.context_prompts(sizes.opposite, 1, seed, "test"),
            },
            neutral=grammar.facts(sizes.facts, seed, "test"),
            judge=grammar.sentiment,
            sampling=SamplingOptions(max_tokens=16, temperature=1.0, top_k=0, seed=seed),
        )
        pairs = grammar.contrast_pairs(sizes.pairs, seed, "train")
        return cls(
            backend=backend,
            states=record(backend, pairs, show_progress=False),
            check=TeacherForced(
                backend,
                grammar.contrast_pairs(sizes.calibration, seed, "calibration"),
                grammar.facts(sizes.facts, seed, "calibration"),
            ),
            held_out=TeacherForced(
                backend,
                grammar.contrast_pairs(sizes.held_out, seed, "test"),
                grammar.facts(sizes.facts, seed, "test"),
            ),
            evaluator=Evaluator(backend, data),
            budget=Budget(),
        )


def dialled(intervention: Intervention, dial: float) -> Intervention:
    """Up to 1 the geodesic strength, beyond it the reference amplitude at full strength."""
    if dial <= 1:
        return intervention.at_strength(dial * intervention.strength)
    operators = {}
    for layer, operator in intervention.operators.items():
        assert isinstance(operator, Unitary)
        operators[layer] = replace(operator, amplitude=dial * operator.amplitude)
    return replace(intervention, operators=operators)


def at_level(check: TeacherForced, intervention: Intervention, level: float) -> Intervention | None:
    """Dialled until the KL on the calibration split is the level; None where it cannot be."""
    low, high = _DIAL
    if check.divergence(dialled(intervention, high)) < level:
        return None
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        found = check.divergence(dialled(intervention, middle))
        if abs(found - level) <= _CLOSE * level:
            return dialled(intervention, middle)
        low, high = (middle, high) if found < level else (low, middle)
    return None


def closed_at(bench: Bench, level: float) -> tuple[Intervention, str] | None:
    """The plane rotation of the largest contrast at the level, and which it is."""
    best: tuple[float, Intervention, str] | None = None
    for layer in bench.states.layers:
        subspace = fit_subspace(bench.states, layer)
        for angle in ANGLES:
            made = Unitary.fit(subspace, angle=angle, gain=GAIN)
            found = at_level(bench.check, Intervention({layer: made}, subspace.identity), level)
            if found is None:
                continue
            per_pair, rise = bench.check.contrast(found)
            contrast = float(per_pair.mean())
            if rise <= bench.budget.target_nll and (best is None or contrast > best[0]):
                best = contrast, found, f"{angle:g}° at block {layer}"
    return None if best is None else best[1:]


def refined_at(bench: Bench, intervention: Intervention, level: float) -> Intervention | None:
    found = at_level(bench.check, intervention, level)
    if found is None or bench.check.contrast(found)[1] > bench.budget.target_nll:
        return None
    return found


def train(bench: Bench, sizes: Sizes, seed: int) -> Refined:
    """The automatic choice, refined."""
    choice = autofit.choose(bench.check, bench.states, autofit.Recipe(), bench.budget, show=False)
    print(f"  chosen: {choice.chosen.settings}", flush=True)
    data = RefineData(
        pairs=grammar.contrast_pairs(sizes.pairs, seed, "train"),
        neutral=grammar.facts(3 * sizes.facts, seed, "train"),
        check_pairs=grammar.contrast_pairs(sizes.calibration, seed, "calibration"),
        check_neutral=grammar.facts(sizes.facts, seed, "calibration"),
        budget=bench.budget,
    )
    start = time.perf_counter()
    found = refine(
        bench.backend,
        choice.chosen.intervention,
        data,
        RefineSettings(steps=sizes.steps, seed=seed),
    )
    print(
        f"  refined: {found.steps_done} steps in {time.perf_counter() - start:.0f} s, best at "
        f"{found.step}, contrast {found.before.contrast:.2f} (KL {found.before.neutral_kl:.4f}) to "
        f"{found.after.contrast:.2f} (KL {found.after.neutral_kl:.4f})",
        flush=True,
    )
    return found


def measure(sizes: Sizes, seed: int) -> Iterator[Row]:
    bench = Bench.make(sizes, seed)
    refined = train(bench, sizes, seed)
    for level in sizes.levels:
        ours = refined_at(bench, refined.intervention, level)
        theirs = closed_at(bench, level)
        if ours is None or theirs is None:
            who = "the refined operator" if ours is None else "a closed form"
            print(f"  KL {level}: not reached by {who} within the NLL budget", flush=True)
            continue
        yield from rows(bench, level, ours, *theirs)


def rows(
    bench: Bench, level: float, ours: Intervention, theirs: Intervention, which: str
) -> Iterator[Row]:
    """The held-out figures of both arms at one level."""
    arms = [
        bench.evaluator.run(Arm.both_ways(name, one))
        for name, one in (("refined", ours), ("closed", theirs))
    ]
    scores = [bench.held_out.score(one) for one in (ours, theirs)]
    gaps = paired_difference(*arms)
    gaps["contrast"] = bootstrap_mean(scores[0].per_pair - scores[1].per_pair)
    prefix = f"refine.kl{level:g}".replace("0.", "0_")
    found = {"lift": "open", "override": "override"}
    for name, gap in found.items():
        ours_pp, theirs_pp = (_points(arm, name) for arm in arms)
        yield _row(f"{prefix}.{name}", ours_pp, theirs_pp, "points", gaps[gap], which)
    first, second = (score.contrast for score in scores)
    yield _row(f"{prefix}.contrast", first, second, "nats", gaps["contrast"], which)
    yield from _costs(prefix, arms, scores)


def _points(arm: ArmResult, name: str) -> float:
    return (arm.lift if name == "lift" else arm.override).mean


def _row(row_id: str, ours: float, theirs: float, unit: str, gap: Interval, which: str) -> Row:
    note = f"{which}; difference {gap.mean:+.2f} [{gap.low:.2f}, {gap.high:.2f}]"
    ratio = ours / theirs if min(ours, theirs) > 0 else None
    return Row(row_id, ours, unit, theirs, ratio, note=note)


def _costs(prefix: str, arms: list[ArmResult], scores: list[Score]) -> Iterator[Row]:
    """Below 1 the ratio says that ours costs more."""
    kl = [score.neutral_kl for score in scores]
    yield Row(f"{prefix}.kl", kl[0], "nats", kl[1], kl[1] / kl[0], note="held-out facts")
    perplexity = [arm.perplexity_ratio for arm in arms]
    yield Row(
        f"{prefix}.perplexity",
        perplexity[0],
        "times",
        perplexity[1],
        perplexity[1] / perplexity[0],
        note="generated text under the plain model, over plain text",
    )


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    found = list(measure(QUICK if options.quick else Sizes(), seed=0))
    if not found or not all(np.isfinite(row.value) for row in found):
        message = "[bench] expected a level that both arms reach, got none"
        raise RuntimeError(message)
    finish("refine", found, options, threads=1)


if __name__ == "__main__":
    main()
