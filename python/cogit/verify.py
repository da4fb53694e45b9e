"""Proof of application: what landed in the residual stream against what should have.

A probe sequence runs through the steered model. At every block the state is read on both sides of
the hook; the change must equal the affine's, computed in float64, at the positions asked for, and
be exactly zero at every other position and block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from cogit import reference
from cogit.errors import InterventionError
from cogit.layers import describe_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.affine import Affine
    from cogit.backends.base import Backend, Probe
    from cogit.gates import Gate
    from cogit.intervention import Intervention

_LENGTH = 12
_PROMPT = 8
_SEED = 20240501
# In float32 a landed change may be off by the rounding of the sum, of the products over d_model and
# of the norm restore; in bf16 and f16 by one rounding of the state that is written back.
_ROUNDINGS = 64.0
_FLOAT32 = float(np.finfo(np.float32).eps)
# A factor that rounding may move by more says nothing about the change that should land.
_DOUBT = 0.01
# An error above this share of the change means that the change itself was rounded away.
_SHARE = 0.5


@dataclass(frozen=True)
class Verification:
    """What the probe found.

    relative_change: per steered block, mean |change| / |state| over the positions asked for, of
    those that its gate opens for. norm_ratio, cosine: of the same tokens, mean |after| / |before|
    and mean cosine between both. worst_error: the largest deviation from the analytic change,
    relative to the longer of the states before and after it. logit_change: the largest absolute
    change of a logit. gate_open: per gated block, for how many of the n_positions its gate opens.
    gate_undecided: how many tokens were left out because rounding decides about their gate, over
    all blocks. without_gates: the same operators on every token, where no gate opened.
    """

    relative_change: Mapping[int, float]
    worst_error: float
    logit_change: float
    n_positions: int
    gate_open: Mapping[int, int] = field(default_factory=dict)
    gate_undecided: int = 0
    without_gates: Verification | None = None
    norm_ratio: Mapping[int, float] = field(default_factory=dict)
    cosine: Mapping[int, float] = field(default_factory=dict)

    def describe(self) -> str:
        """One line for people."""
        if not self.relative_change:
            return "verified: nothing is steered (control)"
        blocks = describe_blocks(self.relative_change)
        if self.without_gates is not None:
            bare = self.without_gates.describe().removeprefix("verified: ")
            return (
                f"verified: gate closed on all probe tokens at {blocks}{self._undecided()}, logits "
                f"moved by {self.logit_change:.3g}; without the gate {bare}"
            )
        low, high = min(self.relative_change.values()), max(self.relative_change.values())
        size = f"{low:.3g}" if np.isclose(low, high) else f"{low:.3g}..{high:.3g}"
        return (
            f"verified: {blocks} steered{self._gates()}, change {size} of the residual norm, error "
            f"{self.worst_error:.1e}, logits moved by {self.logit_change:.3g}"
        )

    def _gates(self) -> str:
        if not self.gate_open:
            return ""
        counts = ", ".join(map(str, self.gate_open.values()))
        return f" where the gate opens ({counts} of {self.n_positions} tokens){self._undecided()}"

    def _undecided(self) -> str:
        n = self.gate_undecided
        return f", {n} more within rounding of its threshold left out" if n else ""


def verify_application(backend: Backend, intervention: Intervention) -> Verification:
    """Probe a backend that is steered by ``intervention`` now.

    A gate's factors are computed in float64 from the states before the operator; tokens whose
    factor rounding may decide are left out and counted. Where no gate opens on the probe, the
    operators are proven without their gates as well.

    Raises InterventionError naming the block and what was found there: a change that is not the
    analytic one, a change where none was asked for, or an intervention that changes nothing.
    """
    found = _verify(backend, intervention)
    shut = bool(found.gate_open) and not any(found.relative_change.values())
    if not shut or intervention.changes_nothing():
        return found
    bare = intervention.ungated()
    backend.dial(bare)
    try:
        return replace(found, without_gates=_verify(backend, bare))
    finally:
        backend.dial(intervention)


def _verify(backend: Backend, intervention: Intervention) -> Verification:
    ids, n_prompt = _probe_tokens(backend, intervention)
    layers = range(backend.identity.n_layers)
    steered = backend.probe([ids], layers, n_prompt=n_prompt)[0]
    begin, end = intervention.positions.window(n_prompt)
    inside = np.zeros(len(ids), bool)
    inside[begin:end] = True
    control = intervention.changes_nothing()
    folds = {} if control else intervention.folds()
    relative: dict[int, float] = {}
    opened: dict[int, int] = {}
    ratios: dict[int, float] = {}
    cosines: dict[int, float] = {}
    worst, undecided = 0.0, 0
    for layer in layers:
        before, after = steered.before[layer], steered.after[layer]
        if layer not in folds:
            _require_untouched(backend, layer, before, after)
            continue
        _require_untouched(backend, layer, before[~inside], after[~inside])
        factors, doubt = _gate_factors(intervention.gates.get(layer), before, n_prompt)
        decided = doubt <= _DOUBT
        shut = inside & decided & (factors == 0)
        _require_untouched(backend, layer, before[shut], after[shut])
        open_ = inside & decided & (factors != 0)  # NaN counts: it must not go unseen
        undecided += int((inside & ~decided).sum())
        if layer in intervention.gates:
            opened[layer] = int(open_.sum())
        relative[layer], error, excess = 0.0, 0.0, 0.0
        if open_.any():
            relative[layer], error, excess = _compare(
                folds[layer], before[open_], after[open_], factors[open_], doubt[open_]
            )
            ratios[layer], cosines[layer] = _shape(before[open_], after[open_])
        worst = max(worst, error)
        idle = folds[layer].is_zero() or not open_.any()
        _require_landed(backend, layer, excess, relative[layer], idle)
    moved = _logit_change(backend, intervention, ids, n_prompt, steered)
    # Where every gate is closed the logits rest too.
    if any(relative.values()) and moved == 0.0:
        message = (
            f"[verify] expected {intervention.describe()} to change the output, got the same "
            f"logits; raise the strength or choose other layers"
        )
        raise InterventionError(message)
    return Verification(
        relative,
        worst,
        moved,
        int(inside.sum()),
        opened,
        undecided,
        norm_ratio=ratios,
        cosine=cosines,
    )


def _shape(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[float, float]:
    """Mean |after| / |before| and mean cosine, over tokens."""
    one, two = before.astype(np.float64), after.astype(np.float64)
    norms = [np.maximum(np.linalg.norm(x, axis=-1), 1e-30) for x in (one, two)]
    cosine = (one * two).sum(axis=-1) / (norms[0] * norms[1])
    return float((norms[1] / norms[0]).mean()), float(cosine.mean())


def _gate_factors(
    gate: Gate | None, before: NDArray[np.float32], n_prompt: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The factor of each token, and how far rounding may move it; each (position,).

    A doubt of 1 where rounding decides whether the gate is closed, since closed is exact.
    """
    if gate is None:
        return np.ones(len(before)), np.zeros(len(before))
    low, high = gate.bounds(before, n_prompt)
    doubt = np.where((low == 0) == (high == 0), high - low, 1.0)
    return gate.factors(before, n_prompt), doubt


def _compare(
    fold: Affine,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    factors: NDArray[np.float64],
    doubt: NDArray[np.float64],
) -> tuple[float, float, float]:
    """The mean relative change, the largest deviation from the analytic one, and the excess.

    The excess is what the doubt about a token's factor does not explain of its deviation.
    """
    expected = reference.affine_apply(fold, before, factors)
    norm = np.linalg.norm(before.astype(np.float64), axis=-1)
    # Rounding is that of the longer state: a large change brings a large one.
    scale = np.maximum(norm, np.linalg.norm(expected, axis=-1))
    error = np.linalg.norm(after - expected, axis=-1) / np.maximum(scale, 1e-30)
    excess = error
    if doubt.any():
        whole = np.linalg.norm(reference.affine_apply(fold, before) - before, axis=-1)
        # Twice: the restore of the norm may move a state by as much again.
        excess = np.maximum(error - 2.0 * doubt * whole / np.maximum(scale, 1e-30), 0.0)
    change = np.linalg.norm(after.astype(np.float64) - before, axis=-1)
    relative = float((change / np.maximum(norm, 1e-30)).mean())
    return relative, float(error.max()), float(excess.max())


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
