"""Phase 5: how much of the steering comes undone, beside the identity and shuffled controls."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.activations import Activations
from cogit.evaluation.reverse import LayerReversal, reverse
from cogit.pipeline.files import write_json
from cogit.pipeline.fit_phase import load_fitted
from cogit.pipeline.record_phase import HELD_OUT

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.pipeline.material import Material
    from cogit.pipeline.plan import Plan

REPORT = "reverse.json"


def run_reverse(
    folder: Path,
    recorded: Path,
    fitted: Path,
    plan: Plan,
    material: Material,
    backend: Backend,
    *,
    show: bool,
) -> None:
    """Write the report, measured on held-out prompts and held-out states."""
    learned, opposite, _ = load_fitted(fitted)
    report = reverse(
        backend,
        learned,
        texts_of(plan, material),
        opposite=opposite,
        activations=Activations.load(recorded / HELD_OUT),
        draws=plan.reverse_draws,
        seed=plan.chosen_seed,
        show_progress=show,
    )
    data = asdict(report)
    for row, layer in zip(data["layers"], report.layers, strict=True):
        row["source_report"] = source_report(layer)
    write_json(folder / REPORT, data)


def texts_of(plan: Plan, material: Material) -> list[str]:
    """The prompts that are read, not continued: as many as are shown by the generate phase."""
    return list(material.prompts[: max(plan.examples, 4)])


def source_report(layer: LayerReversal) -> dict[str, Any]:
    """The source system's report of a block: round trips, conjugate test, figures of its log.

    normalized_diff is |U₋ - U₊ᴴ|_F over sqrt(q): 0 for the adjoint, 1.41 for two random unitaries.
    """
    trip, facts = layer.round_trip, layer.unitary
    return {
        "round_trip": {
            "mean": trip.mean,
            "std": trip.std,
            "min": trip.min,
            "max": trip.max,
            "fidelities": list(trip.fidelities),
            "identity": trip.identity,
            "shuffled": trip.shuffled,
            "note": trip.note,
        },
        "conjugate_test": None
        if facts is None
        else {
            "frobenius_norm": facts.conjugate_test["frobenius_norm"],
            "normalized_diff": facts.conjugate_test["relative"],
        },
        "unitarity_deviation": None if facts is None else facts.unitarity_deviation,
        "fidelity": None if facts is None else facts.fidelity,
        "reversibility": None if facts is None else facts.reversibility,
    }
