"""Fitting from a user's own pairs: splits, candidates, the choice of layer and strength, a verdict.

Pairs fall into three parts that share no text: one to fit on, one to choose layer and strength by
the teacher-forced contrast within a budget, one held out for what is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.evaluation.calibrate import Candidate
from cogit.evaluation.flip import LEVEL
from cogit.evaluation.teacher_forced import Budget, Choice, Score, TeacherForced
from cogit.evaluation.transport import transport as measured_transport
from cogit.intervention import Intervention
from cogit.operators import Operator, Unitary, fit_operator
from cogit.pairs import ContrastPair
from cogit.subspace import Subspace, fit_subspace
from cogit.text_files import open_text
from cogit.training.flips import FlipReport

if TYPE_CHECKING:
    from cogit.activations import Activations
    from cogit.backends.base import Backend
    from cogit.evaluation.statistics import Interval

OPERATORS = ("unitary", "additive", "ablation")
METHODS = ("plane", "procrustes", "direct", "born", "margin", "born-adam")
ANGLES = (30.0, 60.0, 90.0)
GAINS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
SHARES = (0.5, 0.25, 0.25)
_LEAST = (4, 2, 2)
_MAX_TEXTS = 100_000


@dataclass(frozen=True)
class Split:
    """Pairs to fit on, to calibrate on, and held out; no text is in two of them."""

    fit: tuple[ContrastPair, ...]
    calibration: tuple[ContrastPair, ...]
    held_out: tuple[ContrastPair, ...]

    def sizes(self) -> dict[str, int]:
        return {
            "fit": len(self.fit),
            "calibration": len(self.calibration),
            "held_out": len(self.held_out),
        }


@dataclass(frozen=True)
class Recipe:
    """What to fit at a block.

    operator: unitary, additive or ablation. method, angle (degrees), gain (half separations): of
    the unitary; angle of the plane alone. k: complex dimensions of the subspace.
    """

    operator: str = "unitary"
    method: str = "plane"
    angle: float = 60.0
    gain: float = 1.5
    k: int = 4
    restore: bool = False

    def __post_init__(self) -> None:
        if self.operator not in OPERATORS:
            message = f"[fit] expected an operator among {OPERATORS}, got {self.operator!r}"
            raise ValueError(message)
        if self.method not in METHODS:
            message = f"[fit] expected a method among {METHODS}, got {self.method!r}"
            raise ValueError(message)
        if not (np.isfinite(self.angle) and np.isfinite(self.gain)):
            message = f"[fit] expected finite angle and gain, got {self.angle} and {self.gain}"
            raise ValueError(message)

    def fit(self, subspace: Subspace) -> Operator:
        """The operator on a subspace; ValueError for born-adam, which trains on whole states."""
        if self.operator == "unitary" and self.method == "born-adam":
            message = (
                "[fit] expected a method that fits a subspace, got born-adam, which trains on "
                "recorded states; use cogit.training.born_operator"
            )
            raise ValueError(message)
        if self.operator != "unitary":
            return fit_operator(subspace, self.operator)
        if self.method == "margin":
            from cogit.training.objectives import MarginSettings, fit_margin

            found = fit_margin(subspace, MarginSettings(gain=self.gain)).operator
            return replace(found, restore=self.restore)
        return Unitary.fit(
            subspace,
            method=self.method,  # type: ignore[arg-type]
            angle=self.angle,
            gain=self.gain,
            restore=self.restore,
        )

    def fit_states(self, activations: Activations, layer: int) -> Operator:
        """The operator at a block of recorded states."""
        return self.fit(fit_subspace(activations, layer, k=self.k))

    def settings(self) -> dict[str, Any]:
        """Those that count, for tables and lineage."""
        if self.operator != "unitary":
            return {"operator": self.operator}
        angle = {"angle": self.angle} if self.method == "plane" else {}
        return {"operator": "unitary", "method": self.method, **angle, "gain": self.gain}


def split_pairs(
    pairs: Sequence[ContrastPair], seed: int, shares: tuple[float, float, float] = SHARES
) -> Split:
    """Three parts by seed. Pairs that share a text stay together; repeated pairs count once.

    Raises ValueError where a part would have too few pairs.
    """
    groups = _groups_by_text(list(dict.fromkeys(pairs)))
    order = np.random.default_rng(seed).permutation(len(groups))
    total = sum(map(len, groups))
    parts: tuple[list[ContrastPair], ...] = ([], [], [])
    for index in order:
        # Whichever part lacks most of its share: large groups cannot starve the others.
        lacking = [shares[i] * total - len(part) for i, part in enumerate(parts)]
        parts[int(np.argmax(lacking))].extend(groups[index])
    if any(len(part) < least for part, least in zip(parts, _LEAST, strict=True)):
        found = "/".join(str(len(part)) for part in parts)
        message = (
            f"[split] expected at least {'/'.join(map(str, _LEAST))} pairs without common texts to "
            f"fit, calibrate and hold out, got {found}; add pairs"
        )
        raise ValueError(message)
    return Split(*(tuple(part) for part in parts))


def _groups_by_text(pairs: list[ContrastPair]) -> list[list[ContrastPair]]:
    """Pairs joined wherever they share a text, in the order of their first pair."""
    parent = list(range(len(pairs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    seen: dict[str, int] = {}
    for index, pair in enumerate(pairs):
        for text in pair.texts:
            first = seen.setdefault(text, index)
            one, other = sorted((root(first), root(index)))
            parent[other] = one
    groups: dict[int, list[ContrastPair]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(root(index), []).append(pair)
    return list(groups.values())


def neutral_texts(path: Path | None) -> tuple[list[str], str]:
    """Texts that steering should leave alone, one a line, and where they come from.

    None takes the packaged plain English sentences. Raises ValueError for an empty file.
    """
    if path is None:
        text = files("cogit").joinpath("data", "neutral.txt").read_text(encoding="utf-8")
        return _lines(text), "packaged plain English sentences, as none were given"
    with open_text(path, "neutral") as stream:
        found = _lines(stream.read())
    if not 3 <= len(found) <= _MAX_TEXTS:
        message = f"[neutral] expected 3 to {_MAX_TEXTS} texts in {path}, got {len(found)}"
        raise ValueError(message)
    return found, str(path)


def _lines(text: str) -> list[str]:
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def thirds(texts: Sequence[str], seed: int) -> tuple[list[str], list[str], list[str]]:
    """Neutral texts to train on, for the choice, and for the report; at least 3 in all."""
    if len(texts) < 3:
        message = f"[neutral] expected at least 3 neutral texts, got {len(texts)}; add some"
        raise ValueError(message)
    order = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
    return order[2::3], order[1::3], order[0::3]


def candidates(
    subspaces: Iterable[Subspace],
    recipe: Recipe,
    *,
    angles: Sequence[float] = ANGLES,
    gains: Sequence[float] = GAINS,
    strengths: Sequence[float] = STRENGTHS,
) -> list[Candidate]:
    """Blocks times what decides the strength of a recipe: angles and gains, gains, or strengths.

    ValueError for an ablation, which has no direction to steer towards.
    """
    if recipe.operator == "ablation":
        message = (
            "[fit] expected an operator with two directions for the automatic choice, got "
            "ablation; choose the layer yourself"
        )
        raise ValueError(message)
    found: list[Candidate] = []
    for subspace in subspaces:
        if recipe.operator == "additive":
            operator = recipe.fit(subspace)
            found += [_candidate(subspace, recipe, operator, strength) for strength in strengths]
            continue
        turned = angles if recipe.method == "plane" else (recipe.angle,)
        for angle in turned:
            for gain in gains:
                one = replace(recipe, angle=angle, gain=gain)
                found.append(_candidate(subspace, one, one.fit(subspace), 1.0))
    return found


def _candidate(
    subspace: Subspace, recipe: Recipe, operator: Operator, strength: float
) -> Candidate:
    settings = {"layer": subspace.layer, **recipe.settings(), "strength": strength}
    lineage = {"fit": {**settings, "k": recipe.k}, "n_pairs": len(subspace.positive)}
    intervention = Intervention(
        {subspace.layer: operator}, subspace.identity, strength, lineage=lineage
    )
    return Candidate(settings, intervention)


def choose(
    scorer: TeacherForced,
    activations: Activations,
    recipe: Recipe,
    budget: Budget | None = None,
    *,
    show: bool = True,
    **grid: Sequence[float],
) -> Choice:
    """Layer and strength of a recipe by the teacher-forced contrast within a budget."""
    subspaces = [fit_subspace(activations, layer, k=recipe.k) for layer in activations.layers]
    found = candidates(subspaces, recipe, **grid)
    return scorer.choose(found, budget or Budget(), show=show)


def transport(
    backend: Backend,
    intervention: Intervention,
    subspaces: Iterable[Subspace],
    texts: Iterable[str],
    reverse: Intervention | None = None,
) -> dict[int, Interval]:
    """The transport of every steered block (see `cogit.evaluation.transport`) on open prompts.

    subspaces: of the training split, for direction and half separation. texts: run unsteered; the
    first token is left out, as steering does, and a prompt of one token with it. reverse: another
    intervention for the way back. ValueError where no prompt is left.
    """
    sequences = [backend.tokenize(text) for text in texts]
    found: dict[int, Interval] = {}
    for subspace in subspaces:
        layer = subspace.layer
        rows = [one[0, 1:] for one in backend.residuals(sequences, [layer])]
        states = [one for one in rows if len(one)]
        if not states:
            message = "[transport] expected prompts of at least two tokens, got none"
            raise ValueError(message)
        found[layer] = measured_transport(
            intervention.operators[layer],
            states,
            subspace.direction,
            subspace.half_separation,
            strength=intervention.strength,
            reverse=None if reverse is None else reverse.operators[layer],
        )
    return found


def open_prompts(backend: Backend, pairs: Iterable[ContrastPair]) -> list[str]:
    """What the two texts of a pair begin with, where that is two tokens or more after the first."""
    found: list[str] = []
    for pair in pairs:
        both = [backend.tokenize(text) for text in pair.texts]
        common = 0
        while common < min(map(len, both)) and both[0][common] == both[1][common]:
            common += 1
        text = backend.detokenize(both[0][:common]) if common > 2 else ""
        if text.strip():
            found.append(text)
    return list(dict.fromkeys(found))


def verdict(
    flips: Iterable[FlipReport],
    score: Score | None,
    shuffled_contrast: Sequence[float],
    budget: Budget,
) -> tuple[str, dict[str, bool]]:
    """``effect``, ``effect beyond the budget`` or ``no effect``, and the criteria.

    flips: on held-out states, one a steered block. score: on held-out pairs, where there is a
    model; the shuffled fits are then compared by contrast, which no clamp or half turn can fake.
    Without a model the unsteered held-out pairs must be told apart as well, since an operator moves
    states along its own direction whether or not the classes differ. Without anything held out, or
    with too few pairs for that test, nothing is judged.
    """
    reports = list(flips)
    criteria: dict[str, bool] = {}
    if reports:
        criteria["flips more than the identity"] = all(
            one.fitted.interval[0] > one.identity.interval[1] for one in reports
        )
        criteria["keeps the target's own class"] = all(
            one.kept.interval[0] > 0.5 for one in reports
        )
    if score is not None:
        low = score.interval.low if np.isfinite(score.per_pair).all() else -np.inf
        criteria["contrast above zero on held-out pairs"] = low > 0
        criteria["contrast above every shuffled fit's"] = low > max(shuffled_contrast, default=0.0)
    elif reports:
        if not all(one.apart.can_hold for one in reports):
            few = min(one.apart.n_pairs for one in reports)
            return f"not judged: {few} held-out pairs are too few to tell classes apart", criteria
        criteria[f"unsteered held-out pairs told apart (p < {LEVEL:g})"] = all(
            one.apart.holds for one in reports
        )
        # A fit that turns every state round flips all of them, and keeps none.
        criteria["flips and keeps more than shuffled fits"] = all(
            min(one.fitted.interval[0], one.kept.interval[0])
            > min(one.shuffled.rate, one.shuffled_kept.rate)
            for one in reports
        )
    if not criteria:
        return "not judged: nothing was held out", criteria
    found = "effect" if all(criteria.values()) else "no effect"
    if score is not None:
        criteria["within the budget on held-out texts"] = score.within(budget)
        if found == "effect" and not score.within(budget):
            found = "effect beyond the budget"
    return found, criteria
