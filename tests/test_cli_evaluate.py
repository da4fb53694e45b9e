"""cogit evaluate: files in, a run folder out, one line for what cannot be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from _evaluated import backend, states, suite
from _planted import NEGATIVE, POSITIVE, learned, pairs
from cogit.autofit import Recipe
from cogit.backends import load_backend
from cogit.cli.evaluate_material import recipe_of
from cogit.cli.main import main
from cogit.demo import grammar
from cogit.demo.assets import demo_model
from cogit.demo.suite import demo_pairs, demo_suite
from cogit.evaluation.evaluation import evaluate
from cogit.evaluation.judges import make_judge
from cogit.evaluation.subject import Subject
from cogit.evaluation.thresholds import Settings
from cogit.intervention import Intervention
from cogit.operators import Additive
from cogit.sampling import SamplingOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted model, an intervention, and every source as a file."""
    made = tmp_path_factory.mktemp("evaluate")
    model = backend(connected=True)
    model.model.save_pretrained(made / "model")
    model.tokenizer.save_pretrained(made / "model")
    learned(states(connected=True), "additive").save(made / "a.safetensors")
    material = suite(16)
    for name, texts in (
        ("prompts", material.prompts),
        ("neutral_prompts", material.neutral_prompts),
        ("neutral", (*material.neutral_texts, *material.calibration_texts)),
    ):
        (made / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")
    rows = [{"positive": one.positive, "negative": one.negative} for one in _pairs()]
    lines = "\n".join(json.dumps(row) for row in rows)
    (made / "pairs.jsonl").write_text(lines, encoding="utf-8")
    words = [f"{word}\t1" for word in POSITIVE] + [f"{word}\t-1" for word in NEGATIVE]
    (made / "words.tsv").write_text("\n".join(words), encoding="utf-8")
    return made


def _pairs() -> list[Any]:
    return list(dict.fromkeys(pairs(16, 0, n_plain=4, n_class=4)))


def call(folder: Path, *more: str, **changed: str | None) -> list[str]:
    given: dict[str, str | None] = {
        "--intervention": "a.safetensors",
        "--model": "model",
        "--prompts": "prompts.txt",
        "--neutral-prompts": "neutral_prompts.txt",
        "--neutral": "neutral.txt",
    }
    given |= {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    flags = [part for name, value in given.items() if value for part in (name, str(folder / value))]
    judge = ("--judge", f"lexicon:{folder / 'words.tsv'}")
    return [
        "evaluate",
        *flags,
        *judge,
        "--seeds",
        "42",
        "--max-tokens",
        "5",
        "--device",
        "cpu",
        *more,
    ]


def test_a_whole_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    few = ["--random", "2", "--size", "quick", "--out", str(out), "--sweep-strength"]
    assert main(call(folder, *few, pairs="pairs.jsonl")) == 0
    printed = capsys.readouterr()
    # With two draws no rank can be below .05: the verdict may not be better than the evidence.
    assert printed.out.splitlines()[-1].startswith("coherent")
    assert "verdict: no effect" in printed.out
    assert "not measured: 2 draws allow no p below 0.33" in printed.out
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == "no effect"
    assert report["settings"]["judge"]["name"] == "lexicon"
    roles = {arm["role"] for arm in report["arms"]}
    assert {"additive", "random_same_subspace"} <= roles
    assert [row["layer"] for row in report["layers"]] == [0, 1, 2]
    assert report["facts"]["separation_gap"] > 0
    assert "left out: how the operator was fitted is not known" in printed.err
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["outputs"].keys() >= {"report.json", "strength_sweep.json"}
    assert "seconds" not in json.dumps(report["settings"])


def test_json_and_nothing_to_fit_controls_from(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--random", "0", "--quick", "--json", "--out", str(tmp_path / "run"), "--match", "none"]
    assert main(call(folder, *few)) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert "no additive and no shuffled control" in printed.err
    roles = {arm["role"] for arm in report["arms"]}
    assert not roles & {"additive", "shuffled", "random", "random_same_subspace"}
    found = {row["name"]: row for row in report["criteria"]}
    missing = found["above fits to shuffled classes"]
    assert missing["holds"] is None
    assert missing["found"] == "not measured: no contrast pairs were given"


@pytest.mark.parametrize(
    ("more", "changed", "part"),
    [
        (["--instruction-positive", "be glad"], {}, "expected --instruction-positive and"),
        (["--quick", "--size", "n1000"], {}, "expected --quick or --size n1000, got both"),
        (["--seeds", "42,x"], {}, "expected whole numbers with commas"),
        (["--random", "-1"], {}, "--random"),
        ([], {"intervention": "absent.safetensors"}, "absent.safetensors"),
        ([], {"prompts": "absent.txt"}, "absent.txt"),
        ([], {"neutral": "prompts.txt"}, "[overlap]"),
        ([], {"intervention": "words.tsv"}, "words.tsv"),
        (["--temperature", "-1"], {}, "temperature >= 0"),
        (["--backend", "llamacpp", "--dtype", "bf16"], {}, "the GGUF file decides"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    folder: Path,
    tmp_path: Path,
    more: list[str],
    changed: dict[str, str],
    part: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    assert main(call(folder, *more, "--out", str(out), **changed)) == 2
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert part in error
    assert not out.exists()


def test_pairs_that_are_prompts_are_refused(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Q53."""
    text = suite(16).prompts[0]
    texts = [*(folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    texts.append(json.dumps({"positive": text, "negative": "bad1 bad2"}))
    (folder / "leaked.jsonl").write_text("\n".join(texts), encoding="utf-8")
    assert main(call(folder, "--out", str(tmp_path / "run"), pairs="leaked.jsonl")) == 2
    assert "in prompts and in training" in capfd.readouterr().err


def test_a_folder_that_holds_something_is_left_alone(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept.txt").write_text("mine", encoding="utf-8")
    assert main(call(folder, "--out", str(tmp_path))) == 2
    assert "expected an empty or new folder" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_how_a_file_was_fitted() -> None:
    one = learned(states(connected=True), "unitary")
    assert recipe_of(one) is None
    fit = {"layer": 2, "operator": "unitary", "method": "plane", "angle": 30.0, "gain": 2.0}
    assert recipe_of(_with_fit(one, fit)) == Recipe(angle=30.0, gain=2.0)
    assert recipe_of(_with_fit(one, {**fit, "operator": "additive"})) is None
    assert recipe_of(_with_fit(one, {**fit, "method": "magic"})) is None


def _with_fit(one: Intervention, fit: dict[str, Any]) -> Intervention:
    return Intervention(one.operators, one.identity, one.strength, lineage={"fit": fit})


# ---- the demo model ----


def test_the_demo_suite_is_of_disjoint_splits() -> None:
    """Q53."""
    made = demo_suite(24, 3)
    assert made.sizes()["prompts"] == 24
    made.require_unseen(text for pair in demo_pairs(3) for text in pair.texts)
    assert all(grammar.sentiment_words(text) == (0, 0) for text in made.neutral_prompts)


@pytest.mark.llamacpp
def test_an_evaluation_on_llamacpp() -> None:
    """Batches and contexts of its own; identity and strength 0 are exact there too."""
    model = load_backend(
        "llamacpp", demo_model("llamacpp"), n_parallel=3, n_ctx=64, kv_type="f32", threads=1
    )
    with model:
        rng = np.random.default_rng(0)
        vector = Additive(rng.standard_normal(model.identity.d_model))
        one = Subject(Intervention({3: vector}, model.identity, 0.5))
        sampling = SamplingOptions(max_tokens=4, temperature=1.0, top_k=0)
        few = Settings(
            seeds=(1, 2), n_random=1, n_same_subspace=0, doses=(), sampling=sampling, n_prompts=4
        )
        found = evaluate(model, one, demo_suite(4), make_judge("demo"), few, show=False)
        assert model.intervention is None
    for role in ("identity", "strength_zero"):
        (control,) = found.of(role)  # type: ignore[arg-type]
        assert control.run.changed is False
        assert control.run.neutral_kl == 0.0
        assert control.perplexity_ratio == 1.0
    (learned_arm,) = found.of("learned")
    assert learned_arm.run.neutral_kl
    assert learned_arm.run.text_kl
    assert found.report["backend"] == "llamacpp"
    assert found.verdict.word == "no effect"
