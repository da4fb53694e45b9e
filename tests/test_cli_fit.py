"""cogit fit: from pairs, states and a subspace; controls and cost beside the effect."""

from __future__ import annotations

import csv
import itertools
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from _plants import PLANTS, planted_states
from cogit.activations import record
from cogit.backends.transformers import TransformersBackend
from cogit.cli.main import main
from cogit.demo import grammar
from cogit.demo.assets import demo_model
from cogit.intervention import Intervention
from cogit.subspace import fit_subspace

COMMON = ["--threads", "1", "--json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs and neutral texts as a user has them, and the demo model's states of some."""
    root = tmp_path_factory.mktemp("fit")
    rows = [
        json.dumps({"positive": pair.positive, "negative": pair.negative})
        for pair in grammar.contrast_pairs(48, 0, "train")
    ]
    (root / "pairs.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (root / "neutral.txt").write_text("\n".join(grammar.facts(36, 0, "train")), encoding="utf-8")
    with TransformersBackend.load(demo_model("transformers")) as backend:
        pairs = grammar.contrast_pairs(32, 1, "train")
        record(backend, pairs, show_progress=False).save(root / "states.safetensors")
    return root


def fit(
    folder: Path, capfd: pytest.CaptureFixture[str], out: Path, *arguments: str
) -> tuple[dict[str, Any], str]:
    """The JSON that a call printed, and what it said beside it."""
    capfd.readouterr()
    code = main(["fit", "--out", str(out), *arguments, *COMMON])
    printed, said = capfd.readouterr()
    assert code == 0, said
    facts: dict[str, Any] = json.loads(printed)
    return facts, said


def pairs(folder: Path) -> list[str]:
    return ["--pairs", str(folder / "pairs.jsonl"), "--neutral", str(folder / "neutral.txt")]


def test_pairs_with_automatic_choice(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The demo model is steered, within the budget, and shuffled classes are not a fit."""
    out = tmp_path / "auto.safetensors"
    plot = tmp_path / "auto.png"
    facts, said = fit(
        folder, capfd, out, *pairs(folder), "--auto", "--layers", "2-4", "--plot", str(plot)
    )
    within = facts["criteria"].pop("within the budget on held-out texts")
    assert all(facts["criteria"].values())
    # The choice fills the budget on its own texts; on a dozen others it may be a little over.
    assert facts["verdict"] == ("effect" if within else "effect beyond the budget")
    assert facts["splits"] == {"fit": 24, "calibration": 12, "held_out": 12}
    (layer,) = facts["layers"]
    report = facts["flips"][str(layer)]
    assert report["fitted"]["rate"] >= 0.9 > 0.3 >= report["identity"]["rate"]
    assert report["shuffled"]["n"] == 20 * 24
    score = facts["contrast"]
    assert score["ci"][0] > 0
    assert score["contrast"] > 3 * max(abs(value) for value in facts["shuffled_contrast"])
    assert score["neutral_kl"] == facts["neutral_kl"] <= 2 * facts["budget"]["neutral_kl"]
    assert facts["transport"][str(layer)]["low"] > 0.2
    assert "begin" in facts["transport_on"]
    assert facts["table"][0]["contrast"] >= facts["table"][-1]["contrast"]
    assert "neutral.txt" in said
    assert plot.read_bytes().startswith(b"\x89PNG")
    saved = Intervention.load(out)
    assert saved.content_hash == facts["content_hash"]
    assert saved.lineage["made_by"] == "cogit fit"
    assert saved.lineage["source"] == "pairs.jsonl"
    assert saved.lineage["fit"]["layer"] == layer
    assert len(saved.lineage["source_fingerprint"]) == 32


def test_pairs_with_refinement_and_resume(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*pairs(folder), "--layer", "2", "--gain", "1", "--refine", "6"]
    arguments += ["--checkpoint", str(tmp_path / "run")]
    facts, _ = fit(folder, capfd, tmp_path / "a.safetensors", *arguments)
    assert facts["refined"]["steps_done"] == 6
    assert facts["layers"] == [2]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"checkpoint.safetensors", "history.jsonl"}
    again, _ = fit(folder, capfd, tmp_path / "b.safetensors", *arguments, "--resume")
    assert again["content_hash"] == facts["content_hash"]
    saved = Intervention.load(tmp_path / "a.safetensors")
    assert saved.lineage["refined"]["steps"] == 6
    assert saved.strength == facts["strength"]


def written_as(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The same pairs in one of the forms that users have, and the name that lineage gives them."""
    found = grammar.contrast_pairs(32, 0, "train")
    if kind == "csv":
        with (folder / "p.csv").open("w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream)
            rows.writerows([("positive", "negative"), *((p.positive, p.negative) for p in found)])
        return str(folder / "p.csv"), "p.csv"
    if kind == "texts":
        for name in ("positive", "negative"):
            texts = "\n".join(getattr(pair, name) for pair in found)
            (folder / f"{name}.txt").write_text(texts, encoding="utf-8")
        return f"{folder}/positive.txt,{folder}/negative.txt", "positive.txt,negative.txt"
    if kind == "prompt":
        lines = []
        for pair in found:
            both = zip(pair.positive, pair.negative, strict=False)
            common = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], both))
            rest = {"positive": pair.positive[common:], "negative": pair.negative[common:]}
            lines.append(json.dumps({"prompt": pair.positive[:common], **rest}))
        (folder / "p.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return str(folder / "p.jsonl"), "p.jsonl"
    fake = types.ModuleType("datasets")
    table = [{"chosen": pair.positive, "rejected": pair.negative} for pair in found]
    fake.load_dataset = lambda *names, **options: table  # type: ignore[attr-defined]
    error = types.SimpleNamespace(DatasetsError=RuntimeError)
    fake.exceptions = error  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", fake)
    spec = "dataset:some/name?positive=chosen&negative=rejected"
    return spec, spec


def test_every_source_of_pairs_gives_the_same_fit(
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A user's own pairs: CSV, two texts, a prompt with two continuations, a data set."""
    hashes = set()
    for kind in ("csv", "texts", "prompt", "dataset"):
        source, name = written_as(kind, tmp_path, monkeypatch)
        out = tmp_path / f"{kind}.safetensors"
        neutral = ["--neutral", str(folder / "neutral.txt")]
        facts, _ = fit(folder, capfd, out, "--pairs", source, "--layer", "2", *neutral)
        assert facts["splits"] == {"fit": 16, "calibration": 8, "held_out": 8}
        lineage = Intervention.load(out).lineage
        assert lineage["source"] == name
        assert ("source_fingerprint" in lineage) == (kind != "dataset")
        hashes.add(facts["content_hash"])
    assert len(hashes) == 1


def test_packaged_neutral_texts_are_named(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """They are no texts of the demo model's language, and the verdict says what that costs."""
    facts, said = fit(
        folder,
        capfd,
        tmp_path / "a.safetensors",
        "--pairs",
        str(folder / "pairs.jsonl"),
        "--layer",
        "2",
        "--operator",
        "additive",
        "--lambda",
        "2",
    )
    assert "packaged plain English sentences" in facts["neutral"]
    assert "packaged plain English sentences" in said
    assert facts["strength"] == 2.0
    assert facts["verdict"] in {"effect", "effect beyond the budget"}


def test_states_without_a_model(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = ["--activations", str(folder / "states.safetensors")]
    facts, said = fit(folder, capfd, tmp_path / "a.safetensors", *source, "--layer", "3")
    assert facts["verdict"] == "effect"
    assert facts["flips"]["3"]["fitted"]["rate"] >= 0.9
    assert facts["contrast"] is None
    assert facts["neutral_kl"] is None
    assert facts["transport"] == {}
    assert "none given: no contrast, cost and transport" in said


def test_states_with_a_model(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    facts, _ = fit(
        folder,
        capfd,
        tmp_path / "a.safetensors",
        "--activations",
        str(folder / "states.safetensors"),
        "--layer",
        "3",
        "--model",
        str(demo_model("transformers")),
        "--neutral",
        str(folder / "neutral.txt"),
    )
    assert facts["contrast"] is None
    assert facts["neutral_kl"] > 0
    assert facts["transport"]["3"]["low"] > 0.2


def test_chance_is_no_effect(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Block 0 of the planted states has no contrast."""
    source = planted_states(PLANTS[4]).save(tmp_path / "states.safetensors")
    facts, _ = fit(
        tmp_path, capfd, tmp_path / "a.safetensors", "--activations", str(source), "--layer", "0"
    )
    assert facts["verdict"] == "no effect"


def test_an_ablation_is_fitted_and_has_no_side(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = ["--activations", str(folder / "states.safetensors"), "--layer", "3"]
    facts, _ = fit(folder, capfd, tmp_path / "a.safetensors", *source, "--operator", "ablation")
    assert facts["verdict"] == "no effect"
    assert facts["settings"] == {"operator": "ablation"}


def test_a_subspace_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    subspace = fit_subspace(planted_states(PLANTS[4]), 1)
    path = subspace.save(tmp_path / "subspace.safetensors")
    facts, _ = fit(tmp_path, capfd, tmp_path / "a.safetensors", "--subspace", str(path))
    assert facts["layers"] == [1]
    assert facts["verdict"].startswith("not judged")
    assert facts["in_sample_flips"]["1"]["rate"] >= 0.9


def test_people_read_effect_cost_and_controls_side_by_side(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "a.safetensors"), "--threads", "1"]
    assert main(["fit", *pairs(folder), "--layers", "2", "--gain", "2", *out]) == 0
    printed, said = capfd.readouterr()
    for words in (
        "held-out flips, block 2",
        "identity",
        "shuffled classes",
        "held-out contrast",
        "NLL rise of the target",
        "neutral KL",
        "transport, block 2",
        "verdict: effect",
    ):
        assert words in printed
    assert "written" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "expected one of --pairs, --activations, --subspace, got none"),
        (["--pairs", "a", "--activations", "b"], "got --pairs and --activations"),
        (["--activations", "a", "--auto"], "expected --pairs with --auto or --refine"),
        (["--pairs", "a", "--refine", "2", "--operator", "additive"], "expected a unitary"),
        (["--pairs", "a", "--refine", "2", "--backend", "llamacpp"], "which has gradients"),
        (["--pairs", "a", "--resume"], "expected --resume with --checkpoint and --refine"),
        (["--pairs", "a", "--checkpoint", "c"], "expected --checkpoint with --refine or born-adam"),
        (["--activations", "absent"], "[load]"),
        (["--pairs", "absent.jsonl", "--layer", "2"], "absent.jsonl"),
        (["--pairs", "a", "--auto", "--plot", "nowhere/a.png"], "expected an existing folder"),
        (["--activations", "a", "--plot", "a.png"], "[plot] expected --auto or --refine"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--out", "out.safetensors", *arguments]) == 2
    out, err = capfd.readouterr()
    last = err.splitlines()[-1]
    assert not out
    assert last.startswith("error: ")
    assert words in last
    assert not (tmp_path / "out.safetensors").exists()


def test_a_layer_must_be_named_or_chosen(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "a.safetensors")]
    assert main(["fit", *pairs(folder), *out]) == 2
    assert "expected --layer L, or --auto to choose one" in capfd.readouterr().err
    assert main(["fit", "--activations", str(folder / "states.safetensors"), *out]) == 2
    assert "holds blocks 0..5" in capfd.readouterr().err
