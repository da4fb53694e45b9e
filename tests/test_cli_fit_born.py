"""cogit fit --method born-adam: both operators, controls, checkpoints, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _plants import Plant, planted_states
from cogit.cli.main import main
from cogit.demo import grammar
from cogit.intervention import Intervention
from cogit.operators import Dense
from cogit.presets import PRESETS
from cogit.training.born_config import BornConfig
from cogit.training.born_operator import BornSettings, fit_born_operators
from cogit.training.born_pair import Polarity
from cogit.training.flips import compare_flips, split_activations

STATES = planted_states(Plant(16, 4.0, 1))
SHORT = ["--method", "born-adam", "--threads", "1", "--json"]


def fit(capfd: pytest.CaptureFixture[str], out: Path, *arguments: str) -> dict[str, Any]:
    capfd.readouterr()
    code = main(["fit", "--out", str(out), *SHORT, *arguments])
    printed, said = capfd.readouterr()
    assert code == 0, said
    facts: dict[str, Any] = json.loads(printed)
    return facts


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return STATES.save(tmp_path_factory.mktemp("born") / "states.safetensors")


# ---- the operators ----


def test_trained_operators_flip_both_ways_and_controls_turn_round() -> None:
    """Q12: planted classes; a shuffled control flips, if it does, by turning all states round."""
    training, held_out = split_activations(STATES, 0)
    settings = BornSettings(BornConfig(epochs=60), draws=2)
    made = fit_born_operators(training, 1, settings, show=False)
    assert made.towards.projection.quantum_dim == round(2.604 * 16)
    report = compare_flips((made.towards, made.back), made.shuffled, training, held_out, 1)
    assert report.fitted.rate >= 0.9
    assert report.kept.rate >= 0.9
    assert min(report.shuffled.rate, report.shuffled_kept.rate) < 0.7
    assert made.fit.polarity.verdict == "right"
    first, second = (one[0].matrix for one in made.shuffled)
    assert np.abs(first - second).max() > 1e-3
    # The way back is no negative strength of the way there.
    backwards, back = made.towards.fold(-1.0), made.back.fold(1.0)
    assert np.abs(backwards.B - back.B).max() > 0.1


def test_exact_inverse_is_the_adjoint_and_takes_half_of_the_trainings() -> None:
    settings = BornSettings(BornConfig(epochs=3), exact_inverse=True, draws=1)
    made = fit_born_operators(STATES, 1, settings, show=False)
    # complex64 parameters.
    np.testing.assert_allclose(made.back.matrix, made.towards.matrix.conj().T, atol=1e-5)
    assert list(made.fit.results) == ["negative_to_positive"]
    assert settings.trainings == 2
    assert replace(settings, exact_inverse=False).trainings == 4


@pytest.mark.parametrize("family", ["lowrank", "diagonal"])
def test_other_families(family: Any) -> None:
    settings = BornSettings(BornConfig(epochs=2, family=family), quantum_dim=8, draws=1)
    made = fit_born_operators(STATES, 1, settings, show=False)
    assert made.to_json()["dimensions_passed_by"] == 8
    assert made.towards.matrix.shape == (8, 8)


def test_settings_that_no_training_can_have() -> None:
    for wrong in ({"draws": 0}, {"ratio": 0.0}, {"ratio": float("nan")}):
        with pytest.raises(ValueError, match=r"^\[born\] expected"):
            BornSettings(**wrong)


# ---- the command ----


def test_both_ways_are_written_and_judged(
    states: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Q12: fidelity beside the identity's and the control's, polarity, and two files."""
    out, opposite = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    arguments = ["--activations", str(states), "--layer", "1", "--shuffled-fits", "2"]
    facts = fit(capfd, out, *arguments, "--out-opposite", str(opposite))
    assert facts["verdict"] == "effect"
    assert facts["settings"]["method"] == "born-adam"
    born = facts["born"]["1"]
    assert born["polarity"]["verdict"] == "right"
    for one in born["directions"].values():
        assert set(one["held_out_fidelity"]) == {"trained", "identity", "shuffled"}
        assert len(one["loss_history"]) == 100
    assert facts["flips"]["1"]["shuffled"]["n"] == 2 * 2 * 15
    there, back = Intervention.load(out), Intervention.load(opposite)
    assert facts["content_hash"] == there.content_hash != back.content_hash
    assert isinstance(there.operators[1], Dense)
    assert there.lineage["direction"] == "negative_to_positive"
    assert back.lineage["direction"] == "positive_to_negative"
    assert back.lineage["fit"]["method"] == "born-adam"
    assert back.strength == there.strength == 1.0


