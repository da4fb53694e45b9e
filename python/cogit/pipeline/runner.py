"""Running a plan: five phases in a row, each behind its gate, in a folder of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.manifest import build_manifest
from cogit.pipeline import experiment_log, report
from cogit.pipeline.cost import Rate
from cogit.pipeline.dims import Dims, resolve_dims
from cogit.pipeline.evaluate_phase import run_evaluate
from cogit.pipeline.files import write_json, write_lineage
from cogit.pipeline.fit_phase import run_fit
from cogit.pipeline.freshness import Policy, decide, require_earlier, require_same_lineage
from cogit.pipeline.gates import Check, Context, GateFailed, run_gate
from cogit.pipeline.generate_phase import run_generate
from cogit.pipeline.lineage import Lineage
from cogit.pipeline.lineages import lineages_of
from cogit.pipeline.lock import run_lock
from cogit.pipeline.material import Material, load_material, model_of, with_prompts
from cogit.pipeline.plan import PHASES, Plan
from cogit.pipeline.record_phase import run_record
from cogit.pipeline.reverse_phase import run_reverse
from cogit.pipeline.state import FILE as STATE
from cogit.pipeline.state import RunState, phase_folder, sweep_leftovers

if TYPE_CHECKING:
    from cogit.backends.base import Backend

# Of a run folder, what cannot be the same twice: it holds times.
UNHASHED = (STATE,)
OpenBackend = Callable[[Plan, str], "Backend"]
Say = Callable[[str, str], None]


def _silent(label: str, text: str) -> None:
    """Say nothing."""


def _no_event(name: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Options:
    """How to run a plan; nothing here changes a result.

    policy: what to do with finished phases. phases: which to run, in a row; those before them must
    be finished. log: file of the experiment log, None for the one beside the run folder.
    require_effect: the verdict "no effect" is no success then. on_event: is told
    ``record:start``, ``record:written`` (files in place, state not yet) and ``record:done``.
    manifest: writes the manifest of a finished folder, given the seconds of each phase; by default
    one from the plan alone, which `cogit replay` cannot repeat.
    """

    policy: Policy = field(default_factory=Policy)
    phases: tuple[str, ...] = PHASES
    rate: Rate | None = None
    log: Path | None = None
    require_effect: bool = False
    show: bool = True
    say: Say = _silent
    on_event: Callable[[str], None] = _no_event
    manifest: Callable[[Path, dict[str, float]], None] | None = None

    def __post_init__(self) -> None:
        rows = [PHASES.index(one) if one in PHASES else -1 for one in self.phases]
        if not rows or -1 in rows or rows != list(range(rows[0], rows[0] + len(rows))):
            message = (
                f"[pipeline] expected phases in a row among {', '.join(PHASES)}, got "
                f"{', '.join(self.phases) or 'none'}"
            )
            raise ValueError(message)


@dataclass(frozen=True)
class Outcome:
    """What a run came to. report: None unless all phases are finished.

    succeeded: False where an effect was required and there is none. cost: None without a rate.
    """

    folder: Path
    state: RunState
    reused: tuple[str, ...]
    seconds: dict[str, float]
    report: dict[str, Any] | None
    cost: float | None
    succeeded: bool

    def to_json(self) -> dict[str, Any]:
        """Phases with their seconds, total, cost, and the report."""
        return {
            "folder": str(self.folder),
            "succeeded": self.succeeded,
            "phases": [
                {
                    "phase": name,
                    "fingerprint": one.fingerprint,
                    "seconds": one.seconds,
                    "reused": name in self.reused,
                    "gate": one.gate,
                }
                for name, one in self.state.phases.items()
            ],
            "seconds": self.seconds,
            "cost": self.cost,
            "report": self.report,
        }


@dataclass(frozen=True)
class _Run:
    """Everything that the phases of one run share."""

    folder: Path
    plan: Plan
    dims: Dims
    material: Material
    backend: Backend
    lineages: dict[str, Lineage]
    options: Options

    def context(self) -> Context:
        return Context(self.folder, self.plan, self.dims, self.lineages, self.backend)


def run_pipeline(
    plan: Plan, out: Path, open_backend: OpenBackend, options: Options | None = None
) -> Outcome:
    """Run a plan in ``out``, and write report, manifest and log entry where all is finished.

    open_backend: loads a model by its path or id. Raises GateFailed where a gate stops it;
    BlockingIOError where another process runs there; ValueError, FileExistsError and others, before
    any phase, for a plan or a folder that cannot be.
    """
    options = options or Options()
    choice = model_of(plan)
    material = load_material(plan, demo=choice.demo)
    _require_ours(out)
    out.mkdir(parents=True, exist_ok=True)
    with run_lock(out, lambda text: options.say("lock", text)):
        for name in sweep_leftovers(out):
            options.say("clean-up", f"removed {name}, which a killed run left")
        if choice.note:
            options.say("model", choice.note)
        started = time.perf_counter()
        with open_backend(plan, choice.path) as backend:
            loading = time.perf_counter() - started
            dims, notes = resolve_dims(plan, backend.identity)
            for note in notes:
                options.say("dimensions", note)
            material = with_prompts(material, plan, backend)
            options.say("texts", material.origin)
            lineages = lineages_of(plan, dims, material, backend)
            run = _Run(out, plan, dims, material, backend, lineages, options)
            return _run_phases(run, loading)


def _require_ours(out: Path) -> None:
    """FileExistsError for a folder with something else: a run must not mix with other files."""
    if out.exists() and not out.is_dir():
        message = f"[out] expected a folder, got the file {out}"
        raise FileExistsError(message)
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if STATE not in names and any(not name.startswith(".") for name in names):
        message = f"[out] expected a new folder or one of a pipeline, got {out}; name another"
        raise FileExistsError(message)


def _run_phases(run: _Run, loading: float) -> Outcome:
    options, folder = run.options, run.folder
    state = RunState.load(folder)
    require_same_lineage(state, run.lineages, options.policy)
    require_earlier(state, run.lineages, options.phases[0])
    decision = decide(state, run.lineages, options.policy, options.phases)
    state.save()
    gates: dict[str, list[Check]] = {}
    for phase in options.phases:
        if decision.reuse[phase]:
            options.say(phase, f"used again: {decision.reasons[phase]}")
        else:
            state = _run_phase(run, phase, state)
        state, gates[phase] = _through_gate(run, phase, state)
        options.on_event(f"{phase}:done")
    reused = tuple(phase for phase in options.phases if decision.reuse[phase])
    return _finish(run, state, gates, reused, loading)


def _run_phase(run: _Run, phase: str, state: RunState) -> RunState:
    options, lineage = run.options, run.lineages[phase]
    options.on_event(f"{phase}:start")
    started = time.perf_counter()
    with phase_folder(run.folder, phase) as folder, _as_gate(phase):
        _write(run, phase, folder)
        write_lineage(folder, lineage)
    options.on_event(f"{phase}:written")
    took = time.perf_counter() - started
    state = state.with_phase(phase, lineage.to_json(), lineage.fingerprint, took)
    state.save()
    return state


@contextmanager
def _as_gate(phase: str) -> Iterator[None]:
    """A choice that finds nothing within the budget is the fit's gate closing, not a wrong flag."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        if phase != "fit" or not text.startswith("[calibrate] expected "):
            raise
        expected, _, rest = text.removeprefix("[calibrate] expected ").partition(", got ")
        found, _, remedy = rest.partition("; ")
        raise GateFailed(phase, Check("budget", False, expected, found, remedy)) from error


