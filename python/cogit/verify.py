"""Proof of application: what landed in the residual stream against what should have.

A probe sequence runs through the steered model. At every block the state is read on both sides of
the hook; the change must equal the affine's, computed in float64, at the positions asked for, and
be exactly zero at every other position and block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cogit import reference
from cogit.errors import InterventionError
from cogit.layers import describe_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.base import Backend, Probe
    from cogit.intervention import Intervention

_LENGTH = 12
_PROMPT = 8
_SEED = 20240501
# In float32 a landed change may be off by the rounding of the sum, of the products over d_model and
# of the norm restore; in bf16 and f16 by one rounding of the state that is written back.
_ROUNDINGS = 64.0
_FLOAT32 = float(np.finfo(np.float32).eps)
# An error above this share of the change means that the change itself was rounded away.
_SHARE = 0.5


@dataclass(frozen=True)
class Verification:
    """What the probe found.

    relative_change: per steered block, mean |change| / |state| over the positions asked for.
    worst_error: the largest deviation from the analytic change, relative to the longer of the
    states before and after it.
    logit_change: the largest absolute change of a logit.
    """

    relative_change: Mapping[int, float]
    worst_error: float
    logit_change: float
    n_positions: int

    def describe(self) -> str:
        """One line for people."""
        if not self.relative_change:
            return "verified: nothing is steered (control)"
        low, high = min(self.relative_change.values()), max(self.relative_change.values())
        size = f"{low:.3g}" if np.isclose(low, high) else f"{low:.3g}..{high:.3g}"
        return (
            f"verified: {describe_blocks(self.relative_change)} steered, change {size} of the "
            f"residual norm, error {self.worst_error:.1e}, logits moved by {self.logit_change:.3g}"
        )


def verify_application(backend: Backend, intervention: Intervention) -> Verification:
    """Probe a backend that is steered by ``intervention`` now.

    Raises InterventionError naming the block and what was found there: a change that is not the
    analytic one, a change where none was asked for, or an intervention that changes nothing.
    """
    ids, n_prompt = _probe_tokens(backend, intervention)
    layers = range(backend.identity.n_layers)
    steered = backend.probe([ids], layers, n_prompt=n_prompt)[0]
    begin, end = intervention.positions.window(n_prompt)
    inside = np.zeros(len(ids), bool)
    inside[begin:end] = True
    control = intervention.changes_nothing()
    folds = {} if control else intervention.folds()
    relative: dict[int, float] = {}
    worst = 0.0
    for layer in layers:
        before, after = steered.before[layer], steered.after[layer]
        if layer not in folds:
            _require_untouched(backend, layer, before, after)
            continue
        _require_untouched(backend, layer, before[~inside], after[~inside])
        expected = reference.affine_apply(folds[layer], before[inside])
        norm = np.linalg.norm(before[inside].astype(np.float64), axis=-1)
        # Rounding is that of the longer state: a large change brings a large one.
        scale = np.maximum(norm, np.linalg.norm(expected, axis=-1))
        error = np.linalg.norm(after[inside] - expected, axis=-1) / np.maximum(scale, 1e-30)
        change = np.linalg.norm(after[inside].astype(np.float64) - before[inside], axis=-1)
        relative[layer] = float((change / np.maximum(norm, 1e-30)).mean())
        worst = max(worst, float(error.max()))
        _require_landed(backend, layer, float(error.max()), relative[layer], folds[layer].is_zero())
    moved = _logit_change(backend, intervention, ids, n_prompt, steered)
    if not control and moved == 0.0:
        message = (
            f"[verify] expected {intervention.describe()} to change the output, got the same "
            f"logits; raise the strength or choose other layers"
        )
        raise InterventionError(message)
    return Verification(relative, worst, moved, int(inside.sum()))


def _probe_tokens(backend: Backend, intervention: Intervention) -> tuple[list[int], int]:
    """A seeded sequence that reaches into the window of positions, and its prompt length."""
    positions = intervention.positions
    length = max(_LENGTH, positions.start + 4)
    if length > backend.context_length:
        message = (
            f"[verify] expected positions within the context of {backend.context_length} tokens, "
            f"got {positions}"
        )
        raise InterventionError(message)
    vocabulary = backend.identity.vocab_size
    rng = np.random.default_rng(_SEED)
    ids = rng.integers(min(3, vocabulary - 1), vocabulary, length)
    return [int(i) for i in ids], length - (_LENGTH - _PROMPT)


def _require_untouched(
    backend: Backend, layer: int, before: NDArray[np.float32], after: NDArray[np.float32]
) -> None:
    if not np.array_equal(before, after):
        message = (
            f"[verify] expected no change at block {layer} outside the intervention, got one of "
            f"{np.abs(after - before).max():.3g} on {backend.name}"
        )
        raise InterventionError(message)


def _require_landed(
    backend: Backend, layer: int, error: float, relative: float, zero: bool
) -> None:
    tolerance = max(_ROUNDINGS * _FLOAT32, backend.precision)
    if not zero and relative == 0.0:
        message = (
            f"[verify] expected a change at block {layer}, got none on {backend.name}: the block "
            f"is not steered, or the change is below the rounding of the residual stream"
        )
        raise InterventionError(message)
    if not error <= tolerance:
        message = (
            f"[verify] expected the analytic change at block {layer} to within {tolerance:.1e} of "
            f"the residual norm, got a deviation of {error:.3e} on {backend.name}"
        )
        raise InterventionError(message)
    if not zero and error > _SHARE * relative:
        message = (
            f"[verify] expected a change at block {layer} that stands out from the rounding of the "
            f"residual stream on {backend.name}, got {relative:.1e} of its norm with an error of "
            f"{error:.1e}; raise the strength or use f32"
        )
        raise InterventionError(message)


def _logit_change(
    backend: Backend, intervention: Intervention, ids: list[int], n_prompt: int, steered: Probe
) -> float:
    """How far the logits moved from those of the unsteered model."""
    control = intervention.at_strength(0.0)
    backend.dial(control)
    try:
        plain = backend.probe([ids], (), n_prompt=n_prompt)[0]
    finally:
        backend.dial(intervention)
    return float(np.abs(steered.logits - plain.logits).max())
