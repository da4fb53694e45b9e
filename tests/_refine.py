"""What the tests of refinement share."""

from __future__ import annotations

from typing import Any

from _planted import FACTS, PLANTED_LAYER, texts
from _planted import pairs as planted_pairs
from cogit.activations import record
from cogit.backends.transformers import TransformersBackend
from cogit.intervention import Intervention
from cogit.operators import Unitary
from cogit.subspace import fit_subspace
from cogit.training.through_model import RefineData, RefineSettings

SETTINGS = RefineSettings(
    steps=16,
    learning_rate=0.05,
    batch_pairs=6,
    batch_neutral=3,
    evaluate_every=8,
    checkpoint_every=5,
    seed=2,
)


class Interrupted(Exception):
    """Stands for a kill."""


def small_start(backend: TransformersBackend) -> Intervention:
    """A small rotation at a small amplitude: far from the best."""
    states = record(backend, planted_pairs(24, 0, n_plain=4, n_class=4), show_progress=False)
    subspace = fit_subspace(states, PLANTED_LAYER, k=2)
    operator = Unitary.fit(subspace, angle=20.0, gain=0.5)
    return Intervention({PLANTED_LAYER: operator}, backend.identity)


def planted_data() -> RefineData:
    return RefineData(
        pairs=planted_pairs(16, 41, n_plain=4, n_class=1),
        neutral=texts(8, 42, FACTS, 8),
        check_pairs=planted_pairs(12, 43, n_plain=4, n_class=1),
        check_neutral=texts(6, 44, FACTS, 8),
    )


def losses(history: Any) -> list[float]:
    return [row["loss"] for row in history if "loss" in row]
