"""The source system's way of fitting: a unitary for each direction, trained by the Born loss.

Schedule, blocks and blends are the preset's. Among its blocks and blends, the pair with the largest
teacher-forced contrast within the budget is taken; where none is within it, nothing is.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.devices import plan_placement
from cogit.intervention import Intervention
from cogit.memory_operators import training_needs
from cogit.pipeline.fitted import Fitted
from cogit.training.born_config import BornConfig
from cogit.training.born_operator import BornSettings, fit_born_operators

if TYPE_CHECKING:
    from cogit.activations import Activations
    from cogit.evaluation.teacher_forced import Budget, Score, TeacherForced
    from cogit.operators import Dense
    from cogit.pipeline.dims import Dims
    from cogit.pipeline.plan import Plan

_LOG = logging.getLogger("cogit.pipeline")


def born_settings(plan: Plan, dims: Dims) -> BornSettings:
    """The preset's schedule at the corrected width."""
    config = replace(BornConfig.of(plan.base), seed=plan.chosen_seed, epochs=plan.n_epochs)
    return BornSettings(config=config, quantum_dim=dims.q, draws=plan.shuffled_fits)


def blends_of(plan: Plan) -> tuple[float, ...]:
    """Those to choose from: the preset's, or the one that was asked for."""
    return plan.base.blend_ratios if plan.strength is None else (plan.strength,)


def train_both(
    plan: Plan,
    dims: Dims,
    states: Activations,
    check: TeacherForced,
    budget: Budget,
    *,
    show: bool,
) -> Fitted:
    """Train at every block of the plan and take the best block and blend.

    ValueError where no blend at any block is within the budget.
    """
    settings = born_settings(plan, dims)
    needs = training_needs(
        settings.config.family,
        dims.q,
        batch=settings.config.batch_size,
        trainings=settings.trainings,
    )
    placed = plan_placement(needs, plan.device)
    _LOG.info("training on  %s (%s)", placed.device, placed.reason)
    trained = {
        layer: fit_born_operators(states, layer, settings, device=placed.device, show=show)
        for layer in dims.layers
    }
    table: list[dict[str, Any]] = []
    best: tuple[float, int, float] | None = None
    for layer, one in trained.items():
        for blend in blends_of(plan):
            score = check.score(*_both(one.towards, one.back, layer, states, blend, plan.decode))
            table.append(_row(layer, blend, score))
            fits = score.within(budget) and bool(np.isfinite(score.per_pair).all())
            if fits and (best is None or score.contrast > best[0]):
                best = (score.contrast, layer, blend)
    if best is None:
        message = (
            f"[calibrate] expected a blend within a rise of the target's NLL of "
            f"{budget.target_nll:g} and a KL of {budget.neutral_kl:g} nats per token, got none of "
            f"{len(table)} (smallest KL {min(row['neutral_kl'] for row in table):.3g}); ask for a "
            f"smaller strength"
        )
        raise ValueError(message)
    _, layer, blend = best
    chosen = trained[layer]
    there, back = _both(chosen.towards, chosen.back, layer, states, blend, plan.decode)
    return Fitted(
        there,
        back,
        tuple(
            _both(one, other, layer, states, blend, plan.decode) for one, other in chosen.shuffled
        ),
        {**settings.to_json(), "layer": layer, "strength": blend, "decode": plan.decode},
        table,
        {str(block): one.to_json() for block, one in trained.items()},
    )


def _both(
    towards: Dense, back: Dense, layer: int, states: Activations, blend: float, decode: str
) -> tuple[Intervention, Intervention]:
    """Each direction at a positive blend: a negative one is no way back."""
    ways = (("negative_to_positive", towards), ("positive_to_negative", back))
    there, other = (
        Intervention(
            {layer: replace(operator, decode=decode)},
            states.identity,
            blend,
            lineage={"direction": name},
        )
        for name, operator in ways
    )
    return there, other


def _row(layer: int, blend: float, score: Score) -> dict[str, Any]:
    return {
        "layer": layer,
        "strength": blend,
        "contrast": score.contrast,
        "target_nll_rise": score.target_nll,
        "neutral_kl": score.neutral_kl,
    }
