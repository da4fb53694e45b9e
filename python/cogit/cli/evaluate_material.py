"""The material of ``cogit evaluate``: prompts, texts and pairs, given or packaged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.cli.console import say
from cogit.evaluation.subject import Subject
from cogit.evaluation.suite import Suite
from cogit.evaluation.thresholds import SIZES
from cogit.intervention import Intervention
from cogit.prompts import load_prompts

if TYPE_CHECKING:
    from cogit.autofit import Recipe
    from cogit.backends.base import Backend
    from cogit.cli.evaluate_request import Request
    from cogit.pairs import ContrastPair

_CALIBRATION_PROMPTS, _CALIBRATION_TEXTS = 0.25, 1 / 3
_DEFAULTS = {
    "prompts": "packaged:open_prompts",
    "neutral_prompts": "packaged:neutral_prompts",
    "neutral": "packaged:neutral",
}
# Numbers of recorded states, beyond which only the steered blocks are recorded.
_MOST_STATES = 2**27


def load_suite(request: Request, *, demo: bool) -> Suite:
    """The material as it was asked for. demo: what is not given comes from the demo's grammar.

    Raises ValueError for parts that share a text, are empty, or are too few to be split.
    """
    positive, negative = request.instructions
    instructions = {} if positive is None else {1: positive, -1: negative or ""}
    given = {name: getattr(request, name) for name in _DEFAULTS}
    if demo and not any(given.values()):
        from cogit.demo.suite import demo_suite

        say("material", "the demo grammar's own prompts and facts, as none were given")
        return _with(demo_suite(SIZES[request.size], request.seed), instructions)
    texts: dict[str, list[str]] = {}
    for name, packaged in _DEFAULTS.items():
        source = given[name] or packaged
        texts[name] = list(dict.fromkeys(load_prompts(source)))
        origin = str(source) if given[name] else f"{packaged}, as none were given"
        say(name.replace("_", " "), f"{len(texts[name])} texts: {origin}")
    held_in, prompts = _split(texts["prompts"], _CALIBRATION_PROMPTS, request.seed, "prompts")
    matching, neutral = _split(texts["neutral"], _CALIBRATION_TEXTS, request.seed, "neutral")
    return Suite(
        prompts=tuple(prompts),
        neutral_prompts=tuple(texts["neutral_prompts"]),
        neutral_texts=tuple(neutral),
        calibration_prompts=tuple(held_in),
        calibration_texts=tuple(matching),
        instructions=instructions,
    )


def load_subject(
    request: Request, backend: Backend, learned: Intervention, suite: Suite, *, demo: bool
) -> Subject:
    """The intervention with the fits that the pairs allow; without pairs it stands alone.

    Raises ValueError where a text of the pairs is in the suite as well.
    """
    reverse = None if request.opposite is None else Intervention.load(request.opposite)
    pairs = _pairs(request, demo=demo)
    if pairs is None:
        say("pairs", "none given: no additive and no shuffled control")
        return Subject(learned, reverse)
    suite.require_unseen(text for pair in pairs for text in pair.texts)
    from cogit.activations import record
    from cogit.layers import LayerRange

    identity = backend.identity
    all_states = 2 * len(pairs) * identity.n_layers * identity.d_model <= _MOST_STATES
    blocks = LayerRange(None) if all_states else LayerRange.of(learned.layers)
    show = not request.json_output
    states = record(backend, pairs, blocks, tail=request.tail, show_progress=show)
    recipe = recipe_of(learned)
    subject = Subject.from_activations(
        learned,
        states,
        recipe,
        reverse=reverse,
        n_shuffled=request.settings().n_shuffled,
        seed=request.seed,
        layers=_layer_rows(states, request.seed),
    )
    for role, why in subject.notes.items():
        say(role, f"left out: {why}")
    return subject


def recipe_of(learned: Intervention) -> Recipe | None:
    """How a file of ``cogit fit`` was fitted, from its lineage; None where that does not say it."""
    from cogit.autofit import Recipe

    fit = learned.lineage.get("fit")
    if not isinstance(fit, dict):
        return None
    known = {
        name: fit[name] for name in ("operator", "method", "angle", "gain", "k") if name in fit
    }
    kinds = {operator.kind for operator in learned.operators.values()}
    try:
        recipe = Recipe(**known, restore=_restored(learned))
    except (TypeError, ValueError):
        return None
    return recipe if kinds == {recipe.operator} else None


def _restored(learned: Intervention) -> bool:
    return any(bool(getattr(one, "restore", False)) for one in learned.operators.values())


def _pairs(request: Request, *, demo: bool) -> list[ContrastPair] | None:
    if request.pairs is None:
        if not demo:
            return None
        from cogit.demo.suite import demo_pairs

        found = demo_pairs(request.seed)
        say("pairs", f"{len(found)} of the demo grammar's training split, as none were given")
        return found
    from cogit.pairs import load_pairs

    return load_pairs(Path(request.pairs) if Path(request.pairs).exists() else request.pairs)


def _layer_rows(states: Any, seed: int) -> list[dict[str, Any]] | None:
    """Where the classes differ, block by block, with Holm's correction over them."""
    from cogit.sweep import sweep_layers

    try:
        sweep = sweep_layers(states, seed=seed, permutations=999)
    except ValueError as error:
        say("layers", f"not tested: {error}")
        return None
    return [
        {"layer": one.layer, "gap": one.gap, "p": one.p_value, "p_holm": one.p_holm}
        for one in sweep.layers
    ]


def _split(texts: Sequence[str], share: float, seed: int, name: str) -> tuple[list[str], list[str]]:
    """The first, smaller part for calibration, the rest for the test; drawn by seed."""
    order = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
    n_first = max(1, round(share * len(texts)))
    if len(texts) - n_first < 2:
        message = f"[{name}] expected at least 3 different texts, got {len(texts)}; add some"
        raise ValueError(message)
    return order[:n_first], order[n_first:]


def _with(suite: Suite, instructions: dict[int, str]) -> Suite:
    from dataclasses import replace

    return replace(suite, instructions=instructions)
