"""Whole runs of the pipeline on the demo model, and what is left when one is stopped."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests._pipeline import SETTINGS, backend, copied, plan, run

from cogit.cli.main import main
from cogit.manifest import file_hash
from cogit.pipeline import evaluate_phase
from cogit.pipeline.freshness import Policy
from cogit.pipeline.gates import GateFailed
from cogit.pipeline.plan import PHASES

RESUME = Policy(resume=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline") / "run"
    run(folder)
    return folder


def results(folder: Path) -> dict[str, str]:
    """Hashes of everything but times."""
    skipped = ("state.json", "manifest.json")
    return {
        str(path.relative_to(folder)): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skipped
    }


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_evaluation_is_a_report_with_its_pages(whole: Path) -> None:
    """What `cogit report` takes, drawn beside it."""
    from cogit.reporting import load_report

    load_report(whole / "evaluate" / "evaluation.json")
    assert "Verdict" in (whole / "evaluate" / "report.md").read_text(encoding="utf-8")
    assert (whole / "evaluate" / "report.html").stat().st_size > 10_000


def test_report_is_whole(whole: Path) -> None:
    """Rows Q30 and Q35: all five phases with their gates and seconds; both directions."""
    report, state, manifest = (
        read(whole / name) for name in ("report.json", "state.json", "manifest.json")
    )
    assert list(report["gates"]) == list(PHASES)
    assert all(check["holds"] for checks in report["gates"].values() for check in checks)
    assert report["verdict"] == "effect"
    assert {"to_positive", "to_negative"} <= report["fit"]["flips_of_both"].keys()
    assert list(state["phases"]) == list(PHASES)
    assert all(state["phases"][phase]["seconds"] >= 0 for phase in PHASES)
    assert manifest["seconds"].keys() == {"load", *PHASES, "total"}
    assert manifest["command"] == "pipeline"
    # Row D7, row Q2: the settings make the same plan again; the width is the model's.
    assert type(plan()).from_json(manifest["settings"]) == plan()
    assert manifest["seeds"] == {"seed": 42}
    assert "fit/learned.safetensors" in manifest["outputs"]
    assert manifest["unhashed"] == ["state.json"]
    assert report["dims"]["d_model"] == backend().identity.d_model


def test_continuations_have_their_schema(whole: Path) -> None:
    """Rows Q25 and Q26: with model id and fingerprint; the time is in the manifest."""
    data = read(whole / "generate" / "continuations.json")
    assert data.keys() == {"results", "config"}
    for one in data["results"]:
        assert one.keys() == {
            "prompt",
            "baseline",
            "interventions_negative",
            "interventions_positive",
        }
        assert list(one["interventions_negative"]) == ["0.5", "1", "1.5"]
        assert not one["baseline"].startswith(one["prompt"])
    config = data["config"]
    assert config["model"] == backend().identity.name
    assert config["fingerprint"] == backend().identity.fingerprint
    assert config["layers"] == [3]
    assert config["sampling"] == {
        "max_tokens": 8,
        "temperature": 0.8,
        "top_k": 50,
        "top_p": 1.0,
        "seed": 42,
        "stop_at_eos": True,
    }
    assert read(whole / "manifest.json")["created"]


def test_reverse_report_has_the_source_fields(whole: Path) -> None:
    """Rows Q28 and Q29: at most 20 states; the Frobenius norm is relative to sqrt(q)."""
    (row,) = read(whole / "report.json")["reverse"]
    trip, test = row["round_trip"], row["conjugate_test"]
    assert 1 <= len(trip["fidelities"]) <= 20
    assert trip["min"] <= trip["mean"] <= trip["max"]
    assert (trip["identity"], trip["shuffled"] < 0.999) == (pytest.approx(1.0), True)
    q = 5  # of the lifted state: four complex dimensions and the reference
    layer = read(whole / "reverse" / "reverse.json")["layers"][0]
    assert layer["unitary"]["q"] == q
    assert test["normalized_diff"] == pytest.approx(test["frobenius_norm"] / math.sqrt(q))
    assert row["unitarity_deviation"] < 1e-9
    assert 0 < row["fidelity"] <= 1
    assert row["reversibility"] == trip["mean"]
    assert row["identity_edit"] == 0.0


def test_two_runs_two_entries_and_none_for_a_failure(tmp_path: Path) -> None:
    """Row Q37, row Q36: the log lies beside the run; the cost is in it."""
    from cogit.pipeline.cost import Rate

    log = tmp_path / "EXPERIMENT_LOG.md"
    done = run(tmp_path / "run", rate=Rate(36.0))
    assert done.cost == pytest.approx(done.seconds["total"] / 100)
    assert log.read_text(encoding="utf-8").count("\n## ") == 1
    again = run(tmp_path / "run", policy=Policy(yes=True))
    assert again.reused == PHASES
    assert log.read_text(encoding="utf-8").count("\n## ") == 2
    with pytest.raises(GateFailed, match=r"gate P2 \(fit\): fidelity"):
        run(tmp_path / "other", plan(min_fidelity=0.9999))
    state = read(tmp_path / "other" / "state.json")["phases"]
    # Fail fast: the later phases were not run.
    assert {name: one["gate"] for name, one in state.items()} == {"record": True, "fit": False}
    assert not (tmp_path / "other" / "generate").exists()
    assert log.read_text(encoding="utf-8").count("\n## ") == 2


def test_nothing_within_the_budget_is_a_gate(tmp_path: Path) -> None:
    """Fail fast with one line: expected, found, remedy."""
    with pytest.raises(GateFailed) as caught:
        run(tmp_path / "run", plan(kl_budget=1e-9))
    assert str(caught.value).startswith("gate P2 (fit): budget: expected a candidate within")
    assert "found none of 1" in str(caught.value)
    assert not (tmp_path / "run" / "fit").exists()


def test_another_setting_is_refused_and_force_replaces(whole: Path, tmp_path: Path) -> None:
    """Row Q33 through the whole run, with the fields that the row names."""
    folder = copied(whole, tmp_path / "run")
    for change in ({"seed": 1}, {"prompts_per_class": 12}, {"layers": "2"}, {"dtype": "bf16"}):
        with pytest.raises(ValueError, match=r"^\[lineage\].*phase record"):
            run(folder, plan(**change), policy=RESUME)
    with pytest.raises(ValueError, match=r"^\[lineage\].*phase generate.*sampling"):
        run(folder, plan(temperature=0.7), policy=RESUME)
    assert results(folder) == results(whole)
    made = run(folder, plan(reverse_draws=2), policy=Policy(force=True))
    assert made.reused == ()
    assert results(folder) != results(whole)


def test_phases_in_parts(whole: Path, tmp_path: Path) -> None:
    """Row Q33: a later phase without the earlier is an error; in order they make the same."""
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="expected a finished phase record"):
        run(folder, phases=("fit",))
    first = run(folder, phases=("record", "fit"))
    assert first.report is None
    last = run(folder, phases=("generate", "evaluate", "reverse"))
    assert last.report is not None
    assert results(folder) == results(whole)
    for wrong in ((), ("fit", "record"), ("record", "generate"), ("train",)):
        with pytest.raises(ValueError, match="phases in a row"):
            run(folder, phases=wrong)


def test_a_run_may_move(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row Q45: in another folder, from another working folder, everything is used again."""
    folder = copied(whole, tmp_path / "deep" / "elsewhere")
    monkeypatch.chdir(tmp_path)
    done = run(Path("deep/elsewhere"), policy=RESUME)
    assert done.reused == PHASES
    assert results(folder) == results(whole)


