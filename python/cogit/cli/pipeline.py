"""``cogit pipeline``: record, fit, generate, evaluate and reverse, each behind a gate."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogit.cli import pipeline_flags
from cogit.cli.console import print_json, say
from cogit.cli.loading import BackendChoice, Dtype, Runtime, open_model
from cogit.cli.memory_flags import CheckMemory
from cogit.cli.outputs import Inputs, require_apart
from cogit.cli.run_record import RunRecord, begin

if TYPE_CHECKING:
    from cogit.backends import Backend
    from cogit.pipeline.plan import Plan
    from cogit.pipeline.runner import Options, Outcome

NAME = "pipeline"
FAILED = 1
_PARALLEL, _CONTEXT = 16, 512


def command(
    out: Annotated[Path, typer.Option(help="Folder of this run; one of an earlier run goes on.")],
    preset: Annotated[str, typer.Option(help="Named setting, see cogit presets.")] = "tiny",
    model: pipeline_flags.Model = None,
    backend: pipeline_flags.Backend = BackendChoice.transformers,
    pairs: pipeline_flags.Pairs = None,
    prompts: pipeline_flags.Prompts = None,
    neutral: Annotated[str | None, typer.Option(help="Texts to leave alone, one a line.")] = None,
    judge: pipeline_flags.Judge = None,
    method: pipeline_flags.Method = "plane",
    layers: pipeline_flags.Layers = None,
    preset_layers: pipeline_flags.PresetLayers = False,
    q: pipeline_flags.Q = None,
    epochs: pipeline_flags.Epochs = None,
    prompts_per_class: pipeline_flags.PromptsPerClass = None,
    strength: pipeline_flags.Strength = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a continuation.")] = 25,
    temperature: Annotated[float, typer.Option(help="Of sampling; 0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Tokens to sample from; 0 is all.")] = 50,
    test_prompts: Annotated[int, typer.Option(help="Most prompts to evaluate on.")] = 48,
    seed: Annotated[int | None, typer.Option(show_default="the preset's, 42")] = None,
    device: Annotated[str, typer.Option(help="Device of transformers.")] = "auto",
    dtype: Annotated[Dtype, typer.Option(help="Precision of transformers.")] = Dtype.f32,
    threads: pipeline_flags.Threads = None,
    phases: pipeline_flags.Phases = "record,fit,generate,evaluate,reverse",
    rate: pipeline_flags.Rate = None,
    log: pipeline_flags.Log = None,
    require_effect: pipeline_flags.RequireEffect = False,
    resume: pipeline_flags.Resume = False,
    yes: pipeline_flags.Yes = False,
    memory_check: CheckMemory = True,
    force: pipeline_flags.Force = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Record, fit, generate, evaluate and reverse; a gate after each phase stops on failure.

    Exit code 0 with the verdict, also "no effect"; 1 where a gate fails.
    """
    from cogit.pipeline.cost import Rate
    from cogit.pipeline.freshness import Policy
    from cogit.pipeline.gates import GateFailed
    from cogit.pipeline.plan import Plan
    from cogit.pipeline.runner import Options, run_pipeline

    given = dict(locals())
    names = (
        *("preset", "model", "prompts", "neutral", "judge", "method", "layers", "preset_layers"),
        *("q", "epochs", "prompts_per_class", "strength", "max_tokens", "temperature", "top_k"),
        *("test_prompts", "seed", "device", "threads"),
    )
    plan = Plan(
        **{name: given[name] for name in names},
        backend=backend.value,
        dtype=dtype.value,
        pairs=tuple(pairs or ()),
    )
    _require_one_policy(resume, yes, force)
    inputs = _inputs(judge, pairs=pairs or [], prompts=prompts, neutral=neutral, model=model)
    require_apart({"out": out, "log": log}, inputs)
    recorded = begin({"out": out, "log": log}, inputs, force=True, folder=True)
    options = Options(
        policy=Policy(resume=resume, yes=yes, force=force, ask=_asking()),
        phases=tuple(part.strip() for part in phases.split(",")),
        rate=None if rate is None else Rate(rate),
        log=log,
        require_effect=require_effect,
        show=not json_output,
        say=say,
        manifest=lambda folder, seconds: _manifest(recorded, folder, seconds),
    )
    try:
        outcome = run_pipeline(
            plan, out, partial(opener, assume_yes=yes, check_memory=memory_check), options
        )
    except GateFailed as error:
        say("stopped", str(error))
        raise typer.Exit(FAILED) from None
    _conclude(outcome, options, json_output=json_output)


