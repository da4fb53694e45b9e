"""The texts of a run: pairs in three parts, prompts, neutral texts, and what judges.

The demo model reads only its own grammar, so without pairs of the user it gets the grammar's, with
its exact judge. Any other model gets the packaged English ones. The parts share no text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import autofit
from cogit.demo import grammar
from cogit.demo.assets import demo_model
from cogit.pairs import ContrastPair, load_pairs
from cogit.pipeline.lineage import texts_hash
from cogit.prompts import load_prompts, packaged

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.pipeline.plan import Plan

_DEMO_FACTS, _OPPOSITE = 24, 24
INSTRUCTIONS = {
    1: "Go on in a friendly, pleased and positive tone. ",
    -1: "Go on in an annoyed, disappointed and negative tone. ",
}
"""Of the prompt-only baseline, with the packaged pairs, whose classes are known."""


@dataclass(frozen=True)
class Material:
    """Texts by their use.

    fit, calibration, held_out: pairs to fit on, to choose layer and strength on, to judge on.
    checking, reporting: neutral texts for the choice, and for the report. prompts: open ones, held
    out; calibration_prompts: for matching strengths alone. opposite: prompts whose context says the
    contrary of the target sign. judge: as `make_judge` reads it. origin: in words.
    """

    fit: tuple[ContrastPair, ...]
    calibration: tuple[ContrastPair, ...]
    held_out: tuple[ContrastPair, ...]
    checking: tuple[str, ...]
    reporting: tuple[str, ...]
    prompts: tuple[str, ...]
    calibration_prompts: tuple[str, ...]
    neutral_prompts: tuple[str, ...]
    judge: str
    origin: str
    opposite: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    instructions: Mapping[int, str] = field(default_factory=dict)

    def pairs_hash(self) -> str:
        """SHA-256 of all pairs, by their text."""
        parts = [[[*p.texts] for p in part] for part in (self.fit, self.calibration, self.held_out)]
        return texts_hash(*parts)

    def neutral_hash(self) -> str:
        return texts_hash(self.checking, self.reporting)

    def prompts_hash(self) -> str:
        """SHA-256 of every prompt that is continued."""
        opposite = [[str(sign), *texts] for sign, texts in sorted(self.opposite.items())]
        instructions = [f"{sign} {text}" for sign, text in sorted(self.instructions.items())]
        parts = (self.prompts, self.calibration_prompts, self.neutral_prompts, instructions)
        return texts_hash(*parts, opposite)

    def sizes(self) -> dict[str, int]:
        return {
            "fit_pairs": len(self.fit),
            "calibration_pairs": len(self.calibration),
            "held_out_pairs": len(self.held_out),
            "prompts": len(self.prompts),
            "calibration_prompts": len(self.calibration_prompts),
            "neutral_texts": len(self.reporting),
        }


@dataclass(frozen=True)
class ModelChoice:
    """Which model a plan means. note: something to say aloud, or empty."""

    path: str
    demo: bool
    note: str = ""


def model_of(plan: Plan) -> ModelChoice:
    """The given model, or the shipped demo model for ``tiny``, or the preset's own."""
    shipped = demo_model(plan.backend)
    if plan.model is not None:
        given = Path(plan.model)
        return ModelChoice(plan.model, given.exists() and given.resolve() == shipped.resolve())
    if plan.preset == "tiny":
        note = (
            f"preset tiny runs on the shipped demo model: its own, {plan.base.model}, would be a "
            f"download; --model {plan.base.model} takes that"
        )
        return ModelChoice(str(shipped), True, note)
    return ModelChoice(plan.base.model, False)


def load_material(plan: Plan, *, demo: bool) -> Material:
    """Everything that can be read before a model is loaded.

    Open prompts that are still to be taken from the pairs are left empty; see ``with_prompts``.
    Raises as ``load_pairs`` and ``split_pairs``, and ValueError for pairs of the user without a
    judge, or where a part would be empty or share a text with another.
    """
    if plan.pairs:
        found = _from_pairs(plan)
    elif demo:
        found = _from_grammar(plan)
    else:
        found = _packaged(plan)
    _require_apart(found)
    return found


def with_prompts(found: Material, plan: Plan, backend: Backend) -> Material:
    """The same with prompts: the common beginnings of pairs, where a user gave pairs alone."""
    if found.prompts:
        return found
    opened = [autofit.open_prompts(backend, part) for part in (found.held_out, found.calibration)]
    unseen = [one for one in opened[1] if one not in opened[0]]
    if len(opened[0]) < 4 or len(unseen) < 2:
        message = (
            f"[prompts] expected pairs that begin alike, at least 4 held out and 2 to calibrate "
            f"on, got {len(opened[0])} and {len(unseen)}; give --prompts FILE"
        )
        raise ValueError(message)
    return replace(
        found,
        prompts=tuple(opened[0][: plan.test_prompts]),
        calibration_prompts=tuple(unseen[: plan.calibration_prompts]),
    )


