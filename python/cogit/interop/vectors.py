"""What of an intervention other tools can hold: one vector a block, added to every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from cogit.errors import InterventionError
from cogit.intervention import Intervention

if TYPE_CHECKING:
    from numpy.typing import NDArray

StrengthMode = Literal["folded", "kept"]


def additive_vectors(
    intervention: Intervention,
    target: str,
    *,
    strength: StrengthMode = "folded",
    every_token: bool = False,
) -> dict[int, NDArray[np.float32]]:
    """The vector that the intervention adds at each block, (d_model,) float32, by block.

    target: the format, for messages. strength: ``folded`` multiplies the vectors by the
    intervention's strength; ``kept`` leaves them at strength 1, for a tool that scales them itself.
    every_token: accept that the other tool also steers the first token, which this intervention
    leaves alone.

    Raises InterventionError, naming the part, for what a vector per block cannot say: operators of
    rank above 0 or with a norm restore, gates, positions, and an intervention that changes nothing.
    """
    if strength not in get_args(StrengthMode):
        message = f"[export] expected strength folded or kept, got {strength!r}"
        raise ValueError(message)
    _require_ungated(intervention, target)
    _require_every_token(intervention, target, every_token=every_token)
    if intervention.changes_nothing():
        described = intervention.describe()
        message = f"[export] expected an intervention that changes something, got {described}"
        raise InterventionError(message)
    vectors = _constants(intervention, intervention.strength, target)
    if strength == "folded":
        return vectors
    kept = _constants(intervention, 1.0, target)
    for layer, vector in kept.items():
        scaled = np.float32(intervention.strength) * vector
        # Two roundings to float32 on either side.
        if not np.allclose(scaled, vectors[layer], rtol=4 * np.finfo(np.float32).eps, atol=1e-37):
            message = (
                f"[export] expected a vector that grows with the strength, got the operator "
                f"{intervention.operators[layer].kind} at block {layer}; export it folded"
            )
            raise InterventionError(message)
    return kept


def _constants(
    intervention: Intervention, strength: float, target: str
) -> dict[int, NDArray[np.float32]]:
    found = {}
    for layer, fold in intervention.at_strength(strength).folds().items():
        kind = intervention.operators[layer].kind
        if fold.rank:
            message = (
                f"[export] expected operators that add one vector, as {target} can hold, got "
                f"{kind} of rank {fold.rank} at block {layer}, which depends on the token; keep it "
                f"as an intervention file"
            )
            raise InterventionError(message)
        if fold.restore:
            message = (
                f"[export] expected operators without a norm restore, as {target} can hold, got "
                f"{kind} with one at block {layer}; keep it as an intervention file"
            )
            raise InterventionError(message)
        found[layer] = fold.c
    return found


def _require_ungated(intervention: Intervention, target: str) -> None:
    if intervention.gates:
        message = (
            f"[export] expected no gate, as {target} holds none, got one on "
            f"{', '.join(f'block {block}' for block in intervention.gates)}; keep it as an "
            f"intervention file"
        )
        raise InterventionError(message)


def _require_every_token(intervention: Intervention, target: str, *, every_token: bool) -> None:
    positions = intervention.positions
    whole = positions.kind == "all" or (
        positions.kind == "range" and positions.start == 0 and positions.stop is None
    )
    if not whole:
        message = (
            f"[export] expected positions all, as {target} acts on every token, got {positions}; "
            f"keep it as an intervention file"
        )
        raise InterventionError(message)
    if not positions.first_token and not every_token:
        message = (
            f"[export] expected the first token to be steered, as {target} acts on every token, "
            f"got an intervention that leaves it alone; accept the difference with every_token "
            f"(--every-token)"
        )
        raise InterventionError(message)
