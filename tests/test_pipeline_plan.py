"""Plans, dimensions, texts, costs and records of the pipeline; nothing here loads a model."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests._pipeline import plan

from cogit.cli.main import main
from cogit.identity import ModelIdentity
from cogit.pipeline import experiment_log
from cogit.pipeline.cost import Rate
from cogit.pipeline.decision_log import SECTIONS, create_decision
from cogit.pipeline.dims import Dims, resolve_dims, same_depth
from cogit.pipeline.material import load_material, model_of
from cogit.pipeline.plan import METHODS, Plan
from cogit.presets import PRESETS


def identity(d_model: int, n_layers: int) -> ModelIdentity:
    return ModelIdentity("m", "llama", n_layers, d_model, 100, "f" * 32)


def test_every_preset_makes_a_plan() -> None:
    """Row Q1: every name serves; another lists all; no device is pinned (row Q3)."""
    for name in PRESETS:
        made = Plan(preset=name)
        assert made.device == "auto"
        assert made.n_pairs == PRESETS[name].prompts_per_class
        assert 0 <= max(PRESETS[name].layers) < PRESETS[name].n_layers
    with pytest.raises(ValueError, match=r"tiny, local, .*qwen_remote_q8; got 'huge'"):
        Plan(preset="huge")


def test_methods_are_those_of_the_fit() -> None:
    from cogit import autofit

    assert set(METHODS) == set(autofit.METHODS)


def test_plan_survives_json_and_names_the_nearest_key() -> None:
    """Row Q55: unknown keys are refused with the nearest names."""
    made = plan(strengths=[1, 2.5])
    assert Plan.from_json(json.loads(json.dumps(made.to_json()))) == made
    assert made.strengths == (1.0, 2.5)
    with pytest.raises(ValueError, match="'blend-ratio'"):
        Plan.from_json({"blend-ratio": 1})
    with pytest.raises(ValueError, match="did you mean max_tokens"):
        Plan.from_json({"max-token": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "magic"},
        {"temperature": float("nan")},
        {"temperature": -1},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"max_tokens": "8"},
        {"q": 5},
        {"epochs": 5},
        {"decode": "real_imag_avg"},
        {"method": "born-adam", "gain": 2.0},
        {"strength": 0.0},
        {"strengths": [1.0, -1.0]},
        {"layers": "9-2"},
        {"layers": "3", "preset_layers": True},
        {"eval_seeds": [1, 1]},
        {"seed": -1},
        {"min_fidelity": 1.0},
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^\[(pipeline|layers)\] expected"):
        Plan(**wrong)


def test_width_is_the_models_and_q_keeps_its_ratio() -> None:
    """Row Q2: d is fixed, q follows the ratio, and both are said."""
    base = PRESETS["local"]
    dims, notes = resolve_dims(Plan(preset="local"), identity(128, 6))
    assert (dims.d_model, dims.n_layers, dims.layers) == (128, 6, tuple(range(6)))
    assert dims.q == round(base.q / base.d_model * 128)
    assert dims.ratio == pytest.approx(2.604, abs=0.01)
    assert "d_model is 128" in notes[0]
    assert "q is 333" in notes[1]
    dims, notes = resolve_dims(Plan(preset="local"), identity(768, 12))
    assert (dims.q, notes) == (2000, [])
    given = Plan(preset="local", method="born-adam", q=70, epochs=1)
    assert resolve_dims(given, identity(128, 6))[0].q == 70
    assert Dims.from_json(dims.to_json()) == dims


def test_preset_layers_keep_their_relative_depth() -> None:
    """Row Q2, row Q58: block 31 of 36 lies where block 70 of 80 does."""
    made = Plan(preset="qwen_local", preset_layers=True)
    assert resolve_dims(made, identity(2048, 36))[0].layers == (31,)
    dims, notes = resolve_dims(made, identity(8192, 80))
    assert dims.layers == (70,)
    assert notes[-1].endswith("at the same relative depth")
    # The middle of a block lies within the block it is mapped to.
    for n_from, n_to in ((12, 6), (36, 80), (28, 28), (5, 3)):
        for block in range(n_from):
            found = same_depth(block, n_from, n_to)
            assert found / n_to <= (block + 0.5) / n_from < (found + 1) / n_to
    sweep = Plan(preset="qwen_test_layers", preset_layers=True)
    assert resolve_dims(sweep, identity(64, 4))[0].layers == (2, 3)
    # The trained method goes by the preset's blocks anyway; everything else tries all.
    assert resolve_dims(Plan(method="born-adam"), identity(64, 6))[0].layers == (3,)
    with pytest.raises(ValueError, match="not there"):
        resolve_dims(Plan(layers="7"), identity(64, 6))


def test_tiny_means_the_shipped_model_and_says_so() -> None:
    """Row Q46: no download for the tiny preset unless a model is named."""
    choice = model_of(Plan())
    assert choice.demo
    assert "would be a download" in choice.note
    assert model_of(Plan(model=choice.path)).demo
    assert model_of(Plan(model="gpt2")).path == "gpt2"
    other = model_of(Plan(preset="pythia_410m"))
    assert (other.path, other.demo) == ("EleutherAI/pythia-410m", False)


def test_texts_of_the_demo_share_nothing(tmp_path: Path) -> None:
    """ "What those systems got wrong", 5: what judges is never what was learned from."""
    made = plan()
    found = load_material(made, demo=True)
    assert len(found.fit) == 10
    assert found.judge == "demo"
    assert len(set(found.prompts) & set(found.calibration_prompts)) == 0
    assert len(set(found.neutral_prompts) & {*found.reporting, *found.checking}) == 0
    other = load_material(dataclasses.replace(made, seed=7), demo=True)
    assert other.pairs_hash() != found.pairs_hash()
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"positive": "a", "negative": "b"}\n' * 3, encoding="utf-8")
    with pytest.raises(ValueError, match="expected --judge with --pairs"):
        load_material(plan(pairs=(str(pairs),)), demo=True)
    both = tmp_path / "prompts.txt"
    both.write_text("one\ntwo\n", encoding="utf-8")
    with pytest.raises(ValueError, match="at least 6"):
        load_material(plan(prompts=str(both)), demo=True)


def test_cost_is_hours_times_rate() -> None:
    """Row Q36: any rate, by hand: half an hour at 1.5 is 0.75."""
    assert Rate(1.5).cost(1800) == 0.75
    assert Rate(1.5).words(1800) == "$0.7500 (30.00 min at $1.5 an hour)"
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^\[rate\]"):
            Rate(wrong)


def entry(**changes: Any) -> experiment_log.Entry:
    facts = {"title": "t", "run": "r", "config": {"a": 1}, "metrics": {"b": 0.25, "c": None}}
    return experiment_log.Entry(**{**facts, "seconds": 2.0, **changes})


def test_log_is_only_appended_to(tmp_path: Path) -> None:
    """Row Q37: two entries, the first untouched; a value cannot forge an entry."""
    path = tmp_path / "EXPERIMENT_LOG.md"
    experiment_log.append(path, entry())
    first = path.read_text(encoding="utf-8")
    experiment_log.append(path, entry(title="x\n\n## forged", cost="$1"))
    text = path.read_text(encoding="utf-8")
    assert text.startswith(first)
    assert sum(line.startswith("## ") for line in text.splitlines()) == 2
    assert "- config: a 1\n- metrics: b 0.25\n" in first
    assert "- cost: no rate given" in first
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"."):
        experiment_log.append(path, entry())


def test_log_names_the_commit_or_the_version(tmp_path: Path) -> None:
    """Row Q37."""
    assert experiment_log.commit(tmp_path).startswith("none, cogit ")
    where = Path(__file__).parent
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        assert experiment_log.commit(where) == done.stdout.strip()


def test_decision_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Row Q38: the command makes it, with all nine headings, and never over another."""
    folder = tmp_path / "decisions"
    assert main(["log", "decision", "Which rate?", "--folder", str(folder)]) == 0
    path = folder / "0001-which-rate.md"
    assert capsys.readouterr().out.strip() == str(path)
    text = path.read_text(encoding="utf-8")
    found = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert found == list(SECTIONS)
    asked = "problem, analysis, options, decision, reasoning, tradeoffs, debt, validation, future"
    assert ", ".join(found).lower() == asked
    assert create_decision(folder, "Which rate?").name == "0002-which-rate.md"
    assert create_decision(folder, "../../etc/passwd").parent == folder
    for wrong in ("", "???", "x" * 121):
        with pytest.raises(ValueError, match=r"^\[log\]"):
            create_decision(folder, wrong)
