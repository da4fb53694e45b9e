"""Does the evaluation say "effect" where there is one, and "no effect" where there is none?

python -m bench.calibrated [--quick] [--json FILE]. For every seed a tiny transformer is made twice,
with a plant of random strength and block and without it (bench/planted.py), and goes the whole way:
record, choose block and strength on held-in pairs, evaluate on held-out prompts with every control.

``power``: planted models with the verdict "effect", within the budget or beyond it.
``false_positives``: unplanted ones with it. ``holds.…``: how often each criterion holds. Values
in %, Wilson's interval at 95 % in the note. Limit: what an evaluation that never errs would reach.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bench.planted import World
from bench.rows import Row, arguments, finish
from cogit import autofit
from cogit.activations import record
from cogit.autofit import Recipe
from cogit.evaluation.evaluation import evaluate
from cogit.evaluation.subject import Subject
from cogit.evaluation.teacher_forced import Budget, TeacherForced
from cogit.evaluation.thresholds import Settings
from cogit.intervals import wilson_interval
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.evaluation.evaluation import Evaluation

SEEDS, QUICK_SEEDS = 40, 4
FIRST_SEED = 100
# Names of the criteria of the effect, in the order of the verdict.
CRITERIA = ("lift", "permutation", "random", "same_subspace", "shuffled", "exact", "sign_flipped")
RECIPE = Recipe("unitary", "plane")
GRID = {"angles": (60.0,), "gains": (1.0, 1.5, 2.0)}


@dataclass(frozen=True)
class Outcome:
    """The verdict on one model and which criteria of the effect hold, in their order."""

    word: str
    holds: tuple[bool, ...]
    lift: float

    @property
    def found(self) -> bool:
        return self.word != "no effect"


def settings(*, quick: bool = False) -> Settings:
    """Reduced sizes: one seed, no dose-response; every draw that the verdict needs."""
    sampling = SamplingOptions(max_tokens=6, temperature=1.0, top_k=0)
    return Settings.quick(
        n_prompts=24 if quick else 40, n_same_subspace=8, n_shuffled=4, sampling=sampling
    )


def run_one(world: World, *, connected: bool, chosen: Settings) -> Outcome:
    """Record, fit, evaluate. A fit that finds nothing within its budget counts as no effect."""
    with world.backend(connected=connected) as backend:
        evaluation = evaluate_world(world, backend, chosen)
    if evaluation is None:
        return Outcome("no effect", (False,) * len(CRITERIA), 0.0)
    criteria = [one for one in evaluation.verdict.criteria if one.kind == "effect"]
    lift = evaluation.of("learned")[0].lift.mean
    return Outcome(evaluation.verdict.word, tuple(one.holds is True for one in criteria), lift)


def evaluate_world(world: World, backend: Backend, chosen: Settings) -> Evaluation | None:
    """The whole flow on a model of a world; None where no candidate stays within the budget."""
    states = record(backend, world.pairs(32, 0), show_progress=False)
    suite = world.suite(chosen.n_prompts or 40)
    scorer = TeacherForced(backend, world.pairs(16, 1, n_class=1), list(suite.calibration_texts))
    try:
        choice = autofit.choose(scorer, states, RECIPE, Budget(0.05, 0.05), show=False, **GRID)
    except ValueError:
        return None
    settled = choice.chosen.settings
    recipe = Recipe("unitary", "plane", angle=settled["angle"], gain=settled["gain"])
    subject = Subject.from_activations(choice.chosen.intervention, states, recipe)
    return evaluate(backend, subject, suite, world.judge(), chosen, show=False)


def rows_of(planted: list[Outcome], unplanted: list[Outcome]) -> list[Row]:
    """Power, false positives, and how often every criterion holds on either kind of model."""
    rows = [
        _share("power", [one.found for one in planted], best=1.0),
        _share("power.within_budget", [one.word == "effect" for one in planted], best=1.0),
        _share("false_positives", [one.found for one in unplanted]),
    ]
    for kind, outcomes in (("planted", planted), ("unplanted", unplanted)):
        for number, name in enumerate(CRITERIA):
            rows.append(_share(f"holds.{kind}.{name}", [one.holds[number] for one in outcomes]))
    return rows


def _share(name: str, found: list[bool], best: float | None = None) -> Row:
    share = sum(found) / len(found)
    low, high = wilson_interval(share, len(found))
    return Row(
        id=f"calibrated.{name}",
        value=100 * share,
        unit="%",
        limit=None if best is None else 100 * best,
        of_limit=None if best is None else share / best,
        note=f"{sum(found)} of {len(found)}, interval {100 * low:.1f} to {100 * high:.1f}",
    )


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    chosen = settings(quick=options.quick)
    outcomes: dict[bool, list[Outcome]] = {True: [], False: []}
    started = time.perf_counter()
    for seed in range(FIRST_SEED, FIRST_SEED + (QUICK_SEEDS if options.quick else SEEDS)):
        world = World.draw(seed)
        for connected, found in outcomes.items():
            one = run_one(world, connected=connected, chosen=chosen)
            found.append(one)
            failed = [n for n, holds in zip(CRITERIA, one.holds, strict=True) if not holds]
            print(
                f"seed {seed} {'planted' if connected else 'unplanted':<9} logit "
                f"{world.logit:.2f} block {world.planted_layer} of {world.n_layers}: "
                f"{one.word}, lift {one.lift:+.1f}, fails: {', '.join(failed) or 'nothing'} "
                f"({time.perf_counter() - started:.0f} s)",
                flush=True,
            )
    finish("calibrated", rows_of(outcomes[True], outcomes[False]), options, threads=1)


if __name__ == "__main__":
    main()
