"""What is evaluated: a learned intervention, and the fits that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.errors import InterventionError
from cogit.intervention import Intervention
from cogit.operators import Additive, Lifted, Operator, Unitary
from cogit.separation import separation_statistics
from cogit.subspace import fit_subspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.activations import Activations
    from cogit.autofit import Recipe

Pair = tuple[Intervention, Intervention | None]


@dataclass(frozen=True)
class Subject:
    """A learned intervention with what was fitted beside it.

    learned: towards +1 at its own strength. reverse: towards -1 at its own strength; by default the
    learned one at the negative strength. additive: the mean difference of the same states.
    shuffled: the same fit to shuffled classes. source: another method to show beside it, with
    its own way back or None, at its own strength. facts: what was known before, such as
    separation_gap. frames: (mean, basis) of the contrastive subspace at a block, for random
    operators within it. layers: rows of a sweep over blocks. notes: why something is missing, by
    the role that it would have had.

    Raises InterventionError for a learned intervention that changes nothing, and ValueError where
    the parts are of other models or blocks.
    """

    learned: Intervention
    reverse: Intervention | None = None
    additive: Intervention | None = None
    shuffled: tuple[Pair, ...] = ()
    source: Pair | None = None
    facts: Mapping[str, float | None] = field(default_factory=dict)
    frames: Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(
        default_factory=dict
    )
    layers: tuple[Mapping[str, Any], ...] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, one in (("learned", self.learned), ("reverse", self.reverse)):
            if one is not None and one.changes_nothing():
                message = (
                    f"[subject] expected a {name} intervention that changes something, got "
                    f"{one.describe()}, which changes nothing; raise its strength"
                )
                raise InterventionError(message)
        for one in self.source or ():
            if one is not None:
                one.identity.require_same_shape(self.learned.identity)
        others = [self.reverse, self.additive, *(one for pair in self.shuffled for one in pair)]
        for other in others:
            if other is None:
                continue
            other.identity.require_same_shape(self.learned.identity)
            if other.layers != self.learned.layers:
                message = (
                    f"[subject] expected interventions on the blocks {self.learned.layers} of the "
                    f"learned one, got {other.layers}"
                )
                raise ValueError(message)

    @classmethod
    def from_activations(
        cls,
        learned: Intervention,
        activations: Activations,
        recipe: Recipe | None = None,
        *,
        reverse: Intervention | None = None,
        n_shuffled: int = 4,
        seed: int = 0,
        layers: Sequence[Mapping[str, Any]] | None = None,
    ) -> Subject:
        """The learned intervention with every fit that the recorded states allow.

        activations: of contrast pairs, the learned one's blocks among them. recipe: how it was
        fitted; without one there are no shuffled fits. Their strength is the learned one's own.
        """
        subspaces = {
            layer: fit_subspace(activations, layer, k=4 if recipe is None else recipe.k)
            for layer in learned.layers
        }
        additive = {layer: Additive.fit(one) for layer, one in subspaces.items()}
        notes: dict[str, str] = {}
        shuffled: tuple[Pair, ...] = ()
        if recipe is None:
            notes["shuffled"] = "how the operator was fitted is not known"
        elif recipe.method == "born-adam" and recipe.operator == "unitary":
            notes["shuffled"] = "trained operators are not trained again"
        else:
            shuffled = _shuffled(learned, activations, recipe, n_shuffled, seed)
        return cls(
            learned=learned,
            reverse=reverse,
            additive=_like(learned, additive),
            shuffled=shuffled,
            facts=known_facts(learned, reverse, activations),
            frames={layer: (one.mean, one.basis) for layer, one in subspaces.items()},
            layers=None if layers is None else tuple(layers),
            notes=notes,
        )


def known_facts(
    learned: Intervention, reverse: Intervention | None, activations: Activations
) -> dict[str, float | None]:
    """Separation of the classes and fidelity of the operator on the recorded states.

    separation_gap: of the block where it is largest, see ``cogit.separation``; 0..1.
    fidelity_to_positive, fidelity_to_negative: mean |⟨target|U source⟩|² of matched pairs, for
    operators that are a unitary on states; None for others.
    """
    layers = learned.layers
    gaps = {
        layer: float(separation_statistics(*activations.at(layer)).separation_gap)
        for layer in layers
    }
    best = max(gaps, key=lambda layer: gaps[layer])
    facts: dict[str, float | None] = {"separation_gap": gaps[best], "separation_layer": best}
    positive, negative = activations.at(best)
    back = learned.at_strength(-learned.strength) if reverse is None else reverse
    for name, one, source, target in (
        ("fidelity_to_positive", learned, negative, positive),
        ("fidelity_to_negative", back, positive, negative),
    ):
        operator = one.operators[best]
        facts[name] = None
        if isinstance(operator, Lifted):
            turned = operator.states(source) @ operator.unitary(one.strength).T
            overlaps = (operator.states(target).conj() * turned).sum(axis=1)
            facts[name] = float((np.abs(overlaps) ** 2).mean())
    return facts


def _shuffled(
    learned: Intervention, activations: Activations, recipe: Recipe, draws: int, seed: int
) -> tuple[Pair, ...]:
    from cogit.training.flips import shuffle_classes

    found: list[Pair] = []
    for draw in range(draws):
        copy = shuffle_classes(activations, seed + draw)
        made = {
            layer: _as_long(recipe.fit_states(copy, layer), learned.operators[layer])
            for layer in learned.layers
        }
        found.append((_like(learned, made), None))
    return tuple(found)


def _as_long(operator: Operator, learned: Operator) -> Operator:
    """A refit with the learned one's reference amplitude.

    Shuffled classes lie close together, so that a gain in their separation would move nothing.
    """
    if isinstance(operator, Unitary) and isinstance(learned, Unitary):
        return replace(operator, amplitude=learned.amplitude)
    return operator


def _like(learned: Intervention, operators: Mapping[int, Any]) -> Intervention:
    """Other operators at the same blocks, positions and gates, at strength 1 or the learned one."""
    return Intervention(
        dict(operators),
        learned.identity,
        abs(learned.strength),
        learned.positions,
        gates=learned.gates,
    )


def frame_of(
    subject: Subject, layer: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """(mean, basis) of the learned operator's own subspace, or of the contrast's; None if neither.

    basis: (d_model, 2k) with an even number of columns, three at least.
    """
    operator: Any = subject.learned.operators[layer]
    own = (getattr(operator, "mean", None), getattr(operator, "basis", None))
    for mean, basis in (own, subject.frames.get(layer, (None, None))):
        if mean is not None and basis is not None and basis.shape[1] >= 3:
            width = basis.shape[1] // 2 * 2
            return mean, basis[:, :width]
    return None


__all__ = ["Pair", "Subject", "frame_of", "known_facts"]
