"""cogit fit: what it refuses before a model is loaded, what lineage says, what it judges on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from _plants import Plant, planted_states
from cogit import autofit
from cogit.activations import Activations
from cogit.cli import fit_run
from cogit.cli.fit_report import print_facts
from cogit.cli.main import main
from cogit.demo import grammar
from cogit.evaluation.teacher_forced import TeacherForced
from cogit.evaluation.undo_ways import undo_ways
from cogit.intervention import Intervention
from cogit.operators import Additive, Unitary, fit_operator
from cogit.pairs import load_pairs
from cogit.subspace import fit_subspace
from cogit.training.flips import flip_report, split_activations

STATES = planted_states(Plant(16, 4.0, 1))
COMMON = ["--threads", "1", "--json"]


def fit(capfd: pytest.CaptureFixture[str], out: Path, *arguments: str) -> dict[str, Any]:
    capfd.readouterr()
    code = main(["fit", "--out", str(out), *arguments, *COMMON])
    printed, said = capfd.readouterr()
    assert code == 0, said
    facts: dict[str, Any] = json.loads(printed)
    return facts


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """The flags of a user's pairs and neutral texts."""
    rows = [
        json.dumps({"positive": pair.positive, "negative": pair.negative})
        for pair in grammar.contrast_pairs(16, 0, "train")
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "neutral.txt").write_text("\n".join(grammar.facts(9, 0, "train")), encoding="utf-8")
    flags = ["--pairs", str(tmp_path / "pairs.jsonl"), "--neutral", str(tmp_path / "neutral.txt")]
    return [*flags, "--layer", "2"]