def _inputs(judge: str | None, **read: str | list[str] | None) -> Inputs:
    """What is read, by flag; of a judge the file or folder that it names."""
    from cogit.evaluation.judges.spec import judge_place

    return {**read, "judge": judge_place(judge)}


def _require_one_policy(*given: bool) -> None:
    if given.count(True) > 1:
        message = "[pipeline] expected one of --resume, --yes and --force, got several"
        raise ValueError(message)


def _conclude(outcome: Outcome, options: Options, *, json_output: bool) -> None:
    if json_output:
        print_json(outcome.to_json())
    else:
        print_outcome(outcome, options.rate)
    if not outcome.succeeded:
        say("stopped", "an effect was required, and the verdict is no effect")
        raise typer.Exit(FAILED)


def _manifest(recorded: RunRecord, folder: Path, seconds: dict[str, float]) -> None:
    """The run's manifest with the seconds of each phase, also of those that were used again."""
    from cogit.pipeline.runner import UNHASHED

    recorded.seconds |= {name: took for name, took in seconds.items() if name != "total"}
    recorded.finish_folder(folder, unhashed=UNHASHED)


def opener(
    plan: Plan, path: str, *, assume_yes: bool = False, check_memory: bool = True
) -> Backend:
    """The model of a plan; generation in small batches on llamacpp.

    assume_yes, check_memory: see `Runtime`.
    """
    many = plan.backend == BackendChoice.llamacpp.value
    runtime = Runtime(
        device=plan.device,
        dtype=Dtype(plan.dtype),
        threads=plan.threads,
        n_ctx=_CONTEXT if many else None,
        n_parallel=_PARALLEL if many else 1,
        assume_yes=assume_yes,
        check_memory=check_memory,
    )
    say("model", f"{Path(path).name if Path(path).exists() else path}, {plan.backend}")
    return open_model(BackendChoice(plan.backend), path, runtime)


def _asking() -> Any:
    """A question at a terminal, else None: a run without one never waits."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda text: typer.confirm(f"{text} them again?", default=True, err=True)


def print_outcome(outcome: Outcome, rate: Any) -> None:
    """A table of phases, the figures, the verdict."""
    print(f"{'phase':<10}{'seconds':>9}  {'lineage':<9} {'gate':<6} ")
    for name, one in outcome.state.phases.items():
        passed = {True: "passed", False: "failed", None: "-"}[one.gate]
        again = "used again" if name in outcome.reused else ""
        print(f"{name:<10}{one.seconds:>9.1f}  {one.fingerprint:<9} {passed:<7}{again}".rstrip())
    print(f"{'total':<10}{outcome.seconds['total']:>9.1f}")
    if rate is not None:
        print(f"{'cost':<10} {rate.words(outcome.seconds['total'])}")
    if outcome.report is None:
        print("not all phases are finished: no report yet")
        return
    found = outcome.report["metrics"]
    print(f"{'operator':<10} {outcome.report['fit']['intervention']}")
    if found["lift_pp"] is not None:
        print(
            f"{'lift':<10} {found['lift_pp']:+.1f} [{_number(found['lift_low'])}, "
            f"{_number(found['lift_high'])}] points; KL {_number(found['kl'])} nats a token, "
            f"perplexity x{_number(found['perplexity_ratio'])}"
        )
    for reason in outcome.report["reasons"]:
        print(f"{'':<10} {reason}")
    print(f"verdict: {outcome.report['verdict']}")
    say("run folder", str(outcome.folder))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
