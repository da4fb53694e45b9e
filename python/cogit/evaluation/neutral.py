"""What an intervention does to neutral texts: divergence, next-token accuracy, displacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cogit import reference
from cogit.evaluation import measures
from cogit.evaluation.continuations import batches
from cogit.intervention import Intervention

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cogit.backends.base import Backend, Probe

# Numbers of unsteered logits that are kept for the KL: 1 GiB in float32.
_MOST = 2**28
_N_PROBED = 8
_LEAST_RIGHT = 19.5


@dataclass(frozen=True)
class NeutralCost:
    """kl: nats per token. accuracy: share of next tokens that are the likeliest one.

    same: whether every logit is the unsteered model's, bit by bit.
    """

    kl: float
    accuracy: float | None
    same: bool = False


class NeutralTexts:
    """Neutral texts with the unsteered model's logits and states, which are run once."""

    def __init__(self, backend: Backend, texts: Sequence[str], layers: Sequence[int]) -> None:
        """layers: the blocks whose states the displacement needs.

        Texts beyond 1 GiB of logits are left out; ``n_used`` says how many are kept.
        """
        self._backend, self._layers = backend, tuple(layers)
        ids = [backend.tokenize(text) for text in texts]
        room = _MOST // backend.identity.vocab_size
        ends = np.cumsum([len(one) for one in ids])
        self._ids = ids[: max(1, int((ends <= room).sum()))]
        self._plain = self._logits()
        self._states: list[Probe] | None = None

    @property
    def n_used(self) -> int:
        return len(self._ids)

    @property
    def accuracy(self) -> float | None:
        """The unsteered model's; None below 20 right tokens, of which one is 5 % already."""
        found = self._accuracy(self._plain)
        total = sum(len(ids) - 1 for ids in self._ids)
        return None if found is None or found * total < _LEAST_RIGHT else found

    def cost(self) -> NeutralCost:
        """As the backend is steered now; an infinite KL where steering breaks the model."""
        logits = self._logits()
        if any(np.isnan(rows).any() for rows in logits):
            return NeutralCost(np.inf, None)
        same = all(np.array_equal(a, b) for a, b in zip(self._plain, logits, strict=True))
        kl = measures.token_divergence(self._plain, logits)
        return NeutralCost(kl, self._accuracy(logits), same)

    def displacement(self, intervention: Intervention) -> float:
        """Mean |h' - h| / |h| at the steered blocks, over tokens; the backend is unsteered now.

        Of the first texts. Computed from the unsteered states where one block of ``layers`` without
        a gate is steered, else measured.
        """
        if intervention.changes_nothing():
            return 0.0
        apart = not set(intervention.layers) <= set(self._layers)
        if len(intervention.layers) > 1 or intervention.gates or apart:
            return self._measured(intervention)
        if self._states is None:
            self._states = self._backend.probe(self._ids[:_N_PROBED], self._layers)
        (layer,) = intervention.layers
        fold = intervention.folds()[layer]
        row = self._layers.index(layer)
        changes: list[NDArray[np.float64]] = []
        for probe in self._states:
            before = probe.before[row].astype(np.float64)
            begin, end = intervention.positions.window(len(before))
            change = np.zeros(len(before))
            after = reference.affine_apply(fold, before[begin:end])
            change[begin:end] = relative(before[begin:end], after)
            changes.append(change)
        return float(np.concatenate(changes).mean())

    def _measured(self, intervention: Intervention) -> float:
        layers = intervention.layers
        with self._backend.steer(intervention, verify=False, control=True):
            probes = self._backend.probe(self._ids[:_N_PROBED], layers)
        changes = [relative(one.before, one.after).mean(axis=0) for one in probes]
        return float(np.concatenate(changes).mean())

    def _logits(self) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = []
        for start, stop in batches(self._backend, self._ids):
            found += self._backend.logits(self._ids[start:stop])
        return found

    def _accuracy(self, logits: Sequence[NDArray[np.float32]]) -> float | None:
        right = total = 0
        for ids, rows in zip(self._ids, logits, strict=True):
            right += int((rows[:-1].argmax(axis=-1) == np.asarray(ids[1:])).sum())
            total += len(ids) - 1
        return right / total if total else None


def relative(before: NDArray[np.floating], after: NDArray[np.floating]) -> NDArray[np.float64]:
    """|after - before| / |before| of each row, 0 where nothing changed. (..., d) to (...)"""
    change = np.linalg.norm(after.astype(np.float64) - before, axis=-1)
    size = np.linalg.norm(before.astype(np.float64), axis=-1)
    return np.asarray(change / np.maximum(size, 1e-30), dtype=np.float64)
