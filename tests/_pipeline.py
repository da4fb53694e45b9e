"""A small plan on the demo model, run once for all tests of a file, and copies of its folder."""

from __future__ import annotations

import contextlib
import shutil
from functools import cache
from pathlib import Path
from typing import Any, cast

from cogit.backends import Backend, load_backend
from cogit.demo.assets import demo_model
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
    "n_random": 8,
    "n_same_subspace": 8,
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


def run(out: Path, one: Plan | None = None, **options: Any) -> Outcome:
    return run_pipeline(one or plan(), out, opener, Options(show=False, **options))


def copied(source: Path, target: Path) -> Path:
    """A copy of a run folder, with its times."""
    shutil.copytree(source, target, copy_function=shutil.copy2)
    return target


def material(one: Plan | None = None) -> Material:
    return load_material(one or plan(), demo=True)
