"""Phase 4: the evaluation with its controls; here alone the pipeline meets the evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.activations import Activations
from cogit.artefact import write_bytes
from cogit.evaluation.evaluation import evaluate
from cogit.evaluation.judges import make_judge
from cogit.evaluation.subject import Subject
from cogit.evaluation.suite import Suite
from cogit.evaluation.thresholds import Settings
from cogit.pipeline.files import read_json, write_json
from cogit.pipeline.fit_phase import FACTS, load_fitted, load_shuffled
from cogit.pipeline.record_phase import FIT, SEPARATION
from cogit.reporting import check_report
from cogit.reporting.write import render
from cogit.sampling import SamplingOptions
from cogit.subspace import fit_subspace

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
    found = evaluation(recorded, fitted, plan, material, backend, show=show)
    pages = render(check_report(found))
    write_json(folder / REPORT, found)
    for name, data in pages.items():
        write_bytes(folder / name, data)


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
    learned, opposite, additive = load_fitted(fitted)
    states = Activations.load(recorded / FIT)
    subspaces = {layer: fit_subspace(states, layer, k=plan.k) for layer in learned.layers}
    subject = Subject(
        learned,
        reverse=opposite,
        additive=additive,
        shuffled=load_shuffled(fitted),
        facts=known_facts(recorded, fitted),
        frames={layer: (one.mean, one.basis) for layer, one in subspaces.items()},
        layers=tuple(
            {name: row[name] for name in ("layer", "gap", "p", "p_holm")}
            for row in read_json(recorded / SEPARATION)["layers"]
        ),
    )
    found = evaluate(
        backend,
        subject,
        suite_of(material),
        make_judge(material.judge, backend=backend),
        settings_of(plan),
        title=f"cogit pipeline, preset {plan.preset}",
        show=show,
    )
    return found.to_json()


def suite_of(material: Material) -> Suite:
    """The held-out texts; ValueError where a text serves two purposes."""
    return Suite(
        prompts=material.prompts,
        neutral_prompts=material.neutral_prompts,
        neutral_texts=material.reporting,
        calibration_prompts=material.calibration_prompts,
        calibration_texts=material.checking,
        opposite=material.opposite,
        instructions=material.instructions,
    )


def settings_of(plan: Plan) -> Settings:
    """As the generate phase samples; the seed is replaced by each of the evaluation's own."""
    sampling = SamplingOptions(
        max_tokens=plan.max_tokens,
        temperature=plan.temperature,
        top_k=plan.top_k,
        stop_at_eos=plan.stop_at_eos,
    )
    return Settings(
        match=plan.match,  # type: ignore[arg-type]
        seeds=plan.eval_seeds,
        n_random=plan.n_random,
        n_same_subspace=plan.n_same_subspace,
        n_shuffled=plan.shuffled_fits,
        sampling=sampling,
        resamples=plan.resamples,
        seed=plan.chosen_seed,
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
