"""What ``cogit fit`` does: fit, choose, refine, judge, save and say it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cogit import autofit
from cogit.activations import Activations, record
from cogit.autofit import Recipe
from cogit.cli.console import print_json, say
from cogit.cli.fit_born import train
from cogit.cli.fit_lineage import source_facts, subspace_facts, with_lineage
from cogit.cli.fit_report import facts_of, print_facts
from cogit.cli.fit_request import INPUTS, Outcome, Request
from cogit.cli.loading import ModelSource, display_name, open_model
from cogit.cli.run_record import begin
from cogit.evaluation.teacher_forced import TeacherForced
from cogit.evaluation.undo_ways import undo_ways
from cogit.intervention import Intervention
from cogit.layers import LayerRange, describe_blocks
from cogit.operators import Operator
from cogit.pairs import load_pairs
from cogit.subspace import Subspace, fit_subspace
from cogit.training.flips import (
    compare_flips,
    flip_report,
    in_sample,
    shuffle_classes,
    split_activations,
    states_of,
)

if TYPE_CHECKING:
    from cogit.backends import Backend
    from cogit.evaluation.teacher_forced import Choice
    from cogit.training.through_model import Refined

_SHUFFLED_CONTRASTS = 4


def execute(request: Request) -> None:
    """Do what was asked, write the file and print what was found."""
    request.require()
    source = None
    if request.pairs is not None:
        source = ModelSource.choose(request.backend, request.model)
    model = request.model if source is None else source.path
    inputs = {"model": model, **{name: getattr(request, name) for name in INPUTS}}
    run = begin(request.outputs, inputs, force=request.force)
    if source is not None:
        say("model", f"{display_name(source)} ({source.origin}), {request.backend.value}")
        with open_model(request.backend, source.path, request.runtime) as backend:
            outcome = _from_pairs(request, backend)
    elif request.activations is not None:
        outcome = _from_activations(request)
    else:
        outcome = _from_subspace(request)
    facts = facts_of(request, outcome)
    outcome.intervention.save(request.out)
    if request.out_opposite is not None:
        assert outcome.opposite is not None
        _like(outcome.opposite, outcome.intervention).save(request.out_opposite)
    if request.plot is not None:
        from cogit.training.plots import write_plot

        write_plot(request.plot, outcome.choice, outcome.refined)
    run.finish()
    if request.json_output:
        print_json(facts)
    else:
        print_facts(facts)
    say("written", str(request.out))


# ---- the three sources ----


def _from_pairs(request: Request, backend: Backend) -> Outcome:
    assert request.pairs is not None
    split = autofit.split_pairs(load_pairs(request.pairs), request.seed)
    texts, origin = autofit.neutral_texts(request.neutral)
    say("neutral", f"{len(texts)} texts: {origin}")
    training, checking, reporting = autofit.thirds(texts, request.seed)
    layers = request.layers or LayerRange(None)
    show = not request.json_output
    states = record(backend, split.fit, layers, tail=request.tail, show_progress=show)
    check = TeacherForced(backend, split.calibration, checking)
    recipe, choice, trained = request.recipe, None, None
    if request.born is not None:
        trained = train(request, states, states.layers)
        start = trained.towards
    elif request.auto:
        choice = autofit.choose(check, states, recipe, request.budget, show=show)
        start, recipe = choice.chosen.intervention, _chosen_recipe(recipe, choice)
    else:
        start = _fitted(request, states, states.layers)
    refined = None
    if request.refine:
        refined = _refine(request, backend, start, split, (training, checking), show)
    found = start if refined is None else refined.intervention
    made_of = source_facts(request, states)
    found = with_lineage(request, found, split.sizes(), origin, made_of)
    outcome = Outcome(found, _settings(request, choice), split.sizes(), neutral=origin)
    outcome.choice, outcome.refined, outcome.trained = choice, refined, trained
    # A refined operator has the strength of its start in its matrix; its controls have not.
    outcome.control_strength = found.strength * (1.0 if refined is None else start.strength)
    blocks = LayerRange.of(found.layers)
    unseen = record(backend, split.held_out, blocks, tail=request.tail, show_progress=show)
    _judge_flips(request, outcome, states, unseen, recipe)
    held_out = TeacherForced(backend, split.held_out, reporting)
    outcome.score = held_out.score(found, outcome.opposite)
    outcome.neutral_kl = outcome.score.neutral_kl
    outcome.shuffled_contrast = [
        float(held_out.contrast(*shuffled)[0].mean())
        for shuffled in _shuffled(request, outcome, states, recipe)
    ]
    prompts = autofit.open_prompts(backend, split.held_out)
    _transport(request, outcome, backend, states, prompts or reporting, bool(prompts))
    return outcome


def _from_activations(request: Request) -> Outcome:
    path = request.activations
    assert path is not None
    states, unseen = split_activations(Activations.load(path), request.seed)
    recorded = states.layers
    if request.layers is None and len(recorded) > 1:
        message = (
            f"[layers] expected --layer L for states of several blocks, got none; {path} holds "
            f"{describe_blocks(recorded)}"
        )
        raise ValueError(message)
    blocks = (
        recorded if request.layers is None else request.layers.resolve(states.identity.n_layers)
    )
    sizes = {"fit": states.positive.shape[1], "held_out": unseen.positive.shape[1]}
    trained = None if request.born is None else train(request, states, blocks)
    start = _fitted(request, states, blocks) if trained is None else trained.towards
    found = with_lineage(request, start, sizes, None, source_facts(request, states))
    outcome = Outcome(found, _settings(request, None), sizes, trained=trained)
    outcome.control_strength = found.strength
    _judge_flips(request, outcome, states, unseen, request.recipe)
    _judge_with_model(request, outcome, states)
    return outcome


def _from_subspace(request: Request) -> Outcome:
    path = request.subspace
    assert path is not None
    subspace = Subspace.load(path)
    wanted = None if request.layers is None else request.layers.resolve(subspace.identity.n_layers)
    if wanted not in (None, (subspace.layer,)):
        message = (
            f"[layers] expected block {subspace.layer}, which {path} was fitted at, got "
            f"{request.layers}; leave --layer out"
        )
        raise ValueError(message)
    made = {subspace.layer: request.recipe.fit(subspace)}
    start = Intervention(made, subspace.identity, request.strength)
    sizes = {"fit": len(subspace.positive)}
    found = with_lineage(request, start, sizes, None, subspace_facts(subspace))
    outcome = Outcome(found, _settings(request, None), sizes)
    operator, layer = made[subspace.layer], subspace.layer
    outcome.in_sample = {layer: in_sample(operator, subspace, strength=request.strength)}
    seen = states_of(subspace)
    outcome.undo = {layer: undo_ways(operator, *seen, strength=request.strength)}
    _judge_with_model(request, outcome, None, [subspace])
    return outcome


# ---- parts ----


def _fitted(request: Request, states: Activations, blocks: tuple[int, ...]) -> Intervention:
    made: dict[int, Operator] = {
        layer: request.recipe.fit_states(states, layer) for layer in blocks
    }
    return Intervention(made, states.identity, request.strength)


def _chosen_recipe(recipe: Recipe, choice: Choice) -> Recipe:
    """The recipe that the chosen candidate came from, for the shuffled controls."""
    settings = choice.chosen.settings
    return replace(
        recipe,
        angle=settings.get("angle", recipe.angle),
        gain=settings.get("gain", recipe.gain),
    )


def _refine(
    request: Request,
    backend: Any,
    start: Intervention,
    split: autofit.Split,
    neutral: tuple[list[str], list[str]],
    show: bool,
) -> Refined:
    from cogit.training.through_model import RefineData, RefineSettings, refine

    return refine(
        backend,
        start,
        RefineData(split.fit, neutral[0], split.calibration, neutral[1], request.budget),
        RefineSettings(steps=request.refine, seed=request.seed),
        checkpoint=request.checkpoint,
        resume=request.resume,
        show=show,
    )


def _judge_flips(
    request: Request, outcome: Outcome, states: Activations, unseen: Activations, recipe: Recipe
) -> None:
    found = outcome.intervention
    for layer, operator in found.operators.items():
        back = None if outcome.opposite is None else outcome.opposite.operators[layer]
        outcome.undo[layer] = undo_ways(
            operator, *unseen.at(layer), strength=found.strength, reverse=back
        )
    if outcome.trained is not None:
        for layer, one in outcome.trained.blocks.items():
            outcome.flips[layer] = compare_flips(
                (one.towards, one.back),
                one.shuffled,
                states,
                unseen,
                layer,
                strength=found.strength,
            )
        return
    for layer, operator in found.operators.items():
        outcome.flips[layer] = flip_report(
            operator,
            lambda copy, layer=layer: recipe.fit_states(copy, layer),  # type: ignore[misc]
            states,
            unseen,
            layer,
            strength=found.strength,
            seed=request.seed,
            control_strength=outcome.control_strength,
        )


def _shuffled(
    request: Request, outcome: Outcome, states: Activations, recipe: Recipe
) -> list[tuple[Intervention, Intervention | None]]:
    """The same fit to shuffled classes, at the same blocks and strength, and its way back."""
    found = outcome.intervention
    if outcome.trained is not None:
        return list(outcome.trained.shuffled())
    made: list[tuple[Intervention, Intervention | None]] = []
    for draw in range(_SHUFFLED_CONTRASTS):
        copy = shuffle_classes(states, request.seed + draw)
        operators = {layer: recipe.fit_states(copy, layer) for layer in found.layers}
        made.append((Intervention(operators, found.identity, outcome.control_strength), None))
    return made


def _judge_with_model(
    request: Request,
    outcome: Outcome,
    states: Activations | None,
    subspaces: list[Subspace] | None = None,
) -> None:
    """Cost and transport on neutral texts, where a model was named."""
    if request.model is None:
        say("model", "none given: no contrast, cost and transport; use --pairs for all of them")
        return
    texts, outcome.neutral = autofit.neutral_texts(request.neutral)
    say("neutral", f"{len(texts)} texts: {outcome.neutral}")
    with open_model(request.backend, request.model, request.runtime) as backend:
        from cogit.evaluation.teacher_forced import neutral_divergence

        outcome.neutral_kl = neutral_divergence(
            backend, outcome.intervention, texts, outcome.opposite
        )
        _transport(request, outcome, backend, states, texts, False, subspaces)


def _transport(
    request: Request,
    outcome: Outcome,
    backend: Backend,
    states: Activations | None,
    texts: list[str],
    from_pairs: bool,
    subspaces: list[Subspace] | None = None,
) -> None:
    found = outcome.intervention
    if subspaces is None:
        assert states is not None
        subspaces = [fit_subspace(states, layer, k=request.recipe.k) for layer in found.layers]
    outcome.transport = autofit.transport(backend, found, subspaces, texts, outcome.opposite)
    outcome.transport_on = (
        "beginnings that the texts of held-out pairs share" if from_pairs else "neutral texts"
    )


def _settings(request: Request, choice: Choice | None) -> dict[str, Any]:
    if request.born is not None:
        return request.born.to_json()
    return request.recipe.settings() if choice is None else dict(choice.chosen.settings)


def _like(opposite: Intervention, found: Intervention) -> Intervention:
    """The way back with the lineage of the way there."""
    return replace(opposite, lineage={**found.lineage, **opposite.lineage})