class _Stopped(BaseException):
    """As an interrupt: nothing handles it."""


@pytest.mark.parametrize("event", [*(f"{phase}:written" for phase in PHASES), "fit:start"])
def test_stopped_anywhere_it_ends_the_same(whole: Path, tmp_path: Path, event: str) -> None:
    """Row Q30: the report after --resume is the same to the last bit."""
    folder = copied(whole, tmp_path / "run")
    phase = event.partition(":")[0]
    state = read(folder / "state.json")
    for later in PHASES[PHASES.index(phase) :]:
        shutil.rmtree(folder / later)
        del state["phases"][later]
    (folder / "report.json").unlink()
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def stop(name: str) -> None:
        if name == event:
            raise _Stopped

    with pytest.raises(_Stopped):
        run(folder, policy=RESUME, on_event=stop)
    assert not (folder / "report.json").exists()
    done = run(folder, policy=RESUME)
    assert done.reused == PHASES[: PHASES.index(phase)]
    assert results(folder) == results(whole)


_KILLED = """
import os, signal, sys
from pathlib import Path
from cogit.backends import load_backend
from cogit.pipeline import evaluate_phase, runner
from tests._pipeline import evaluation
evaluate_phase.evaluation = evaluation
from cogit.pipeline.plan import Plan
from cogit.pipeline.freshness import Policy
import torch
torch.set_num_threads(1)
def stop(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2].endswith(":inside"):
    # In the middle of the phase: its files are written, its folder has no name yet.
    write = runner.write_lineage
    def half(folder, one):
        stop(f"{one.phase}:inside")
        write(folder, one)
    runner.write_lineage = half
opener = lambda plan, path: load_backend("transformers", path, device="cpu")
options = runner.Options(show=False, policy=Policy(resume=True), on_event=stop)
runner.run_pipeline(Plan(**eval(sys.argv[3])), Path(sys.argv[1]), opener, options)
"""