def _write(run: _Run, phase: str, folder: Path) -> None:
    recorded, fitted, show = run.folder / "record", run.folder / "fit", run.options.show
    plan, dims, material, backend = run.plan, run.dims, run.material, run.backend
    if phase == "record":
        run_record(folder, plan, dims, material, backend, show=show)
    elif phase == "fit":
        run_fit(folder, recorded, plan, dims, material, backend, show=show)
    elif phase == "generate":
        run_generate(folder, fitted, plan, dims, material, backend, show=show)
    elif phase == "evaluate":
        run_evaluate(folder, recorded, fitted, plan, material, backend, show=show)
    else:
        run_reverse(folder, recorded, fitted, plan, material, backend, show=show)


def _through_gate(run: _Run, phase: str, state: RunState) -> tuple[RunState, list[Check]]:
    try:
        checks = run_gate(phase, run.context())
    except GateFailed:
        state.judged(phase, False).save()
        raise
    state = state.judged(phase, True)
    state.save()
    took = state.phases[phase].seconds
    run.options.say(phase, f"{took:.1f} s, gate: {len(checks)} checks hold")
    return state, checks


def _finish(
    run: _Run,
    state: RunState,
    gates: dict[str, list[Check]],
    reused: Sequence[str],
    loading: float,
) -> Outcome:
    seconds = {"load": loading, **{name: one.seconds for name, one in state.phases.items()}}
    seconds["total"] = sum(seconds.values())
    options, rate = run.options, run.options.rate
    cost = None if rate is None else rate.cost(seconds["total"])
    done = all(state.problem(name) is None for name in PHASES)
    if not done:
        return Outcome(run.folder, state, tuple(reused), seconds, None, cost, succeeded=True)
    for phase in PHASES:
        if phase not in gates:  # of an earlier call, whose results this one rests on
            gates[phase] = run_gate(phase, run.context())
    identity = run.backend.identity
    found = report.build_report(
        run.folder,
        run.plan,
        run.dims,
        run.material,
        identity,
        run.lineages,
        {name: gates[name] for name in PHASES},
    )
    write_json(run.folder / report.FILE, found)
    succeeded = not (options.require_effect and found["verdict"] == "no effect")
    _write_manifest(run, seconds)
    if succeeded:
        _log(run, found, seconds["total"])
    return Outcome(run.folder, state, tuple(reused), seconds, found, cost, succeeded)


def _write_manifest(run: _Run, seconds: dict[str, float]) -> None:
    if run.options.manifest is not None:
        run.options.manifest(run.folder, seconds)
        return
    plan = run.plan
    manifest = build_manifest(
        "pipeline",
        run.folder,
        settings=plan.to_json(),
        seconds=seconds,
        models={run.backend.name: run.backend.identity.to_json()},
        seeds={"seed": plan.chosen_seed},
        device=plan.device,
        dtype=plan.dtype,
        threads=plan.threads,
        unhashed=UNHASHED,
    )
    write_json(run.folder / "manifest.json", manifest)


def _log(run: _Run, found: dict[str, Any], seconds: float) -> None:
    rate = run.options.rate
    path = run.options.log or run.folder.absolute().parent / experiment_log.FILE
    plan = run.plan
    entry = experiment_log.Entry(
        title=f"preset {plan.preset}: {found['verdict']}",
        run=run.folder.name,
        config={
            "model": run.backend.identity.name,
            "backend": plan.backend,
            "method": plan.method,
            **found["fit"]["settings"],
            "seed": plan.chosen_seed,
            "pairs": len(run.material.fit),
            "lineage": found["lineage"]["reverse"],
        },
        metrics=found["metrics"],
        seconds=seconds,
        cost=None if rate is None else rate.words(seconds),
    )
    experiment_log.append(path, entry)
    run.options.say("log", str(path))
