"""What ``cogit fit`` does: fit, choose, refine, judge, save and say it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit import autofit
from cogit.activations import Activations, record
from cogit.autofit import Recipe
from cogit.cli.console import print_json, say
from cogit.cli.fit_report import facts_of, print_facts
from cogit.cli.loading import BackendChoice, ModelSource, Runtime, display_name, open_model
from cogit.evaluation.teacher_forced import Budget, Score, TeacherForced
from cogit.intervention import Intervention
from cogit.layers import LayerRange, describe_blocks
from cogit.operators import Operator
from cogit.pairs import load_pairs
from cogit.subspace import Subspace, fit_subspace
from cogit.training.flips import (
    FlipReport,
    flip_report,
    in_sample,
    shuffle_classes,
    split_activations,
)

if TYPE_CHECKING:
    from cogit.backends import Backend
    from cogit.evaluation.teacher_forced import Choice
    from cogit.training.through_model import Refined

_SHUFFLED_CONTRASTS = 4


@dataclass(frozen=True)
class Request:
    """The flags of one call."""

    pairs: str | None
    activations: Path | None
    subspace: Path | None
    out: Path
    model: str | None
    backend: BackendChoice
    runtime: Runtime
    layers: LayerRange | None
    recipe: Recipe
    strength: float
    tail: int
    auto: bool
    refine: int
    neutral: Path | None
    budget: Budget
    checkpoint: Path | None
    resume: bool
    plot: Path | None
    seed: int
    json_output: bool

    def require(self) -> None:
        """ValueError for flags that do not go together, before any work."""
        sources = {"--pairs": self.pairs, "--activations": self.activations}
        sources["--subspace"] = self.subspace
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            message = (
                f"[fit] expected one of {', '.join(sources)}, got {' and '.join(given) or 'none'}"
            )
            raise ValueError(message)
        if self.pairs is None and (self.auto or self.refine):
            message = (
                f"[fit] expected --pairs with --auto or --refine, which run texts through a model, "
                f"got {given[0]}"
            )
            raise ValueError(message)
        if self.refine and (
            self.recipe.operator != "unitary" or self.backend is not BackendChoice.transformers
        ):
            message = (
                f"[refine] expected a unitary on --backend transformers, which has gradients, got "
                f"{self.recipe.operator} on {self.backend.value}"
            )
            raise ValueError(message)
        if self.resume and (self.checkpoint is None or not self.refine):
            message = "[resume] expected --resume with --refine and --checkpoint, got it alone"
            raise ValueError(message)
        if self.checkpoint is not None and not self.refine:
            message = "[fit] expected --checkpoint with --refine only, got no steps to save"
            raise ValueError(message)
        if self.plot is not None and not (self.auto or self.refine):
            message = "[plot] expected --auto or --refine, got a fit without a choice or a curve"
            raise ValueError(message)
        for path in (self.out, self.plot):
            if path is not None and not path.absolute().parent.is_dir():
                message = f"[save] expected an existing folder for {path}; create it first"
                raise FileNotFoundError(message)


@dataclass
class Outcome:
    """The intervention and what was found out about it; None where it could not be measured."""

    intervention: Intervention
    settings: dict[str, Any]
    splits: dict[str, int]
    flips: dict[int, FlipReport] = field(default_factory=dict)
    in_sample: dict[int, Any] = field(default_factory=dict)
    score: Score | None = None
    shuffled_contrast: list[float] = field(default_factory=list)
    neutral_kl: float | None = None
    neutral: str | None = None
    transport: dict[int, float] = field(default_factory=dict)
    transport_on: str | None = None
    choice: Choice | None = None
    refined: Refined | None = None


def execute(request: Request) -> None:
    """Do what was asked, write the file and print what was found."""
    request.require()
    if request.pairs is not None:
        source = ModelSource.choose(request.backend, request.model)
        say("model", f"{display_name(source)} ({source.origin}), {request.backend.value}")
        with open_model(request.backend, source.path, request.runtime) as backend:
            outcome = _from_pairs(request, backend)
    elif request.activations is not None:
        outcome = _from_activations(request)
    else:
        outcome = _from_subspace(request)
    facts = facts_of(request, outcome)
    outcome.intervention.save(request.out)
    if request.plot is not None:
        from cogit.training.plots import write_plot

        write_plot(request.plot, outcome.choice, outcome.refined)
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
    layers = request.layers or (LayerRange(None) if request.auto else None)
    if layers is None:
        message = "[layers] expected --layer L, or --auto to choose one, got neither"
        raise ValueError(message)
    show = not request.json_output
    states = record(backend, split.fit, layers, tail=request.tail, show_progress=show)
    check = TeacherForced(backend, split.calibration, checking)
    recipe, choice = request.recipe, None
    if request.auto:
        choice = autofit.choose(check, states, recipe, request.budget, show=show)
        start, recipe = choice.chosen.intervention, _chosen_recipe(recipe, choice)
    else:
        start = _fitted(request, states, states.layers)
    refined = None
    if request.refine:
        refined = _refine(request, backend, start, split, (training, checking), show)
    found = start if refined is None else refined.intervention
    found = _with_lineage(request, found, split.sizes(), origin)
    outcome = Outcome(found, _settings(request, choice), split.sizes(), neutral=origin)
    outcome.choice, outcome.refined = choice, refined
    blocks = LayerRange.of(found.layers)
    unseen = record(backend, split.held_out, blocks, tail=request.tail, show_progress=show)
    _judge_flips(request, outcome, states, unseen, recipe)
    held_out = TeacherForced(backend, split.held_out, reporting)
    outcome.score = held_out.score(found)
    outcome.neutral_kl = outcome.score.neutral_kl
    outcome.shuffled_contrast = [
        float(held_out.contrast(shuffled)[0].mean())
        for shuffled in _shuffled(request, found, states, recipe)
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
    blocks = recorded if request.layers is None else request.layers.resolve(max(recorded) + 1)
    sizes = {"fit": states.positive.shape[1], "held_out": unseen.positive.shape[1]}
    found = _with_lineage(request, _fitted(request, states, blocks), sizes, None)
    outcome = Outcome(found, _settings(request, None), sizes)
    _judge_flips(request, outcome, states, unseen, request.recipe)
    _judge_with_model(request, outcome, states)
    return outcome


def _from_subspace(request: Request) -> Outcome:
    path = request.subspace
    assert path is not None
    subspace: Subspace = Subspace.load(path)  # type: ignore[attr-defined,unused-ignore]
    if request.layers is not None and request.layers.blocks != (subspace.layer,):
        message = (
            f"[layers] expected block {subspace.layer}, which {path} was fitted at, got "
            f"{request.layers}; leave --layer out"
        )
        raise ValueError(message)
    made = {subspace.layer: request.recipe.fit(subspace)}
    start = Intervention(made, subspace.identity, request.strength)
    sizes = {"fit": len(subspace.positive)}
    outcome = Outcome(_with_lineage(request, start, sizes, None), _settings(request, None), sizes)
    outcome.in_sample = {
        subspace.layer: in_sample(made[subspace.layer], subspace, strength=request.strength)
    }
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
        outcome.flips[layer] = flip_report(
            operator,
            lambda copy, layer=layer: recipe.fit_states(copy, layer),  # type: ignore[misc]
            states,
            unseen,
            layer,
            strength=found.strength,
            seed=request.seed,
        )


def _shuffled(
    request: Request, found: Intervention, states: Activations, recipe: Recipe
) -> list[Intervention]:
    """The same recipe fitted to shuffled classes, at the same blocks and strength."""
    made = []
    for draw in range(_SHUFFLED_CONTRASTS):
        copy = shuffle_classes(states, request.seed + draw)
        operators = {layer: recipe.fit_states(copy, layer) for layer in found.layers}
        # A refined operator has its strength in its matrix; its controls are closed forms.
        strength = request.strength if request.refine else found.strength
        made.append(Intervention(operators, found.identity, strength))
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

        outcome.neutral_kl = neutral_divergence(backend, outcome.intervention, texts)
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
    outcome.transport = autofit.transport(backend, found, subspaces, texts)
    outcome.transport_on = (
        "beginnings that the texts of held-out pairs share" if from_pairs else "neutral texts"
    )


def _settings(request: Request, choice: Choice | None) -> dict[str, Any]:
    return request.recipe.settings() if choice is None else dict(choice.chosen.settings)


def _with_lineage(
    request: Request, found: Intervention, sizes: dict[str, int], neutral: str | None
) -> Intervention:
    from cogit.identity import file_fingerprint

    source = str(request.pairs or request.activations or request.subspace)
    path = Path(source)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    known = [one for one in files if one.is_file()]
    lineage = {
        **found.lineage,
        "made_by": "cogit fit",
        "fit": found.lineage.get("fit", {**request.recipe.settings(), "k": request.recipe.k}),
        "source": path.name if known else source,
        **({"source_fingerprint": file_fingerprint(known)} if known else {}),
        "splits": sizes,
        "seed": request.seed,
        "tail": request.tail,
        **({} if neutral is None else {"neutral": neutral}),
    }
    return replace(found, lineage=lineage)
