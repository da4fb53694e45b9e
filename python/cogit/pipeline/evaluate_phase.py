"""Phase 4: the evaluation with its controls; here alone the pipeline meets the evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.pipeline.files import read_json, write_json
from cogit.pipeline.fit_phase import FACTS, load_fitted
from cogit.pipeline.record_phase import SEPARATION
from cogit.sampling import SamplingOptions

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.pipeline.material import Material
    from cogit.pipeline.plan import Plan

REPORT = "evaluation.json"


def run_evaluate(
    folder: Path,
    recorded: Path,
    fitted: Path,
    plan: Plan,
    material: Material,
    backend: Backend,
    *,
    show: bool,
) -> None:
    """Write the report of the fitted operator, on texts that no fit or choice has seen."""
    report = evaluation(recorded, fitted, plan, material, backend, show=show)
    report["layers"] = read_json(recorded / SEPARATION)["layers"]
    write_json(folder / REPORT, report)


def evaluation(
    recorded: Path,
    fitted: Path,
    plan: Plan,
    material: Material,
    backend: Backend,
    *,
    show: bool,
) -> dict[str, Any]:
    """The evaluation as JSON, see `cogit.evaluation`."""
    from cogit.pipeline.interim_evaluation import Subject, evaluate

    subject = Subject(*load_fitted(fitted))
    facts = known_facts(recorded, fitted)
    return evaluate(backend, subject, material, plan, evaluation_sampling(plan), facts, show=show)


def evaluation_sampling(plan: Plan) -> SamplingOptions:
    """As the generate phase samples; the evaluation replaces the seed by each of its own."""
    return SamplingOptions(
        max_tokens=plan.max_tokens,
        temperature=plan.temperature,
        top_k=plan.top_k,
        stop_at_eos=plan.stop_at_eos,
    )


def known_facts(recorded: Path, fitted: Path) -> dict[str, float]:
    """Figures of the earlier phases that the report shows and does not judge by."""
    fit = read_json(fitted / FACTS)
    layer = fit["layers"][0]
    rows = read_json(recorded / SEPARATION)["layers"]
    gap = next(row["gap"] for row in rows if row["layer"] == layer)
    return {
        "separation_gap": gap,
        **{
            f"fidelity_{way}": fit["fidelity"][way]["trained"]
            for way in ("to_positive", "to_negative")
        },
    }
