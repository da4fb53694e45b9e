"""A small plan on the demo model, run once for all tests of a file, and copies of its folder."""

from __future__ import annotations

import contextlib
import shutil
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

from cogit.backends import Backend, load_backend
from cogit.demo.assets import demo_model
from cogit.pipeline import evaluate_phase
from cogit.pipeline.fit_phase import load_fitted
from cogit.pipeline.material import Material, load_material
from cogit.pipeline.plan import Plan
from cogit.pipeline.runner import Options, Outcome, run_pipeline

SETTINGS: dict[str, Any] = {
    "layers": "3",
    "angle": 60.0,
    "gain": 3.0,
    "max_tokens": 8,
    "examples": 2,
    "test_prompts": 8,
    "calibration_prompts": 4,
    "neutral_prompts": 4,
    "calibration_pairs": 6,
    "held_out_pairs": 12,
    "shuffled_fits": 2,
    "reverse_draws": 1,
    "eval_seeds": (42,),
}


def plan(**changes: Any) -> Plan:
    return Plan(**{**SETTINGS, **changes})


@cache
def backend() -> Backend:
    return load_backend("transformers", demo_model("transformers"), device="cpu")


def opener(plan: Plan, path: str) -> Backend:
    """The one demo model of the process, which a run does not close."""
    return cast("Backend", contextlib.nullcontext(backend()))


def evaluation(recorded: Path, fitted: Path, plan: Plan, *rest: Any, **_: Any) -> dict[str, Any]:
    """A report in the shape of "cogit evaluation", version 1, at once; 40 points a strength."""
    learned, _, _ = load_fitted(fitted)
    names = ("baseline", "learned", "identity", "strength_zero", "random")
    lift = {name: 40.0 * learned.strength if name == "learned" else 0.0 for name in names}
    return {
        "format": "cogit evaluation",
        "format_version": 1,
        "title": "a stand-in",
        "backend": "transformers",
        "settings": {},
        "model": rest[1].identity.to_json(),
        "intervention": {"description": learned.describe(), "hash": learned.content_hash},
        "arms": [
            {
                "name": name,
                "role": name,
                "n_prompts": 8,
                "n_samples": 16,
                "positive_rate": {"+1": 0.5 + lift[name] / 100, "-1": 0.5},
                "lift_pp": {"mean": lift[name], "low": lift[name] - 5, "high": lift[name] + 5},
                "neutral_kl": 0.01 if name == "learned" else 0.0,
            }
            for name in names
        ],
        "verdict": "effect",
        "reasons": [],
    }


def run(out: Path, one: Plan | None = None, *, quick: bool = True, **options: Any) -> Outcome:
    """quick: with the evaluation above instead of the real one, which takes most of a run."""
    with pytest.MonkeyPatch.context() as patch:
        if quick:
            patch.setattr(evaluate_phase, "evaluation", evaluation)
        return run_pipeline(one or plan(), out, opener, Options(show=False, **options))


def copied(source: Path, target: Path) -> Path:
    """A copy of a run folder, with its times."""
    shutil.copytree(source, target, copy_function=shutil.copy2)
    return target


def material(one: Plan | None = None) -> Material:
    return load_material(one or plan(), demo=True)
