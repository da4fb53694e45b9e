"""Study files and their trials (rows Q55 and P21)."""

from __future__ import annotations

import csv
import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests._pipeline import SETTINGS, evaluation, opener, plan

from cogit.cli.main import main
from cogit.errors import ArtefactError, BackendMissingError, MemoryRefusedError
from cogit.pipeline import evaluate_phase, study
from cogit.pipeline.runner import Options
from cogit.pipeline.study import run_study
from cogit.pipeline.study_file import load_study
from cogit.pipeline.trials import FILE, Trials

TOML = """
name = "both"
[base]
preset = "tiny"
max-tokens = 8
[[experiment]]
name = "plane"
[experiment.sweep]
strength = [0.5, 1.0]
[[experiment]]
name = "trained"
method = "born-adam"
[experiment.sweep]
decode = ["real_component", "real_imag_avg"]
[sweep]
seed = [1, 2]
"""


def written(tmp_path: Path, text: str, name: str = "study.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_experiment_and_sweep_has_its_effect(tmp_path: Path) -> None:
    """Row Q55: blend and decode sweeps reach the plans; the source read top-level keys only."""
    trials = load_study(written(tmp_path, TOML))
    assert len(trials) == 2 * 2 + 2 * 2
    assert len({trial.key for trial in trials}) == 8
    assert [trial.plan.strength for trial in trials[:4]] == [0.5, 1.0, 0.5, 1.0]
    assert [trial.plan.seed for trial in trials[:4]] == [1, 1, 2, 2]
    assert {trial.plan.decode for trial in trials[4:]} == {"real_component", "real_imag_avg"}
    assert all(trial.plan.max_tokens == 8 for trial in trials)
    assert trials[0].name == "plane: seed 1, strength 0.5"
    same = {
        "base": {"preset": "tiny"},
        "sweep": {"strengths": [[0.5], [1.0, 2.0]]},
    }
    found = load_study(written(tmp_path, json.dumps(same), "study.json"))
    assert [trial.plan.strengths for trial in found] == [(0.5,), (1.0, 2.0)]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[bass]\n", "'bass'; did you mean base"),
        ("[base]\ntemprature = 1\n", "did you mean temperature"),
        ("[sweep]\nstrenght = [1]\n", "did you mean strength"),
        ("[sweep]\nstrength = 1\n", "a list of values for sweep.strength"),
        ("[sweep]\nstrength = []\n", "a list of values"),
        ("[[experiment]]\nmethod = 'magic'\n", "experiment 'experiment 1': .* method"),
        ("[[experiment]]\nname = 3\n", "a name for experiment 1"),
        ("[sweep]\nseed = [1, 1]\n", "different trials"),
        ("[sweep]\nseed = [" + ",".join(map(str, range(1001))) + "]\n", "at most 1000"),
        (
            "[sweep]\n"
            + "".join(f"{n} = {list(range(1, 901))}\n" for n in ("seed", "q", "k", "tail")),
            "at most 1000",
        ),
        ("experiment = 3\n", "tables"),
        ("base = [\n", "expected TOML"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)^\[(study|pipeline)\].*{part}"):
        load_study(written(tmp_path, text))


class Killed(BaseException):
    """As a signal: nothing handles it."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A pipeline that finishes at once, fails at strength 9 and is killed at 7 the first time."""
    calls: list[str] = []

    def run_pipeline(one: Any, out: Path, open_backend: Any, options: Options) -> Any:
        calls.append(out.name)
        if one.strength == 9.0:
            message = "[fit] expected less"
            raise ValueError(message)
        if one.strength == 7.0 and calls.count(out.name) == 1:
            raise Killed
        assert options.policy.resume

        metrics = {"verdict": "effect", "lift_pp": one.strength, "kl": 0.01}
        return SimpleNamespace(report={"metrics": metrics}, seconds={"total": 2.0})

    monkeypatch.setattr(study, "run_pipeline", run_pipeline)
    return calls


def test_a_killed_study_goes_on_and_loses_nothing(tmp_path: Path, quick: list[str]) -> None:
    """Row P21: finished trials are kept and not run again; the killed one is; the best is named."""
    text = "[sweep]\nstrength = [5, 9, 7, 6]\n"
    trials, out = load_study(written(tmp_path, text)), tmp_path / "out"
    with pytest.raises(Killed):
        run_study(trials, out, opener)
    assert [row.status for row in Trials(out).rows()] == ["done", "failed", "running", "waiting"]
    result = run_study(trials, out, opener)
    assert [row.status for row in result.rows] == ["done", "failed", "done", "done"]
    assert quick == ["trial-001", "trial-002", "trial-003", "trial-002", "trial-003", "trial-004"]
    assert (result.best, result.failed) == (3, 1)
    # Another file: what is there stays, what is new is added.
    more = load_study(written(tmp_path, "[sweep]\nstrength = [8, 6]\n"))
    result = run_study(more, out, opener)
    assert [row.metrics.get("lift_pp") for row in result.rows] == [5, None, 7, 6, 8]
    rows = list(csv.DictReader((out / "summary.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["verdict"] for row in rows] == ["effect", "", "effect", "effect", "effect"]
    assert rows[1]["error"] == "[fit] expected less"
    data = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert (data["best"], data["trials"][4]["kl"]) == (5, 0.01)
    assert (out / "summary.md").read_text(encoding="utf-8").count("\n") == 7


def test_tables_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no table" * 1000)
    with pytest.raises(ArtefactError, match=r"^\[study\]"):
        Trials(tmp_path)
    (tmp_path / FILE).unlink()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ArtefactError, match="version 1, got 99"):
        Trials(tmp_path)
    (tmp_path / FILE).rename(tmp_path / "other")
    with pytest.raises(FileExistsError, match=r"^\[out\]"):
        run_study([], tmp_path, opener)


def test_a_name_is_no_formula_in_a_spreadsheet(tmp_path: Path, quick: list[str]) -> None:
    trials = load_study(written(tmp_path, "[[experiment]]\nname = '=1+1|x'\nstrength = 1.0\n"))
    run_study(trials, tmp_path / "out", opener)
    assert "'=1+1|x" in (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8")
    assert "=1+1\\|x" in (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")


def test_a_study_runs_the_pipeline(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row Q55: two experiments, two verdicts, two entries in the log."""
    monkeypatch.setattr(evaluate_phase, "evaluation", evaluation)
    data = {"base": {**plan().to_json(), **SETTINGS}, "sweep": {"strength": [0.75, 1.0]}}
    path = written(tmp_path, json.dumps(data), "study.json")
    trials = load_study(path)
    result = run_study(trials, tmp_path / "out", opener, Options(show=False))
    assert [(row.status, row.error) for row in result.rows] == [("done", None)] * 2
    lifts = [row.metrics["lift_pp"] for row in result.rows]
    assert lifts == [30.0, 40.0]
    log = (tmp_path / "EXPERIMENT_LOG.md").read_text(encoding="utf-8")
    assert log.count("\n## ") == 2
    capfd.readouterr()
    # All finished: the command only summarises.
    assert main(["study", str(path), "--out", str(tmp_path / "out"), "--json"]) == 0
    assert [one["lift_pp"] for one in json.loads(capfd.readouterr().out)["trials"]] == lifts


@pytest.mark.parametrize("kind", [MemoryRefusedError, BackendMissingError])
def test_a_trial_that_cannot_be_run_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def run_pipeline(*_: Any) -> Any:
        message = "[memory] expected more"
        raise kind(message)

    monkeypatch.setattr(study, "run_pipeline", run_pipeline)
    trials = load_study(written(tmp_path, "[sweep]\nstrength = [1.0, 2.0]\n"))
    found = run_study(trials, tmp_path / "out", opener)
    assert [row.status for row in found.rows] == ["failed", "failed"]


def test_changed_texts_are_another_trial(tmp_path: Path, quick: list[str]) -> None:
    """A result on the old texts is not taken for one on the new ones; the same texts run once."""
    prompts = tmp_path / "prompts.txt"
    file = written(tmp_path, f"[base]\nprompts = {json.dumps(str(prompts))}\nstrength = 1.0\n")
    for text in ("one\n", "one\n", "two\n"):
        prompts.write_text(text, encoding="utf-8")
        found = run_study(load_study(file), tmp_path / "out", opener)
    assert quick == ["trial-001", "trial-002"]
    assert [row.status for row in found.rows] == ["done", "done"]
