"""What decides the results of each phase, as lineages that name each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cogit import __version__
from cogit.evaluation.judges import JudgeSpec, make_judge
from cogit.evaluation.judges.spec import judge_place
from cogit.pipeline.born_fit import blends_of, born_settings
from cogit.pipeline.generate_phase import sampling_of, strengths_of
from cogit.pipeline.lineage import Lineage, texts_hash
from cogit.pipeline.plan import PHASES
from cogit.pipeline.reverse_phase import texts_of
from cogit.run_inputs import describe_inputs

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
            "training": _training(plan, dims) if plan.trains else None,
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
            "judge": judge_fields(material.judge, backend),
            "subspace": plan.k,
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


def judge_fields(text: str, backend: Backend | None = None) -> dict[str, Any]:
    """A judge by what it reads: the same words or weights elsewhere are the same judge.

    It is made here too, so that one that cannot be is refused before any phase; a classifier, which
    would be loaded, and an endpoint, which may need a key, are left to the evaluation. Raises as
    ``make_judge``.
    """
    spec = JudgeSpec.parse(text)
    if spec.kind not in ("classifier", "api"):
        judge = make_judge(text, backend=backend)
        if spec.kind == "lexicon":
            return {k: v for k, v in judge.describe().items() if k != "source"}
    place = judge_place(text)
    if place is None:
        return {"name": text}
    files = [one["files"] for one in describe_inputs({"judge": place})["judge"]]
    return {"name": spec.kind, "options": dict(spec.options), "files": files}


def _training(plan: Plan, dims: Dims) -> dict[str, Any]:
    """The schedule, which is the preset's, and the blends that are tried."""
    return {**born_settings(plan, dims).to_json(), "blends": list(blends_of(plan))}


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