# ---- refusals ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--pairs a --auto --lambda 2", "no --lambda with --auto"),
        ("--pairs a --auto --angle 30 --gain 2", "no --angle and no --gain with --auto"),
        ("--pairs a --layer 1 --method direct --angle 60", "no --angle with --method direct"),
        ("--pairs a --layer 1 --method procrustes --angle 9", "no --angle with --method procr"),
        ("--pairs a --layer 1 --method born-adam --gain 2 --k 2", "no --gain and no --k with"),
        ("--pairs a --layer 1 --operator additive --method plane", "no --method with --operator"),
        ("--pairs a --layer 1 --operator ablation --gain 1", "no --gain with --operator ablation"),
        ("--activations a --tail 4", "no --tail with --activations"),
        ("--subspace a --k 4 --tail 2", "no --k and no --tail with --subspace"),
        ("--activations a --kl-budget 1", "no --kl-budget without --pairs"),
        ("--activations a --neutral n.txt", "no --neutral without a model"),
        ("--pairs a", "[layers] expected --layer L, or --auto to choose one"),
        ("--pairs a --method born-adam", "[layers] expected --layer L"),
        ("--pairs a --auto --operator ablation", "two directions with --auto, got ablation"),
        ("--pairs a --layer 1 --refine 2 --checkpoint run", "expected a folder without a checkp"),
        (
            "--pairs a --layer 1 --refine 2 --checkpoint none --resume",
            "[resume] expected a checkpoint in none, got none",
        ),
        (
            "--activations a --method born-adam --checkpoint run --resume",
            "[resume] expected a checkpoint in run, got none",
        ),
        ("--pairs a --layer 1 --lambda 0", "finite --lambda that changes something, got 0"),
        ("--pairs a --layer 1 --lambda nan", "finite --lambda that changes something, got nan"),
        ("--pairs a --layer 1 --angle nan", "[fit] expected finite angle and gain"),
        ("--pairs a --layer 1 --seed -1", "[fit] expected --seed of 0 or more, got -1"),
        ("--pairs a --layer 1 --nll-budget nan", "expected --nll-budget in nats"),
        ("--activations {states} --layer 1 --angle 0 --gain 0", "which changes nothing"),
        ("--activations {states} --layer 1 --operator additive --lambda 0", "--lambda"),
        ("--subspace {subspace} --angle 0", "which changes nothing"),
    ],
)
def test_flags_without_effect_are_refused_by_name(
    arguments: str,
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one line, before a model is opened, and nothing is written."""

    def opened(*_: Any) -> None:
        pytest.fail("a model was opened")

    monkeypatch.setattr(fit_run, "open_model", opened)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"kept")
    paths = {
        "states": STATES.save(tmp_path / "states.safetensors"),
        "subspace": fit_subspace(STATES, 1).save(tmp_path / "subspace.safetensors"),
    }
    assert main(["fit", "--out", "out.safetensors", *arguments.format(**paths).split()]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.splitlines()[-1].startswith("error: ")
    assert words in err.splitlines()[-1]
    assert not (tmp_path / "out.safetensors").exists()
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == b"kept"


# ---- lineage ----


def test_lineage_of_a_subspace_is_its_own(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    subspace = fit_subspace(STATES, 1, k=2)
    path = subspace.save(tmp_path / "subspace.safetensors")
    fit(capfd, tmp_path / "a.safetensors", "--subspace", str(path))
    lineage = Intervention.load(tmp_path / "a.safetensors").lineage
    assert lineage["fit"]["k"] == 2
    assert "tail" not in lineage
    assert lineage["hook_point"] == "resid_post"
    assert lineage["subspace"] == json.loads(json.dumps(dict(subspace.lineage)))
    assert lineage["subspace_hash"] == subspace.content_hash
    assert lineage["activations"] == subspace.lineage["activations"]


@pytest.mark.parametrize(("select", "tail"), [("last", 1), ("tail-2", 2), ("answer", 0)])
def test_lineage_of_states_says_how_they_were_recorded(
    select: str, tail: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = replace(STATES, select=select, tail=tail).save(tmp_path / "states.safetensors")
    arguments = ["--activations", str(path), "--layer", "1", "--k", "3"]
    fit(capfd, tmp_path / "a.safetensors", *arguments)
    lineage = Intervention.load(tmp_path / "a.safetensors").lineage
    assert lineage["select"] == select
    assert lineage["hook_point"] == "resid_post"
    assert lineage["fit"]["k"] == 3
    assert lineage.get("tail") == (2 if select == "tail-2" else None)
    fit(capfd, tmp_path / "b.safetensors", *arguments, "--seed", "1")
    other = Intervention.load(tmp_path / "b.safetensors").lineage
    assert other["activations"] != lineage["activations"]  # another split was fitted on
    assert other["source_fingerprint"] == lineage["source_fingerprint"]


# ---- undo ----


def test_undo_both_ways_by_hand() -> None:
    """A step is taken back exactly by either; a rotation by its inverse alone."""
    subspace = fit_subspace(STATES, 1)
    states = STATES.at(1)
    step = undo_ways(Additive(subspace.steering_vector), *states, strength=2.0)
    for one in (step.own_inverse, step.opposite):
        assert one is not None
        assert one.ratio is not None
        assert one.ratio.mean < 1e-5  # the edit is made in float32
        assert one.n_tokens == 2 * len(states[0])
    turned = undo_ways(Unitary.fit(subspace, angle=60.0, gain=2.0), *states)
    assert turned.own_inverse is not None
    assert turned.own_inverse.ratio is not None
    assert turned.own_inverse.ratio.mean < 1e-4
    assert turned.opposite.ratio is not None
    assert turned.opposite.ratio.mean > 0.1
    gone = undo_ways(fit_operator(subspace, "ablation"), *states)
    assert gone.own_inverse is None
    assert gone.own_inverse_refused
    # The way back is another operator, at the same strength.
    back = Additive(-subspace.steering_vector)
    other = undo_ways(Additive(subspace.steering_vector), *states, strength=3.0, reverse=back)
    assert other.opposite.ratio is not None
    assert other.opposite.ratio.mean < 1e-5
    tiny = undo_ways(Additive(1e-9 * subspace.direction), *states)
    assert tiny.opposite.ratio is None
    assert "below the edit floor" in tiny.opposite.note


def test_the_undo_ratio_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On held-out states, in JSON and in words; of a subspace on its own states."""
    path = STATES.save(tmp_path / "states.safetensors")
    facts = fit(capfd, tmp_path / "a", "--activations", str(path), "--layer", "1")
    ways = facts["undo"]["1"]
    assert facts["undo_on"] == "held-out states"
    assert ways["opposite"]["n_tokens"] == 2 * facts["splits"]["held_out"]
    assert ways["own_inverse"]["ratio"]["mean"] < 1e-4 < ways["opposite"]["ratio"]["mean"]
    print_facts(facts)
    printed = capfd.readouterr().out
    assert "undo ratio, block 1" in printed
    assert "opposite" in printed
    assert "told apart with p" in printed
    subspace = fit_subspace(STATES, 1).save(tmp_path / "subspace.safetensors")
    facts = fit(capfd, tmp_path / "b", "--subspace", str(subspace))
    assert facts["undo_on"] == "states it was fitted on"
    assert set(facts["undo"]) == {"1"}


# ---- what is judged on what ----


def test_the_report_is_of_held_out_pairs(
    texts: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last scorer has the held-out pairs and the neutral texts that nothing else used."""
    seen: list[tuple[Any, Any]] = []

    class Watched(TeacherForced):
        def __init__(self, backend: Any, pairs: Any, neutral: Any) -> None:
            seen.append((tuple(pairs), tuple(neutral)))
            super().__init__(backend, pairs, neutral)

    monkeypatch.setattr(fit_run, "TeacherForced", Watched)
    fit(capfd, tmp_path / "a.safetensors", *texts, "--operator", "additive")
    split = autofit.split_pairs(load_pairs(texts[1]), 0)
    lines, _ = autofit.neutral_texts(Path(texts[3]))
    assert seen[-1] == (split.held_out, tuple(autofit.thirds(lines, 0)[2]))
    assert seen[-1][0] != split.calibration


def test_refined_operators_and_their_controls_have_one_strength(
    texts: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flips and contrast alike: that of the start, times what the refinement chose."""
    strengths: list[float] = []
    contrast = TeacherForced.contrast

    def watched(self: TeacherForced, found: Intervention, reverse: Any = None) -> Any:
        strengths.append(found.strength)
        return contrast(self, found, reverse)

    flips: list[Any] = []

    def reported(*arguments: Any, **options: Any) -> Any:
        flips.append((options["strength"], options["control_strength"]))
        return flip_report(*arguments, **options)

    monkeypatch.setattr(TeacherForced, "contrast", watched)
    monkeypatch.setattr(fit_run, "flip_report", reported)
    arguments = [*texts, "--lambda", "0.5", "--refine", "1", "--kl-budget", "1"]
    facts = fit(capfd, tmp_path / "a.safetensors", *arguments, "--nll-budget", "1")
    assert facts["strength"] != 1.0
    wanted = 0.5 * facts["strength"]
    assert facts["shuffled_fits"]["strength"] == pytest.approx(wanted)
    assert strengths[-4:] == [pytest.approx(wanted)] * 4
    assert flips == [(facts["strength"], pytest.approx(wanted))]
    print_facts(facts)
    assert "closed forms, not refined" in capfd.readouterr().out


def test_shuffled_fits_have_the_strength_that_they_are_given() -> None:
    training, unseen = split_activations(STATES, 0)
    made = Additive(fit_subspace(training, 1).steering_vector)

    def again(_: Activations) -> Additive:
        return made

    report = flip_report(
        made, again, training, unseen, 1, strength=-1.0, control_strength=2.0, draws=2
    )
    assert report.fitted.rate < 0.1
    assert report.shuffled.rate > 0.9
    same = flip_report(made, again, training, unseen, 1, strength=2.0, draws=2)
    assert same.shuffled.rate == same.fitted.rate


def test_people_read_five_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    """And the chosen one where it is not among them; JSON has all."""
    from cogit.cli.fit_report import _print_table

    rows = [{"layer": i, "contrast": float(20 - i)} for i in range(20)]
    _print_table([*rows[:2], {**rows[2], "neutral_kl": 0.1}, *rows[3:]])
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  layer")]) == 5
    assert not any("within the budget" in line for line in lines)
    _print_table([*rows[:11], {**rows[11], "neutral_kl": 0.1}, *rows[12:]])
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("  layer")]) == 5
    assert any(line.startswith("  number 12 is the first within the budget") for line in lines)
