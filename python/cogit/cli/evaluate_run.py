"""What ``cogit evaluate`` does: load, evaluate, write the run folder, and say it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cogit.artefact import write_bytes
from cogit.cli.console import print_json, say
from cogit.cli.evaluate_material import load_subject, load_suite
from cogit.cli.evaluate_request import Request
from cogit.cli.loading import ModelSource, display_name, open_model
from cogit.cli.run_record import begin
from cogit.evaluation.dose import strength_sweep
from cogit.evaluation.engine import Engine
from cogit.evaluation.evaluation import Evaluation, evaluate
from cogit.evaluation.judges import make_judge
from cogit.evaluation.judges.spec import judge_place
from cogit.intervention import Intervention
from cogit.reporting import write_report
from cogit.run_folder import new_run_folder

if TYPE_CHECKING:
    from cogit.backends.base import Backend
    from cogit.evaluation.judges import Judge
    from cogit.evaluation.subject import Subject
    from cogit.evaluation.suite import Suite


def execute(request: Request) -> None:
    """Do what was asked, write the run folder and print what was found."""
    request.require()
    learned = Intervention.load(request.intervention)
    source = ModelSource.choose(request.backend, request.model)
    demo = _is_demo(source, request.backend.value)
    suite = load_suite(request, demo=demo)
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    folder = request.out or Path("runs") / f"evaluate-{stamp}"
    run = begin({"out": folder}, _inputs(request, source), force=False, folder=True)
    with (
        new_run_folder(folder) as working,
        open_model(request.backend, source.path, request.runtime, **_cache(request)) as backend,
    ):
        say("model", f"{display_name(source)} ({source.origin}), {backend.name}")
        learned.identity.require_same_shape(backend.identity)
        # Before the pairs are recorded: a judge that cannot be had should show at once.
        judge = _judge(request, backend, demo=demo)
        subject = load_subject(request, backend, learned, suite, demo=demo)
        say("evaluated", learned.describe())
        found, sweep = _evaluate(request, backend, subject, suite, judge)
        _write(working, found, sweep)
        run.finish_folder(working)
    if request.json_output:
        print_json(found.to_json())
    else:
        print_evaluation(found.report)
        if sweep is not None:
            _print_sweep(sweep)
    say("run folder", str(folder))


def _judge(request: Request, backend: Backend, *, demo: bool) -> Judge:
    spec = request.judge or ("demo" if demo else "vader")
    if request.judge is None:
        say("judge", f"{spec}, as none was given")
    return make_judge(spec, backend=backend)


def _evaluate(
    request: Request, backend: Backend, subject: Subject, suite: Suite, judge: Judge
) -> tuple[Evaluation, dict[str, Any] | None]:
    settings = request.settings()
    show = not request.json_output
    found = evaluate(backend, subject, suite, judge, settings, show=show)
    if not request.sweep_strength:
        return found, None
    engine = Engine(backend, suite, judge, settings)
    return found, strength_sweep(engine, subject.learned, subject.reverse, show=show)


def _write(working: Path, found: Evaluation, sweep: Mapping[str, Any] | None) -> None:
    write_report(working, found.to_json())
    if sweep is not None:
        text = json.dumps(sweep, indent=2, allow_nan=False)
        write_bytes(working / "strength_sweep.json", text.encode())


def print_evaluation(report: Mapping[str, Any]) -> None:
    """The arms as a table, draws as their range, then every criterion and the verdict."""
    rows = [_HEADER, *_rows(report["arms"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    print()
    marks = {True: "holds", False: "FAILS", None: "-"}
    for one in report["criteria"]:
        shown = "" if one["decides"] else " (shown only)"
        print(f"  {marks[one['holds']]:<5}  {one['name']}: {one['found']}{shown}")
    print(f"\nverdict: {report['verdict']}")


_HEADER = ("arm", "success", "lift, points", "override", "perplexity", "KL", "drift")


def _rows(arms: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for arm in arms:
        groups.setdefault(arm["role"] if arm["draw"] is not None else arm["name"], []).append(arm)
    for members in groups.values():
        first = members[0]
        if first["draw"] is None:
            cells = (
                f"{100 * first['success']:.1f} %",
                _interval(first["lift_pp"]),
                _interval(first["override_pp"]),
                _number(first["perplexity_ratio"]),
                _number(first["neutral_kl"], 4),
                _interval(first["drift_pp"]),
            )
            rows.append((first["name"], *cells))
            continue
        lifts = [one["lift_pp"]["mean"] for one in members]
        spread = f"{sum(lifts) / len(lifts):+.1f} ({min(lifts):.1f} … {max(lifts):.1f})"
        success = 100 * sum(one["success"] for one in members) / len(members)
        kls = [one["neutral_kl"] for one in members if one["neutral_kl"] is not None]
        kl = _number(sum(kls) / len(kls) if kls else None, 4)
        name = f"{first['role'].replace('_', ' ')} ({len(members)})"
        rows.append((name, f"{success:.1f} %", spread, "-", "-", kl, "-"))
    return rows


def _interval(value: Mapping[str, float] | None) -> str:
    if value is None:
        return "-"
    if not any(value.values()):
        return "0 exactly"
    return f"{value['mean']:+.1f} [{value['low']:.1f}, {value['high']:.1f}]"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _print_sweep(sweep: Mapping[str, Any]) -> None:
    print("\nstrength  on the target's side  perplexity")
    for point in sweep["points"]:
        share = f"{100 * point['share_positive']:.1f} %"
        print(f"{point['strength']:8.3f}  {share:<20}  {_number(point['perplexity_ratio'])}")
    limit = sweep["coherent_up_to"]
    print("coherent at no strength" if limit is None else f"coherent up to {limit:.3g}")


def _inputs(request: Request, source: ModelSource) -> dict[str, Any]:
    """What is read, by flag."""
    names = ("intervention", "opposite", "prompts", "neutral_prompts", "neutral", "pairs")
    found: dict[str, Any] = {name.replace("_", "-"): getattr(request, name) for name in names}
    return {**found, "model": source.path, "judge": judge_place(request.judge)}


def _is_demo(source: ModelSource, backend: str) -> bool:
    from cogit.demo.assets import demo_model

    return Path(source.path).expanduser().resolve() == Path(demo_model(backend)).resolve()


def _cache(request: Request) -> dict[str, Any]:
    """Keys and values in f32, so that arms differ by what steers them and not by rounding."""
    return {"kv_type": "f32"} if request.backend.value == "llamacpp" else {}
