"""Phase 2: the operator of both directions, its layer and strength, and its controls.

The closed forms choose layer and strength by the teacher-forced contrast within a budget. The
source system's way, ``born-adam``, trains one unitary for each direction at the preset's blocks,
and chooses block and blend alike. Whatever is chosen is judged on pairs that no choice has seen.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit import autofit
from cogit.activations import Activations
from cogit.autofit import Recipe
from cogit.evaluation.teacher_forced import Budget, Score, TeacherForced
from cogit.intervention import Intervention
from cogit.pipeline.born_fit import train_both
from cogit.pipeline.fidelity import fidelities, flips_of_both
from cogit.pipeline.files import write_json
from cogit.pipeline.fitted import Fitted
from cogit.pipeline.record_phase import FIT, HELD_OUT
from cogit.training.flips import compare_flips, shuffle_classes

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.pipeline.dims import Dims
    from cogit.pipeline.material import Material
    from cogit.pipeline.plan import Plan
    from cogit.training.flips import FlipReport

LEARNED, OPPOSITE, ADDITIVE = "learned.safetensors", "opposite.safetensors", "additive.safetensors"
FACTS = "fit.json"


def run_fit(
    folder: Path,
    earlier: Path,
    plan: Plan,
    dims: Dims,
    material: Material,
    backend: Backend,
    *,
    show: bool,
) -> None:
    """Write the phase's files to ``folder``, from the states of the record phase in ``earlier``.

    ValueError where nothing is within the budget.
    """
    states, unseen = (Activations.load(earlier / name) for name in (FIT, HELD_OUT))
    budget = Budget(plan.nll_budget, plan.kl_budget)
    check = TeacherForced(backend, material.calibration, material.checking)
    if plan.trains:
        found = train_both(plan, dims, states, check, budget, show=show)
    else:
        found = _closed_form(plan, states, check, budget, show=show)
    found = _with_lineage(found, plan, material)
    additive = _additive(found.learned, states)
    held_out = TeacherForced(backend, material.held_out, material.reporting)
    score = held_out.score(found.learned, found.opposite)
    contrasts = [float(held_out.contrast(*one)[0].mean()) for one in found.shuffled]
    facts = _judged(found, states, unseen, score, contrasts, budget)
    _save(folder, found, additive)
    write_json(folder / FACTS, facts)


def load_fitted(folder: Path) -> tuple[Intervention, Intervention | None, Intervention]:
    """The learned intervention, its way back where that is its own, and the additive one."""
    opposite = folder / OPPOSITE
    return (
        Intervention.load(folder / LEARNED),
        Intervention.load(opposite) if opposite.is_file() else None,
        Intervention.load(folder / ADDITIVE),
    )


def load_shuffled(folder: Path) -> tuple[tuple[Intervention, Intervention | None], ...]:
    """The controls, with their ways back."""
    found: list[tuple[Intervention, Intervention | None]] = []
    while (path := folder / _shuffled_name(len(found))).is_file():
        back = folder / _shuffled_name(len(found), "-opposite")
        found.append((Intervention.load(path), Intervention.load(back) if back.is_file() else None))
    return tuple(found)


def _closed_form(
    plan: Plan, states: Activations, check: TeacherForced, budget: Budget, *, show: bool
) -> Fitted:
    recipe = Recipe(method=plan.method, k=plan.k)
    grid: dict[str, tuple[float, ...]] = {}
    if plan.angle is not None:
        grid["angles"] = (plan.angle,)
    if plan.gain is not None:
        grid["gains"] = (plan.gain,)
    choice = autofit.choose(check, states, recipe, budget, show=show, **grid)
    settings = choice.chosen.settings
    recipe = replace(
        recipe,
        angle=settings.get("angle", recipe.angle),
        gain=settings.get("gain", recipe.gain),
    )
    learned = choice.chosen.intervention
    if plan.strength is not None:
        learned = learned.at_strength(plan.strength * learned.strength)
    shuffled = []
    for draw in range(plan.shuffled_fits):
        copy = shuffle_classes(states, plan.chosen_seed + draw)
        operators = {layer: recipe.fit_states(copy, layer) for layer in learned.layers}
        shuffled.append((Intervention(operators, learned.identity, learned.strength), None))
    return Fitted(
        learned,
        None,
        tuple(shuffled),
        {**settings, "strength": learned.strength},
        [dict(row) for row in choice.table],
    )


def _additive(learned: Intervention, states: Activations) -> Intervention:
    """The mean difference at the same blocks; the evaluation brings it to the same cost."""
    recipe = Recipe("additive")
    operators = {layer: recipe.fit_states(states, layer) for layer in learned.layers}
    return Intervention(operators, learned.identity)


def _judged(
    found: Fitted,
    states: Activations,
    unseen: Activations,
    score: Score,
    contrasts: list[float],
    budget: Budget,
) -> dict[str, Any]:
    """Everything about the operator on held-out pairs, each figure beside its controls."""
    flips: dict[int, FlipReport] = {}
    for layer, operator in found.learned.operators.items():
        back = None if found.opposite is None else found.opposite.operators[layer]
        flips[layer] = compare_flips(
            (operator, back),
            [
                (one.operators[layer], None if other is None else other.operators[layer])
                for one, other in found.shuffled
            ],
            states,
            unseen,
            layer,
            strength=found.learned.strength,
        )
    verdict, criteria = autofit.verdict(flips.values(), score, contrasts, budget)
    return {
        "settings": found.settings,
        "intervention": found.learned.describe(),
        "hash": found.learned.content_hash,
        "opposite_hash": None if found.opposite is None else found.opposite.content_hash,
        "layers": list(found.learned.layers),
        "strength": found.learned.strength,
        "fidelity": fidelities(found, unseen),
        "flips": {str(layer): one.to_json() for layer, one in flips.items()},
        "flips_of_both": flips_of_both(found, states, unseen),
        "contrast": score.to_json(),
        "shuffled_contrast": contrasts,
        "budget": asdict(budget),
        "criteria": criteria,
        "verdict": verdict,
        "choice": found.table,
        "training": found.training,
    }


def _with_lineage(found: Fitted, plan: Plan, material: Material) -> Fitted:
    """The interventions with where they come from, as ``cogit inspect`` shows it."""
    made: dict[str, Any] = {
        "made_by": "cogit pipeline",
        "fit": found.settings,
        "preset": plan.preset,
        "seed": plan.chosen_seed,
        "splits": material.sizes(),
        "pairs": material.pairs_hash(),
    }

    def told(one: Intervention) -> Intervention:
        return replace(one, lineage={**one.lineage, **made})

    opposite = None if found.opposite is None else told(found.opposite)
    return replace(found, learned=told(found.learned), opposite=opposite)


def _save(folder: Path, found: Fitted, additive: Intervention) -> None:
    found.learned.save(folder / LEARNED)
    if found.opposite is not None:
        found.opposite.save(folder / OPPOSITE)
    additive.save(folder / ADDITIVE)
    for number, (one, back) in enumerate(found.shuffled):
        one.save(folder / _shuffled_name(number))
        if back is not None:
            back.save(folder / _shuffled_name(number, "-opposite"))


def _shuffled_name(number: int, way: str = "") -> str:
    return f"shuffled-{number}{way}.safetensors"
