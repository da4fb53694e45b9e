"""Does an intervention come undone? Per token and on the logits, beside its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.affine import Affine
from cogit.evaluation.reverse_logits import LogitReversal, logit_reversal
from cogit.evaluation.round_trip import RoundTrip, UnitaryFacts, round_trip, unitary_facts
from cogit.evaluation.statistics import Interval
from cogit.evaluation.transport import transport
from cogit.evaluation.undo import Draws, Undo, by_affine, by_inverse, undo_ratio
from cogit.intervention import Intervention
from cogit.layers import describe_blocks
from cogit.operators import Operator
from cogit.progress import track

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.activations import Activations
    from cogit.backends.base import Backend
    from cogit.gates import Gate

    Rows = NDArray[np.floating[Any]]

_CHUNK = 8


@dataclass(frozen=True)
class GateOpening:
    """For how many of the steered tokens a block's gate opened, by the unsteered states.

    n_partly: of the open ones, those with a factor below 1.
    """

    gate: str
    n_tokens: int
    n_open: int
    n_partly: int


@dataclass(frozen=True)
class _States:
    """Of one block. rows: (token, d_model) of each text. factors: (token,) of each, or no gate."""

    rows: list[Rows]
    factors: list[NDArray[np.float64]] | None

    @property
    def edited(self) -> Rows:
        """The rows of all texts that get any of the edit."""
        rows = np.concatenate(self.rows)
        return rows if self.factors is None else rows[np.concatenate(self.factors) > 0]

    def opening(self, layer: int, gate: Gate | None) -> GateOpening | None:
        if self.factors is None or gate is None:
            return None
        factors = np.concatenate(self.factors)
        n_open = int((factors > 0).sum())
        if n_open == 0:
            message = (
                f"[reverse] expected tokens for which the gate at block {layer} opens, got none of "
                f"{factors.size} ({gate.describe()}); give texts that it is meant for"
            )
            raise ValueError(message)
        partly = int(((factors > 0) & (factors < 1)).sum())
        return GateOpening(gate.describe(), factors.size, n_open, partly)


@dataclass(frozen=True)
class LayerReversal:
    """One block. Each entry is the undo ratio of an edit taken back in one way.

    own_inverse: by the operator's exact inverse, or None and why. opposite: by the opposite
    strength (the adjoint of a unitary), or by the other intervention where one is given. identity:
    an edit of nothing, below every floor. shuffled: compared with another token's state. random:
    operators of the same family, taken back by their opposite strength, in the same subspace and
    in random ones. transport: None without contrast pairs. gate: None where the block has none; a
    token for which it is closed has no edit, to undo or to be carried by.
    """

    layer: int
    operator: str
    opposite: Undo
    own_inverse: Undo | None
    own_inverse_refused: str
    condition: float | None
    identity: Undo
    shuffled: Undo
    random: dict[str, Draws]
    round_trip: RoundTrip
    unitary: UnitaryFacts | None
    transport: Interval | None
    transport_random: Draws | None
    gate: GateOpening | None = None


@dataclass(frozen=True)
class ReverseReport:
    intervention: str
    content_hash: str
    n_texts: int
    layers: tuple[LayerReversal, ...]
    logits: LogitReversal


def reverse(
    backend: Backend,
    intervention: Intervention,
    texts: Sequence[str],
    *,
    opposite: Intervention | None = None,
    activations: Activations | None = None,
    draws: int = 8,
    seed: int = 0,
    show_progress: bool = False,
) -> ReverseReport:
    """Measure how far an intervention can be undone on the states of some texts.

    States are those of the unsteered model at each steered block, at the tokens that the
    intervention steers. opposite: a second intervention that is meant to undo the first, on the
    same blocks; its own opposite strength by default. activations: contrast pairs' states, for the
    transport and the pairs' fidelity. draws: random operators of each kind of control.

    Gates are read off the unsteered states too, a text being all prompt; their factors multiply the
    edit and, in one, its undoing: an opposite acts under the gates of the first.

    Raises ValueError for strength 0, no draws, no texts, texts without a steered token, a gate that
    opens for none, or an opposite on other blocks or with gates of its own; InterventionError for a
    model of another shape.
    """
    _check(intervention, opposite, texts, draws)
    intervention.identity.require_same_shape(backend.identity)
    ids = backend.require_fit(texts, 0)
    states = _states(backend, intervention, ids, show_progress=show_progress)
    layers = tuple(
        _layer(layer, intervention, opposite, states[layer], activations, draws, seed)
        for layer in intervention.layers
    )
    logits = logit_reversal(
        backend, intervention, opposite, ids, draws=draws, seed=seed, show=show_progress
    )
    return ReverseReport(
        intervention.describe(), intervention.content_hash, len(texts), layers, logits
    )


def _check(
    intervention: Intervention, opposite: Intervention | None, texts: Sequence[str], draws: int
) -> None:
    if intervention.changes_nothing():
        message = f"[reverse] expected an edit to undo, got {intervention.describe()}"
        raise ValueError(message)
    if opposite is not None and opposite.gates:
        message = (
            f"[reverse] expected an opposite without gates, got one gated at "
            f"{describe_blocks(opposite.gates)}: it acts under the gates of the first; take its "
            f"own off (ungated())"
        )
        raise ValueError(message)
    if not texts or draws < 1:
        message = f"[reverse] expected texts and draws, got {len(texts)} and {draws}"
        raise ValueError(message)
    if opposite is not None and opposite.layers != intervention.layers:
        message = (
            f"[reverse] expected an opposite on blocks {intervention.layers}, got {opposite.layers}"
        )
        raise ValueError(message)


def _states(
    backend: Backend,
    intervention: Intervention,
    ids: Sequence[Sequence[int]],
    *,
    show_progress: bool,
) -> dict[int, _States]:
    """Unsteered states of the steered tokens, and what the gates make of them, by block."""
    found = {
        layer: _States([], [] if layer in intervention.gates else None)
        for layer in intervention.layers
    }
    starts = range(0, len(ids), _CHUNK)
    for start in track(starts, "reading states", show=show_progress):
        chunk = ids[start : start + _CHUNK]
        for one, rows in zip(chunk, backend.residuals(chunk, intervention.layers), strict=True):
            begin, end = intervention.positions.window(len(one))
            kept = rows[:, begin:end]
            if kept.shape[1]:
                for layer, values, whole in zip(intervention.layers, kept, rows, strict=True):
                    state = found[layer]
                    state.rows.append(values)
                    if state.factors is not None:
                        factors = intervention.gates[layer].factors(whole, len(one))
                        state.factors.append(factors[begin:end])
    if not found[intervention.layers[0]].rows:
        message = (
            f"[reverse] expected texts with a steered token, got none at positions "
            f"{intervention.positions}; give longer texts"
        )
        raise ValueError(message)
    return found


def _layer(
    layer: int,
    intervention: Intervention,
    other: Intervention | None,
    found: _States,
    activations: Activations | None,
    draws: int,
    seed: int,
) -> LayerReversal:
    operator, strength = intervention.operators[layer], intervention.strength
    forward = operator.fold(strength)
    against = operator if other is None else other.operators[layer]
    strengths = (strength, -strength if other is None else other.strength)
    opening = found.opening(layer, intervention.gates.get(layer))
    states, factors = found.rows, found.factors
    back = by_affine(against.fold(strengths[1]))
    own, refused, condition = _own_inverse(operator, strength, found)
    trip = round_trip(operator, against, found.edited, strengths)
    pairs = None
    if activations is not None and layer in activations.layers:
        pairs = activations.at(layer)
    still = Affine.zero(operator.d_model)
    moved, moved_random = _transport(operator, found, pairs, strength, draws, seed)
    return LayerReversal(
        layer=layer,
        operator=operator.kind,
        opposite=undo_ratio(forward, back, states, factors=factors),
        own_inverse=own,
        own_inverse_refused=refused,
        condition=condition,
        identity=undo_ratio(still, by_affine(still), states, factors=factors),
        shuffled=undo_ratio(forward, back, states, shuffle=seed, factors=factors),
        random=_random_undo(operator, strength, found, draws, seed),
        round_trip=trip,
        unitary=unitary_facts(operator, against, strengths, trip.mean, pairs),
        transport=moved,
        transport_random=moved_random,
        gate=opening,
    )


def _own_inverse(
    operator: Operator, strength: float, states: _States
) -> tuple[Undo | None, str, float | None]:
    try:
        inverse = operator.inverse(strength)
    except ValueError as error:
        return None, str(error), None
    fold = operator.fold(strength)
    found = undo_ratio(fold, by_inverse(inverse), states.rows, factors=states.factors)
    return found, "", inverse.condition


def _random_undo(
    operator: Operator, strength: float, states: _States, draws: int, seed: int
) -> dict[str, Draws]:
    found: dict[str, Draws] = {}
    for space in ("subspace", "space"):
        undone: list[Undo] = []
        for number in range(draws):
            control = operator.randomised(seed + number, space)
            back = by_affine(control.fold(-strength))
            fold = control.fold(strength)
            undone.append(undo_ratio(fold, back, states.rows, factors=states.factors))
        ratios = [one.ratio.mean for one in undone if one.ratio is not None]
        found[space] = Draws.of(ratios, draws, float(np.mean([one.edit for one in undone])))
    return found


def _transport(
    operator: Operator,
    states: _States,
    pairs: tuple[Rows, Rows] | None,
    strength: float,
    draws: int,
    seed: int,
) -> tuple[Interval | None, Draws | None]:
    """The operator's transport along the pairs' mean difference, and that of random ones."""
    if pairs is None:
        return None, None
    difference = np.subtract(*(x.astype(np.float64).mean(axis=0) for x in pairs))
    length = float(np.linalg.norm(difference))
    if length == 0.0:
        message = "[reverse] expected pairs with different means, got a mean difference of zero"
        raise ValueError(message)
    u, half = difference / length, length / 2
    controls = [operator.randomised(seed + number, "subspace") for number in range(draws)]

    def carried(one: Operator) -> Interval:
        return transport(one, states.rows, u, half, strength=strength, factors=states.factors)

    return carried(operator), Draws.of([carried(one).mean for one in controls], draws)