def test_chance_is_no_effect(
    states: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Block 0 has no contrast."""
    arguments = ["--activations", str(states), "--layer", "0", "--epochs", "30"]
    facts = fit(capfd, tmp_path / "a.safetensors", *arguments, "--shuffled-fits", "1")
    assert facts["verdict"] == "no effect"


def test_a_resumed_training_ends_as_one_without_a_break(
    states: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--activations", str(states), "--layer", "1", "--shuffled-fits", "2"]
    whole = fit(capfd, tmp_path / "a.safetensors", *arguments, "--epochs", "20")
    kept = [*arguments, "--checkpoint", str(tmp_path / "run")]
    fit(capfd, tmp_path / "b.safetensors", *kept, "--epochs", "10")
    again = fit(capfd, tmp_path / "b.safetensors", *kept, "--epochs", "20", "--resume", "--force")
    assert again["content_hash"] == whole["content_hash"]
    assert again["flips"] == whole["flips"]
    assert main(["fit", "--out", str(tmp_path / "c"), *SHORT, *kept]) == 2
    assert "expected a folder without a checkpoint" in capfd.readouterr().err


@pytest.mark.slow
def test_a_resumed_run_begins_the_blocks_that_had_not_begun(
    states: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--activations", str(states), "--layers", "0-2", "--shuffled-fits", "1"]
    arguments += ["--epochs", "10", "--q", "8"]
    whole = fit(capfd, tmp_path / "a.safetensors", *arguments)
    kept = [*arguments, "--checkpoint", str(tmp_path / "run")]
    fit(capfd, tmp_path / "b.safetensors", *kept)
    first = tmp_path / "run" / "1" / "negative_to_positive" / "born.safetensors"
    shutil.rmtree(first.parent.parent)
    again = fit(capfd, tmp_path / "c.safetensors", *kept, "--resume")
    assert again["content_hash"] == whole["content_hash"]
    assert first.exists()


def test_a_preset_gives_schedule_and_ratio(
    states: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = PRESETS["pythia_410m"]
    arguments = ["--activations", str(states), "--layer", "1", "--shuffled-fits", "1"]
    facts = fit(
        capfd, tmp_path / "a", *arguments, "--preset", chosen.name, "--epochs", "2", "--seed", "5"
    )
    assert facts["born"]["1"]["q"] == round(16 * chosen.q / chosen.d_model)
    config = facts["born"]["1"]["directions"]["negative_to_positive"]["config"]
    assert (config["batch_size"], config["epochs"], config["seed"]) == (chosen.batch_size, 2, 5)


def test_pairs_are_judged_through_the_model_both_ways(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Contrast, cost and transport are of the two operators, each at a positive strength."""
    rows = [
        json.dumps({"positive": pair.positive, "negative": pair.negative})
        for pair in grammar.contrast_pairs(32, 0, "train")
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "neutral.txt").write_text("\n".join(grammar.facts(9, 0, "train")), encoding="utf-8")
    arguments = ["--pairs", str(tmp_path / "pairs.jsonl"), "--layer", "2", "--q", "64"]
    arguments += ["--neutral", str(tmp_path / "neutral.txt"), "--epochs", "20"]
    facts = fit(capfd, tmp_path / "a.safetensors", *arguments, "--shuffled-fits", "2")
    assert len(facts["shuffled_contrast"]) == 2
    assert facts["neutral_kl"] > 0
    assert facts["transport"]["2"]["mean"] > 0
    assert facts["verdict"] in {"effect", "effect beyond the budget", "no effect"}
    code = main(["fit", "--out", str(tmp_path / "b"), *SHORT[:-1], *arguments, "--exact-inverse"])
    printed, said = capfd.readouterr()
    assert code == 0
    assert "64 dimensions pass by unsteered" in said
    for words in ("(no success)", "polarity, block 2", "not written; --out-opposite", "verdict:"):
        assert words in printed


@pytest.mark.parametrize(
    ("own", "other", "words"),
    [((0.0, 0.0), (0.5, 0.5), "SWAPPED"), ((0.0, 0.0), (0.0, 0.0), "UNCLEAR")],
)
def test_a_polarity_that_is_not_right_is_said_plainly(
    own: tuple[float, float],
    other: tuple[float, float],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from cogit.cli.fit_born import print_born

    found = Polarity(own, other, (0.1, 0.1), 0.1)
    print_born({"2": {"directions": {}, "polarity": found.to_json()}}, None)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--auto", "--pairs", "a"], "expected --method born-adam with --layer"),
        (["--pairs", "a", "--refine", "2"], "expected --method born-adam with --layer"),
        (["--subspace", "a"], "expected --method born-adam with --layer"),
        (["--activations", "a", "--preset", "huge"], "[presets] expected one of"),
        (["--activations", "a", "--epochs", "0"], "expected epochs above 0"),
        (["--activations", "a", "--shuffled-fits", "0"], "at least one shuffled control"),
        (["--activations", "{states}", "--layer", "1", "--q", "0"], "quantum_dim"),
        (["--activations", "a", "--resume"], "expected --resume with --checkpoint"),
        (["--activations", "a", "--out-opposite", "nowhere/b"], "expected an existing folder"),
        (
            ["--activations", "a", "--out-opposite", "./out.safetensors"],
            "[out-opposite] expected a place of its own",
        ),
        (["--activations", "a", "--method", "plane", "--epochs", "3"], "--epochs with --method"),
        (["--activations", "a", "--operator", "additive", "--q", "8"], "--q with --method"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: str,
    states: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    filled = [one.format(states=states) for one in arguments]
    assert main(["fit", "--out", "out.safetensors", *SHORT, *filled]) == 2
    printed, said = capfd.readouterr()
    assert not printed
    assert said.splitlines()[-1].startswith("error: ")
    assert words in said.splitlines()[-1]
    assert not (tmp_path / "out.safetensors").exists()
