"""What decides the results of each phase, as lineages that name each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cogit import __version__
from cogit.pipeline.generate_phase import sampling_of, strengths_of
from cogit.pipeline.lineage import Lineage, texts_hash
from cogit.pipeline.plan import PHASES
from cogit.pipeline.reverse_phase import texts_of

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.pipeline.dims import Dims
    from cogit.pipeline.material import Material
    from cogit.pipeline.plan import Plan


def lineages_of(plan: Plan, dims: Dims, material: Material, backend: Backend) -> dict[str, Lineage]:
    """Of all phases, known before any of them is run. No path is in them: a run may move."""
    fields = {
        "record": _record_fields(plan, dims, material, backend),
        "fit": {
            "angle": plan.angle,
            "gain": plan.gain,
            "strength": plan.strength,
            "decode": plan.decode,
            "epochs": plan.n_epochs if plan.trains else None,
            "shuffled_fits": plan.shuffled_fits,
            "budget": [plan.nll_budget, plan.kl_budget],
            "neutral": material.neutral_hash(),
        },
        "generate": {
            "strengths": list(strengths_of(plan)),
            "sampling": dict(vars(sampling_of(plan))),
            "prompts": texts_hash(material.prompts[: plan.examples]),
        },
        "evaluate": {
            "prompts": material.prompts_hash(),
            "judge": material.judge,
            "match": plan.match,
            "seeds": list(plan.eval_seeds),
            "draws": [plan.n_random, plan.n_same_subspace],
            "resamples": plan.resamples,
        },
        "reverse": {"draws": plan.reverse_draws, "texts": texts_hash(texts_of(plan, material))},
    }
    found: dict[str, Lineage] = {}
    before = None
    for phase in PHASES:
        found[phase] = Lineage(phase, fields[phase], before)
        before = found[phase].fingerprint
    return found


def _record_fields(plan: Plan, dims: Dims, material: Material, backend: Backend) -> dict[str, Any]:
    return {
        "model": backend.identity.fingerprint,
        "architecture": backend.identity.architecture,
        "layers": list(dims.layers),
        "q": dims.q,
        "ratio": round(dims.ratio, 9),
        "d_model": dims.d_model,
        "prompts_per_class": len(material.fit),
        "seed": plan.chosen_seed,
        "pairs": material.pairs_hash(),
        "dtype": plan.dtype,
        # The same weights on another device or in another library have other roundings.
        "backend": backend.name,
        "numerics": backend.numerics,
        "method": plan.method,
        "encoder": "complex gaussian columns" if plan.trains else f"subspace of {plan.k}",
        "tail": plan.tail,
        "cogit_version": __version__,
    }