def _from_grammar(plan: Plan) -> Material:
    seed, n = plan.chosen_seed, plan.test_prompts
    facts = tuple(grammar.facts(_DEMO_FACTS, seed, "calibration"))
    prompts = tuple(grammar.open_prompts(n, seed, "test"))
    calibration = tuple(grammar.open_prompts(plan.calibration_prompts, seed, "calibration"))
    if plan.prompts is not None:
        prompts, calibration = _given_prompts(plan)
    # One draw of the test facts: what is continued is not also what the KL is measured on.
    drawn = tuple(grammar.facts(_DEMO_FACTS + plan.neutral_prompts, seed, "test"))
    neutral = facts, drawn[:_DEMO_FACTS]
    continued = drawn[_DEMO_FACTS:]
    if plan.neutral is not None:
        neutral = _given_neutral(plan)
        continued = _beginnings(neutral[1], plan)
    return Material(
        fit=tuple(grammar.contrast_pairs(plan.n_pairs, seed, "train")),
        calibration=tuple(grammar.contrast_pairs(plan.calibration_pairs, seed, "calibration")),
        held_out=tuple(grammar.contrast_pairs(plan.held_out_pairs, seed, "test")),
        checking=neutral[0],
        reporting=neutral[1],
        prompts=prompts,
        calibration_prompts=calibration,
        neutral_prompts=continued,
        judge=plan.judge or "demo",
        origin="pairs, prompts, facts and judge of the demo grammar",
        # The context's sign is the opposite of the target's.
        opposite={
            sign: tuple(grammar.context_prompts(min(n, _OPPOSITE), -sign, seed, "test"))
            for sign in grammar.SIGNS
        },
    )


def _from_pairs(plan: Plan) -> Material:
    if plan.judge is None:
        message = (
            "[judge] expected --judge with --pairs, got none: what the pairs differ in decides who "
            "can judge it; name vader, lexicon:FILE, classifier:MODEL, logits or api:URL"
        )
        raise ValueError(message)
    pairs = [pair for source in plan.pairs for pair in load_pairs(source)]
    return _split(plan, pairs, plan.judge, f"pairs of {', '.join(plan.pairs)}")


def _packaged(plan: Plan) -> Material:
    pairs, prompts, instructions = packaged_sentiment()
    found = _split(plan, pairs, plan.judge or "vader", "packaged English pairs and prompts")
    if plan.prompts is None:
        test, calibration = _two_parts(plan, prompts)
        found = replace(found, prompts=test, calibration_prompts=calibration)
    return replace(found, instructions=instructions)


def packaged_sentiment() -> tuple[list[ContrastPair], list[str], dict[int, str]]:
    """Pairs, open prompts and instructions that come with the package, for English models."""
    return load_pairs("packaged:pairs_sentiment"), packaged("open_prompts"), dict(INSTRUCTIONS)


def _split(plan: Plan, pairs: Sequence[ContrastPair], judge: str, origin: str) -> Material:
    """The user's or packaged pairs in three parts, the first cut to the preset's number."""
    split = autofit.split_pairs(pairs, plan.chosen_seed)
    checking, reporting = _given_neutral(plan)
    prompts, calibration = _given_prompts(plan) if plan.prompts is not None else ((), ())
    return Material(
        fit=split.fit[: plan.n_pairs],
        calibration=split.calibration[: plan.calibration_pairs],
        held_out=split.held_out[: plan.held_out_pairs],
        checking=checking,
        reporting=reporting,
        prompts=prompts,
        calibration_prompts=calibration,
        neutral_prompts=_beginnings(reporting, plan),
        judge=judge,
        origin=origin,
    )


def _given_neutral(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    path = None if plan.neutral is None else Path(plan.neutral)
    texts, _ = autofit.neutral_texts(path)
    _, checking, reporting = autofit.thirds(texts, plan.chosen_seed)
    return tuple(checking), tuple(reporting)


def _given_prompts(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _two_parts(plan, read_prompts(str(plan.prompts)))


def read_prompts(source: str) -> list[str]:
    """The prompts of a source of the user, each once."""
    return list(dict.fromkeys(load_prompts(source)))


def _two_parts(plan: Plan, prompts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A third to calibrate on, at most as many as asked for; the rest is the test."""
    if len(prompts) < 6:
        message = f"[prompts] expected at least 6 different prompts, got {len(prompts)}; add some"
        raise ValueError(message)
    order = np.random.default_rng(plan.chosen_seed).permutation(len(prompts))
    n = min(plan.calibration_prompts, len(prompts) // 3)
    chosen = [prompts[i] for i in order]
    return tuple(chosen[n : n + plan.test_prompts]), tuple(chosen[:n])


def _beginnings(texts: Sequence[str], plan: Plan) -> tuple[str, ...]:
    """The first halves of texts, by words: something to continue."""
    halves = (" ".join(text.split()[: max(1, len(text.split()) // 2)]) for text in texts)
    return tuple(dict.fromkeys(halves))[: plan.neutral_prompts]


def _require_apart(found: Material) -> None:
    """ValueError where one text serves two purposes of which one must not know the other."""
    parts = {
        "pairs to fit on": {text for pair in found.fit for text in pair.texts},
        "pairs to calibrate on": {text for pair in found.calibration for text in pair.texts},
        "held-out pairs": {text for pair in found.held_out for text in pair.texts},
    }
    _disjoint(parts)
    _disjoint({"test prompts": set(found.prompts), "calibration": set(found.calibration_prompts)})
    _disjoint({"neutral texts": set(found.reporting), "calibration": set(found.checking)})


def _disjoint(parts: Mapping[str, set[str]]) -> None:
    seen: dict[str, str] = {}
    for name, texts in parts.items():
        for text in sorted(texts):
            if text in seen:
                message = (
                    f"[pipeline] expected {seen[text]} and {name} to share no text, got "
                    f"{text[:60]!r} in both"
                )
                raise ValueError(message)
        seen |= dict.fromkeys(texts, name)


def facts_of(found: Material) -> dict[str, Any]:
    """Origin and sizes, for reports."""
    return {"origin": found.origin, "judge": found.judge, **found.sizes()}
