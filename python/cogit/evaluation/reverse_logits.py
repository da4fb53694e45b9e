"""What undoing leaves on the logits: KL from the unsteered model, of the edit and of its rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cogit.evaluation.measures import token_divergence
from cogit.evaluation.statistics import Interval, bootstrap_mean
from cogit.evaluation.undo import Draws
from cogit.intervention import Intervention
from cogit.operators import Composed, Operator
from cogit.progress import track

if TYPE_CHECKING:
    from cogit.backends.base import Backend

# Divergences below this, in nats a token, are the rounding of float32 logits.
KL_FLOOR = 1e-5
_CHUNK = 8


@dataclass(frozen=True)
class LogitReversal:
    """KL(unsteered ‖ …) in nats a token, and the part of it that is left after undoing.

    Undoing is placed in the model, at the same blocks and tokens. None with a note where an undo
    ratio cannot be had: a restore makes the two maps in turn no affine, or the edit is too small.
    identity: the same operators at strength 0, which must read 0.
    """

    steered: Interval
    identity: Interval
    opposite: Interval | None
    own_inverse: Interval | None
    opposite_ratio: float | None
    own_inverse_ratio: float | None
    random_ratio: Draws | None
    notes: dict[str, str] = field(default_factory=dict)


def logit_reversal(
    backend: Backend,
    intervention: Intervention,
    other: Intervention | None,
    ids: Sequence[Sequence[int]],
    *,
    draws: int,
    seed: int,
    show: bool,
) -> LogitReversal:
    variants = {"steered": intervention, "identity": intervention.at_strength(0.0)}
    notes: dict[str, str] = {}
    for name in ("opposite", "own_inverse"):
        try:
            variants[name] = _undone(intervention, other if name == "opposite" else None, name)
        except ValueError as error:
            notes[name] = str(error)
    if "opposite" in variants:
        for number in range(draws):
            control = _randomised(intervention, seed + number)
            variants[f"random {number}"] = control
            variants[f"random {number} undone"] = _undone(control, None, "opposite")
    found = _divergences(backend, variants, ids, show=show)
    base = found["steered"].mean
    if base <= KL_FLOOR:
        notes["steered"] = f"below the floor of {KL_FLOOR:g} nats: no ratio is given"
    ratios = {
        name: found[name].mean / base
        for name in ("opposite", "own_inverse")
        if name in found and base > KL_FLOOR
    }
    if "opposite" in variants and all(found[f"random {n}"].mean <= KL_FLOOR for n in range(draws)):
        notes["random"] = f"every draw is below the floor of {KL_FLOOR:g} nats: no ratio is given"
    chance = [
        found[f"random {number} undone"].mean / found[f"random {number}"].mean
        for number in range(draws)
        if f"random {number}" in found and found[f"random {number}"].mean > KL_FLOOR
    ]
    return LogitReversal(
        steered=found["steered"],
        identity=found["identity"],
        opposite=found.get("opposite"),
        own_inverse=found.get("own_inverse"),
        opposite_ratio=ratios.get("opposite"),
        own_inverse_ratio=ratios.get("own_inverse"),
        random_ratio=Draws.of(chance, len(chance)) if chance else None,
        notes=notes,
    )


def _undone(intervention: Intervention, other: Intervention | None, how: str) -> Intervention:
    """The edit and then its undoing, as one operator at each block. ValueError as @ raises it."""
    strength = intervention.strength
    joined: dict[int, Operator] = {}
    for layer, operator in intervention.operators.items():
        if how == "own_inverse":
            parts = (operator, operator.inverse_operator(strength))
            strengths = (strength, 1.0)
        elif other is not None:
            parts = (operator, other.operators[layer])
            strengths = (strength, other.strength)
        else:
            parts, strengths = (operator, operator), (strength, -strength)
        joined[layer] = Composed(parts, strengths)
    return replace(intervention, operators=joined, strength=1.0)


def _randomised(intervention: Intervention, seed: int) -> Intervention:
    operators = {
        layer: operator.randomised(seed, "subspace")
        for layer, operator in intervention.operators.items()
    }
    return replace(intervention, operators=operators)


def _divergences(
    backend: Backend,
    variants: dict[str, Intervention],
    ids: Sequence[Sequence[int]],
    *,
    show: bool,
) -> dict[str, Interval]:
    """KL(unsteered ‖ variant) a token, with an interval over texts; a few texts at a time."""
    values: dict[str, list[float]] = {name: [] for name in variants}
    for start in track(range(0, len(ids), _CHUNK), "comparing logits", show=show):
        chunk = ids[start : start + _CHUNK]
        plain = backend.logits(chunk)
        for name, variant in variants.items():
            with backend.steer(variant, verify=False, control=True):
                steered = backend.logits(chunk)
            values[name] += [
                token_divergence([a], [b]) for a, b in zip(plain, steered, strict=True)
            ]
    return {name: bootstrap_mean(found) for name, found in values.items()}
