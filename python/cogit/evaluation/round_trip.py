"""The round-trip report of earlier systems: fidelity after U₊ and then U₋, and their conjugacy.

It is kept for comparison and says nothing on its own: the identity, and any U with its adjoint,
score 1. What an operator leaves behind in the residual stream is the undo ratio's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit import reference
from cogit.operators import Lifted, Operator

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Complex = NDArray[np.complex128]

MOST_STATES = 20
UNINFORMATIVE = "uninformative: the identity and any U with its adjoint score 1"


@dataclass(frozen=True)
class RoundTrip:
    """Fidelities |<ψ|U₋U₊ψ>|² of at most 20 states.

    space: ``lifted`` for operators with complex states, else ``residual``: unit rows and the folded
    maps. identity, shuffled: mean fidelity of the state with itself, and with another state.
    """

    mean: float
    std: float
    min: float
    max: float
    fidelities: tuple[float, ...]
    space: str
    identity: float
    shuffled: float
    note: str = UNINFORMATIVE


@dataclass(frozen=True)
class UnitaryFacts:
    """What is to know of an operator's U.

    unitarity_deviation: max |UᴴU - I|. conjugate_test: frobenius_norm |U₋ - U₊ᴴ|_F and relative,
    that over sqrt(q): 0 for an adjoint, 1.41 for two random unitaries. fidelity: mean Born fidelity
    |<ψ⁺|U₊ψ⁻>|² of matched pairs, None without pairs. reversibility: the round trip's mean.
    """

    q: int
    unitarity_deviation: float
    conjugate_test: dict[str, float]
    reversibility: float
    fidelity: float | None = None
    note: str = field(default="no measure of steering; see undo and transport")


def round_trip(
    operator: Operator,
    opposite: Operator,
    rows: NDArray[np.floating[Any]],
    strengths: tuple[float, float],
) -> RoundTrip:
    """U₊ of the operator, then U₋ of the opposite. rows: (n, d_model), of which 20 are taken.

    strengths: of the operator and of the opposite, such as (1, -1) for one with its adjoint.
    """
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_STATES).astype(int))]
    lifted = isinstance(operator, Lifted) and isinstance(opposite, Lifted)
    if isinstance(operator, Lifted) and isinstance(opposite, Lifted):
        start = operator.states(chosen)
        back = start @ operator.unitary(strengths[0]).T @ opposite.unitary(strengths[1]).T
    else:
        moved = reference.affine_apply(operator.fold(strengths[0]), chosen)
        start = _unit(chosen.astype(np.complex128))
        back = _unit(reference.affine_apply(opposite.fold(strengths[1]), moved).astype(complex))
    fidelities = _fidelity(start, back)
    return RoundTrip(
        mean=float(fidelities.mean()),
        std=float(fidelities.std()),
        min=float(fidelities.min()),
        max=float(fidelities.max()),
        fidelities=tuple(map(float, fidelities)),
        space="lifted" if lifted else "residual",
        identity=float(_fidelity(start, start).mean()),
        shuffled=float(_fidelity(np.roll(start, 1, axis=0), back).mean()),
    )


def unitary_facts(
    operator: Operator,
    opposite: Operator,
    strengths: tuple[float, float],
    reversibility: float,
    pairs: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]] | None = None,
) -> UnitaryFacts | None:
    """Facts of U, or None for an operator without one. pairs: matched positive and negative rows.

    ValueError where the two unitaries are of different sizes.
    """
    if not (isinstance(operator, Lifted) and isinstance(opposite, Lifted)):
        return None
    plus, minus = operator.unitary(strengths[0]), opposite.unitary(strengths[1])
    if plus.shape != minus.shape:
        message = (
            f"[round-trip] expected two unitaries of one size, got {plus.shape} and {minus.shape}"
        )
        raise ValueError(message)
    q = len(plus)
    distance = float(np.linalg.norm(minus - plus.conj().T))
    fidelity = None
    if pairs is not None:
        positive, negative = (operator.states(x) for x in pairs)
        fidelity = float(_fidelity(positive, negative @ plus.T).mean())
    return UnitaryFacts(
        q=q,
        unitarity_deviation=float(np.abs(plus.conj().T @ plus - np.eye(q)).max()),
        conjugate_test={"frobenius_norm": distance, "relative": distance / float(np.sqrt(q))},
        reversibility=reversibility,
        fidelity=fidelity,
    )


def _unit(rows: Complex) -> Complex:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms == 0.0, 1.0, norms))


def _fidelity(first: Complex, second: Complex) -> NDArray[np.float64]:
    return np.asarray(np.abs((first.conj() * second).sum(axis=1)) ** 2)