def killed(folder: Path, event: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(folder), event, repr(SETTINGS)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=Path(__file__).parents[1],
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_in_a_phase_it_ends_the_same(whole: Path, tmp_path: Path) -> None:
    """As above, with a process that has no time to clean up; its lock is cleared."""
    said: list[tuple[str, str]] = []
    killed(tmp_path / "run", "fit:inside")
    assert list((tmp_path / "run").glob(".fit.*"))
    done = run(tmp_path / "run", policy=RESUME, say=lambda *line: said.append(line))
    assert done.reused == ("record",)
    assert results(tmp_path / "run") == results(whole)
    assert any(label == "lock" and "which is gone" in text for label, text in said)
    assert any(label == "clean-up" for label, _ in said)


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
def test_killed_in_each_phase_it_ends_the_same(whole: Path, tmp_path: Path, phase: str) -> None:
    for at in ("start", "inside", "written"):
        killed(tmp_path / at, f"{phase}:{at}")
        run(tmp_path / at, policy=RESUME)
        assert results(tmp_path / at) == results(whole)


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"^\[out\]"):
        run(tmp_path)
    with pytest.raises(FileExistsError, match=r"^\[out\]"):
        run(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_command_stops_with_one_line_and_1(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rows Q31 and Q46: exit 1 at a gate with one line; 2 for a wrong flag; nothing on stdout."""
    out = str(tmp_path / "run")
    flags = ["pipeline", "--out", out, "--layers", "0", "--strength", "0.01", "--phases"]
    assert main([*flags, "record,fit", "--test-prompts", "4"]) == 1
    captured = capfd.readouterr()
    assert not captured.out
    (line,) = [one for one in captured.err.splitlines() if one.startswith("stopped")]
    assert "gate P2 (fit): " in line
    assert "preset tiny runs on the shipped demo model" in captured.err
    assert main(["pipeline", "--out", out, "--preset", "huge"]) == 2
    assert "qwen_remote_q8" in capfd.readouterr().err
    assert main(["pipeline", "--out", out, "--yes", "--force"]) == 2
    assert "--resume, --yes and --force" in capfd.readouterr().err


@pytest.mark.slow
def test_tiny_takes_three_minutes_at_most(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Row Q46: the real thing, by the command, offline, with a real effect."""
    began = time.monotonic()
    assert main(["pipeline", "--out", str(tmp_path / "run"), "--json"]) == 0
    assert time.monotonic() - began < 180
    found = json.loads(capfd.readouterr().out)
    assert found["report"]["verdict"].startswith("effect")
    assert [one["gate"] for one in found["phases"]] == [True] * 5


def test_an_effect_may_be_required(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "No effect" is a result; with require_effect it is no success and has no log entry."""
    found = read(whole / "evaluate" / "evaluation.json")
    found["verdict"] = "no effect"
    monkeypatch.setattr(evaluate_phase, "evaluation", lambda *_, **__: dict(found))
    assert run(tmp_path / "one" / "run", quick=False).succeeded
    assert (tmp_path / "one" / "EXPERIMENT_LOG.md").is_file()
    done = run(tmp_path / "two" / "run", quick=False, require_effect=True)
    assert (done.succeeded, done.report is not None) == (False, True)
    assert not (tmp_path / "two" / "EXPERIMENT_LOG.md").exists()


def test_the_words_of_a_judge_are_an_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are hashed for a replay, and no output may lie over them."""
    words = tmp_path / "words.txt"
    words.write_text("good,1\n", encoding="utf-8")
    flags = ["--judge", f"lexicon:{words}", "--log", str(words)]
    assert main(["pipeline", "--out", str(tmp_path / "run"), *flags]) == 2
    assert "which is --judge too" in capsys.readouterr().err
    assert words.read_text(encoding="utf-8") == "good,1\n"


@pytest.mark.parametrize("judge", ["nosuch", "vader?x=1", "logits?yes=", "lexicon:gone.txt"])
def test_a_judge_that_cannot_be_is_refused_before_any_phase(tmp_path: Path, judge: str) -> None:
    with pytest.raises((ValueError, OSError), match=r"^\[judge"):
        run(tmp_path / "run", plan(judge=judge))
    assert not (tmp_path / "run" / "record").exists()
