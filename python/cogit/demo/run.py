"""``cogit demo``: the whole flow on the shipped model, with every control beside the effect."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cogit.activations import Activations, record
from cogit.artefact import write_bytes
from cogit.backends import Backend, load_backend
from cogit.demo import arms, grammar
from cogit.demo.assets import demo_model
from cogit.evaluation.calibrate import Calibration, CalibrationSet, Calibrator
from cogit.evaluation.evaluate import Arm, ArmResult, EvaluationSet, Evaluator, paired_difference
from cogit.evaluation.verdict import judge
from cogit.intervention import Intervention
from cogit.manifest import FILE_NAME, build_manifest
from cogit.progress import track
from cogit.report import BackendReport, Report
from cogit.run_folder import new_run_folder
from cogit.sampling import SamplingOptions

_DOSES = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
_PARALLEL = 72
_CONTEXT = 128
_TOKENS = 16
_N_SAMPLES = 3


@dataclass(frozen=True)
class Sizes:
    """How much of everything a demo uses."""

    pairs: int = 100
    open_prompts: int = 72
    opposite: int = 40
    neutral: int = 24
    calibration: int = 40
    calibration_pairs: int = 24
    source_epochs: int = 40

    @classmethod
    def quick(cls) -> Sizes:
        """A fifth of the prompts: to look, not to judge."""
        return cls(
            pairs=40,
            open_prompts=24,
            opposite=16,
            neutral=8,
            calibration=24,
            calibration_pairs=12,
            source_epochs=4,
        )


@dataclass(frozen=True)
class DemoResult:
    """The report and the folder that it lies in."""

    report: Report
    folder: Path


def run_demo(
    out_dir: Path,
    *,
    json_path: Path | None = None,
    seed: int = 0,
    backends: Sequence[str] = ("transformers", "llamacpp"),
    quick: bool = False,
    threads: int | None = None,
    show_progress: bool = True,
) -> DemoResult:
    """Learn, calibrate, steer both ways on the given backends, evaluate, and write a run folder.

    Raises FileExistsError when ``out_dir`` holds something already.
    """
    if json_path is not None and not json_path.absolute().parent.is_dir():
        message = f"[demo] expected an existing folder for {json_path}; create it first"
        raise FileNotFoundError(message)
    sizes = Sizes.quick() if quick else Sizes()
    plan = _Plan(tuple(backends), sizes, seed, threads, show=show_progress)
    with new_run_folder(out_dir) as folder:
        clock = _Clock()
        report, identities = _run(folder, plan, clock)
        report.write(folder)
        manifest = _manifest(folder, plan, quick, clock, identities)
        write_bytes(folder / FILE_NAME, json.dumps(manifest, indent=2).encode())
        if json_path is not None:
            write_bytes(json_path, json.dumps(report.to_json(), indent=2).encode())
    return DemoResult(report, out_dir)


@dataclass(frozen=True)
class _Plan:
    """The arguments of one demo."""

    backends: tuple[str, ...]
    sizes: Sizes
    seed: int
    threads: int | None
    show: bool


def _run(folder: Path, plan: _Plan, clock: _Clock) -> tuple[Report, dict[str, Any]]:
    """Everything between loading the models and the report; the artefacts go to ``folder``."""
    with ExitStack() as stack:
        loaded = {name: stack.enter_context(_load(name, plan.threads)) for name in plan.backends}
        clock.lap("load")
        first = loaded[plan.backends[0]]
        activations = _record(first, plan)
        clock.lap("record")
        chosen = _calibrate(first, activations, plan)
        clock.lap("calibrate")
        unitary = chosen["unitary"].chosen.intervention
        source, fidelity = arms.source_arm(
            first,
            activations,
            unitary.layers[0],
            grammar.open_prompts(plan.sizes.calibration, plan.seed, "calibration"),
            seed=plan.seed,
            epochs=plan.sizes.source_epochs,
        )
        clock.lap("train source method")
        activations.save(folder / "activations.safetensors")
        for name, calibration in chosen.items():
            calibration.chosen.intervention.save(folder / f"{name}.safetensors")
        reports: dict[str, BackendReport] = {}
        for name, backend in loaded.items():
            # From the files, as a user would: what steers is what was saved.
            saved = {kind: Intervention.load(folder / f"{kind}.safetensors") for kind in chosen}
            reports[name] = _evaluate(backend, saved, source, plan)
            clock.lap(f"evaluate {name}")
        report = Report(
            title="cogit demo",
            backends=reports,
            chosen=_describe(chosen, fidelity),
            samples=_samples(first, unitary, plan.seed),
            seconds=clock.total(),
        )
        return report, {name: backend.identity.to_json() for name, backend in loaded.items()}


def _manifest(
    folder: Path, plan: _Plan, quick: bool, clock: _Clock, models: dict[str, Any]
) -> dict[str, Any]:
    backend = plan.backends[0] if len(plan.backends) == 1 else "both"
    settings = {"seed": plan.seed, "quick": quick, "threads": plan.threads}
    flags = [f"--seed={plan.seed}", f"--backend={backend}", *(["--quick"] if quick else [])]
    if plan.threads is not None:
        flags.append(f"--threads={plan.threads}")
    return build_manifest(
        "demo",
        folder,
        settings={**settings, "backends": list(plan.backends), "sizes": asdict(plan.sizes)},
        seconds={**clock.laps, "total": clock.total()},
        models=models,
        inputs={f"{name} model": demo_model(name) for name in plan.backends},
        device="cpu",
        dtype="f32",
        threads=plan.threads,
        argv=("demo", *flags),
    )


def _load(name: str, threads: int | None) -> Backend:
    if name == "llamacpp":
        return load_backend(
            name,
            demo_model(name),
            n_parallel=_PARALLEL,
            n_ctx=_CONTEXT,
            kv_type="f32",
            threads=threads,
        )
    if threads is not None:
        torch.set_num_threads(threads)
    return load_backend(name, demo_model(name), device="cpu")


def _record(backend: Backend, plan: _Plan) -> Activations:
    pairs = grammar.contrast_pairs(plan.sizes.pairs, plan.seed, "train")
    return record(backend, pairs, show_progress=plan.show)


def _sampling(seed: int) -> SamplingOptions:
    return SamplingOptions(max_tokens=_TOKENS, temperature=1.0, top_k=0, seed=seed)


def _calibrate(backend: Backend, activations: Activations, plan: _Plan) -> dict[str, Calibration]:
    n, seed = plan.sizes.calibration, plan.seed
    data = CalibrationSet(
        pairs=grammar.contrast_pairs(plan.sizes.calibration_pairs, seed, "calibration"),
        prompts=grammar.open_prompts(n, seed, "calibration"),
        neutral=grammar.facts(plan.sizes.neutral, seed, "calibration"),
        sampling=_sampling(seed),
    )
    calibrator = Calibrator(backend, data)
    subspaces = arms.subspaces_of(activations)
    candidates = {
        "unitary": arms.unitary_candidates(subspaces),
        "additive": arms.additive_candidates(subspaces),
    }
    return {
        name: calibrator.choose(found, label=f"calibrating {name}", show=plan.show)
        for name, found in candidates.items()
    }


def _evaluate(
    backend: Backend, saved: dict[str, Intervention], source: Arm, plan: _Plan
) -> BackendReport:
    sizes, seed = plan.sizes, plan.seed
    data = EvaluationSet(
        open_prompts=grammar.open_prompts(sizes.open_prompts, seed, "test"),
        # context_prompts takes the sign of the context, which is the opposite of the target's.
        opposite={
            +1: grammar.context_prompts(sizes.opposite, -1, seed, "test"),
            -1: grammar.context_prompts(sizes.opposite, 1, seed, "test"),
        },
        neutral=grammar.facts(sizes.neutral, seed, "test"),
        judge=grammar.sentiment,
        sampling=_sampling(seed),
    )
    evaluator = Evaluator(backend, data)
    single = [*arms.fixed_arms(saved["unitary"], saved["additive"]), source]
    groups = arms.random_arms(saved["unitary"], seed)
    work = [(arm.name, arm) for arm in single]
    work += [(name, arm) for name, controls in groups.items() for arm in controls]
    done: dict[str, list[ArmResult]] = {}
    for name, arm in track(work, f"evaluating on {backend.name}", show=plan.show):
        done.setdefault(name, []).append(evaluator.run(arm))
    return BackendReport(
        arms={name: found if name in groups else found[0] for name, found in done.items()},
        paired=paired_difference(done["unitary"][0], done["additive"][0]),
        verdict=judge(
            done["unitary"][0],
            same_subspace=done["random_same_subspace"],
            random_subspace=done["random_subspace"],
            unchanged={name: done[name][0] for name in ("identity", "strength_zero")},
        ),
        dose=_dose(evaluator, saved),
    )


def _dose(
    evaluator: Evaluator, interventions: dict[str, Intervention]
) -> dict[str, list[tuple[float, float]]]:
    """Shares of positive continuations over multiples of the calibrated strength."""
    return {
        name: [
            (dose, evaluator.share_positive(chosen.at_strength(dose * chosen.strength)))
            for dose in _DOSES
        ]
        for name, chosen in interventions.items()
    }


def _samples(backend: Backend, unitary: Intervention, seed: int) -> list[dict[str, str]]:
    prompts = grammar.open_prompts(_N_SAMPLES, seed, "test")
    options = _sampling(seed)
    texts = {"unsteered": backend.generate(prompts, options)}
    for name, sign in (("positive", 1), ("negative", -1)):
        with backend.steer(unitary.at_strength(sign * unitary.strength)):
            texts[name] = backend.generate(prompts, options)
    return [
        {"prompt": prompt, **{name: samples[i].text for name, samples in texts.items()}}
        for i, prompt in enumerate(prompts)
    ]


def _describe(chosen: dict[str, Calibration], fidelity: dict[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {
            **calibration.chosen.settings,
            "contrast": round(calibration.contrast, 4),
            "perplexity_ratio": round(calibration.perplexity_ratio, 4),
            "neutral_kl": round(calibration.neutral_kl, 4),
        }
        for name, calibration in chosen.items()
    }
    found["source"] = {
        "blend": arms.SOURCE_BLEND,
        **{f"born_fidelity_{name}": round(value, 4) for name, value in fidelity.items()},
    }
    return found


class _Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now

    def total(self) -> float:
        return time.perf_counter() - self._start
