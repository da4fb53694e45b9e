"""The report of a whole run: gates, verdict and figures; the same bytes for the same plan.

Nothing in it is a time or a place: those are in the manifest and the state.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.pipeline import evaluate_phase, fit_phase, record_phase, reverse_phase
from cogit.pipeline.files import read_json
from cogit.pipeline.gates import Check, to_json
from cogit.pipeline.material import facts_of

if TYPE_CHECKING:
    from cogit.identity import ModelIdentity
    from cogit.pipeline.dims import Dims
    from cogit.pipeline.lineage import Lineage
    from cogit.pipeline.material import Material
    from cogit.pipeline.plan import Plan

FILE = "report.json"
# Of a plan, what names places or machines.
_ELSEWHERE = ("model", "pairs", "prompts", "neutral", "device", "threads")


def build_report(
    run: Path,
    plan: Plan,
    dims: Dims,
    material: Material,
    identity: ModelIdentity,
    lineages: dict[str, Lineage],
    gates: dict[str, list[Check]],
) -> dict[str, Any]:
    """From the files of a finished run."""
    evaluation = read_json(run / "evaluate" / evaluate_phase.REPORT)
    fit = read_json(run / "fit" / fit_phase.FACTS)
    return {
        "format": "cogit pipeline report",
        "format_version": 1,
        "verdict": evaluation["verdict"],
        "reasons": evaluation.get("reasons", []),
        "plan": {k: v for k, v in plan.to_json().items() if k not in _ELSEWHERE},
        "dims": dims.to_json(),
        "material": facts_of(material),
        "model": identity.to_json(),
        "lineage": {name: one.fingerprint for name, one in lineages.items()},
        "gates": {name: to_json(checks) for name, checks in gates.items()},
        "separation": read_json(run / "record" / record_phase.SEPARATION),
        "fit": {
            name: fit[name]
            for name in (
                *("settings", "intervention", "hash", "fidelity", "flips_of_both"),
                *("contrast", "shuffled_contrast", "criteria"),
            )
        },
        "metrics": metrics(run),
        "summary": evaluation.get("summary"),
        "reverse": _reverse(run),
    }


def metrics(run: Path) -> dict[str, Any]:
    """The figures that tables and logs show; None where there is none."""
    evaluation = read_json(run / "evaluate" / evaluate_phase.REPORT)
    learned = next(arm for arm in evaluation["arms"] if arm["role"] == "learned")
    lift = learned.get("lift_pp") or {}
    return {
        "verdict": evaluation["verdict"],
        "lift_pp": lift.get("mean"),
        "lift_low": lift.get("low"),
        "lift_high": lift.get("high"),
        "kl": learned.get("neutral_kl"),
        "perplexity_ratio": learned.get("perplexity_ratio"),
        "p": learned.get("p"),
    }


def _reverse(run: Path) -> list[dict[str, Any]]:
    """Of each block: what is left after undoing, beside its controls, and the source's report."""
    layers = read_json(run / "reverse" / reverse_phase.REPORT)["layers"]
    return [
        {
            "layer": row["layer"],
            **{
                name: None
                if row[name] is None or row[name]["ratio"] is None
                else row[name]["ratio"]["mean"]
                for name in ("opposite", "own_inverse", "shuffled")
            },
            "identity_edit": row["identity"]["edit"],
            **row["source_report"],
        }
        for row in layers
    ]
