"""Phase 1: states of the pairs, the spaces that operators are fitted in, and a test of difference.

The difference is tested on held-out pairs, along directions from the pairs to fit on: labels are
swapped within pairs (Fisher 1935), and blocks are corrected for by Holm.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cogit.activations import Activations, record
from cogit.evaluation.flip import Apart, Boundary
from cogit.layers import LayerRange
from cogit.pipeline.files import write_json
from cogit.projection import Projection
from cogit.separation import separation_statistics
from cogit.subspace import fit_subspace
from cogit.training.flips import groups_of

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.pipeline.dims import Dims
    from cogit.pipeline.material import Material
    from cogit.pipeline.plan import Plan

FIT, HELD_OUT, SEPARATION = "fit.safetensors", "held_out.safetensors", "separation.json"
PROJECTION = "projection.safetensors"
LEVEL = 0.05


def run_record(
    folder: Path, plan: Plan, dims: Dims, material: Material, backend: Backend, *, show: bool
) -> None:
    """Write the phase's files to ``folder``."""
    blocks = LayerRange.of(dims.layers)
    states = {
        name: record(backend, pairs, blocks, tail=plan.tail, show_progress=show)
        for name, pairs in ((FIT, material.fit), (HELD_OUT, material.held_out))
    }
    for name, found in states.items():
        found.save(folder / name)
    if plan.trains:
        drawn = Projection.draw(dims.d_model, quantum_dim=dims.q, seed=plan.chosen_seed)
        drawn.save(folder / PROJECTION)
    else:
        for layer in dims.layers:
            subspace = fit_subspace(states[FIT], layer, k=plan.k)
            subspace.save(folder / subspace_name(layer))
    write_json(folder / SEPARATION, separation(states[FIT], states[HELD_OUT]))


def subspace_name(layer: int) -> str:
    return f"subspace-{layer}.safetensors"


def separation(fit: Activations, held_out: Activations) -> dict[str, Any]:
    """For each block: are held-out pairs told apart along the direction of the others?

    p: of one block; p_holm: corrected for all of them (Holm 1979). gap: of pairwise fidelities.
    """
    groups = groups_of(held_out)
    rows = []
    for layer in fit.layers:
        boundary = Boundary.between(*fit.at(layer))
        apart = Apart.along(boundary, *held_out.at(layer), groups=groups)
        gap = separation_statistics(*held_out.at(layer)).separation_gap
        rows.append({"layer": layer, "p": apart.p, "gap": gap, "n_pairs": apart.n_pairs})
    for row, corrected in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = corrected
    best = min(rows, key=lambda row: float(row["p_holm"]))
    return {
        "layers": rows,
        "best_layer": best["layer"],
        "p_holm": best["p_holm"],
        "level": LEVEL,
        "test": "labels of held-out pairs swapped, direction from the pairs to fit on; Holm",
    }


def holm(values: list[float]) -> list[float]:
    """Step-down p-values of Holm (1979), in the order given."""
    order = np.argsort(values, kind="stable")
    raised = np.array(values)[order] * np.arange(len(values), 0, -1)
    found = np.empty(len(values))
    found[order] = np.minimum(1.0, np.maximum.accumulate(raised))
    return [float(value) for value in found]
