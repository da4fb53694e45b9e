"""cogit gate: fitting, writing, what it reports, and every way to use it wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from _conditional import conditional_backend, conditional_intervention, off_topic, on_topic
from _planted import PLANTED_LAYER
from cogit import Intervention
from cogit.cli import infer
from cogit.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conditional model, an intervention, and texts of both conditions."""
    made = tmp_path_factory.mktemp("gate")
    backend = conditional_backend()
    backend.model.save_pretrained(made / "model")
    backend.tokenizer.save_pretrained(made / "model")
    conditional_intervention().save(made / "bare")
    texts = {"on": on_topic(40, 1), "off": off_topic(40, 2), "also_off": off_topic(40, 3)}
    for name, lines in texts.items():
        (made / name).write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return made


def flags(folder: Path, out: Path, /, **changes: str) -> list[str]:
    given = {
        "--model": str(folder / "model"),
        "--intervention": str(folder / "bare"),
        "--on": str(folder / "on"),
        "--off": str(folder / "off"),
        "--out": str(out),
        "--threads": "1",
        "--device": "cpu",
    } | {f"--{name}": value for name, value in changes.items()}
    return ["gate", *(part for pair in given.items() for part in pair)]


@pytest.mark.parametrize(
    "more",
    [
        ["--kind", "similarity"],
        ["--measure", "projection", "--smooth", "--max-false-positive", "0.1"],
        ["--kind", "learned", "--coordinates", "4", "--seed", "3"],
        ["--kind", "similarity", "--scope", "prompt", "--held-out", "0.25"],
    ],
)
def test_a_gate_is_fitted_written_and_reported(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], more: list[str]
) -> None:
    out = tmp_path / "gated"
    assert main([*flags(folder, out), *more, "--json"]) == 0
    facts: dict[str, Any] = json.loads(capfd.readouterr().out)
    written, bare = Intervention.load(out), Intervention.load(folder / "bare")
    assert written.ungated().content_hash == bare.content_hash
    assert facts["content_hash"] == written.content_hash != bare.content_hash
    assert set(facts["blocks"]) == {str(PLANTED_LAYER)}
    found = facts["blocks"][str(PLANTED_LAYER)]
    assert found["gate"] == written.gates[PLANTED_LAYER].parameters()
    assert found["gate"]["kind"] == ("learned" if "learned" in more else "similarity")
    assert found["gate"]["scope"] == ("prompt" if "prompt" in more else "token")
    assert found["decides"] is True
    rates = found["held_out"]
    for name in ("true_positive", "false_positive", "accuracy"):
        assert 0 <= rates[name]["low"] <= rates[name]["value"] <= rates[name]["high"] <= 1
    assert rates["true_positive"]["value"] > rates["false_positive"]["high"]
    assert rates["true_positive"]["n"] == (10 if "0.25" in more else 13)
    assert found["chance_accuracy"]["mean"] < rates["accuracy"]["low"]
    assert facts["on"] == {"file": str(folder / "on"), "texts": 40}
    assert written.lineage["gates"]["fits"] == facts["blocks"]


def test_the_report_for_people_and_what_the_file_then_does(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gated"
    assert main(flags(folder, out)) == 0
    printed, said = capfd.readouterr()
    assert printed.startswith(f"block {PLANTED_LAYER}: similarity gate, cosine ≥ ")
    for line in (
        "opens with the condition",
        "opens without it",
        "accuracy, shuffled labels",
        "AUC",
    ):
        assert line in printed
    assert "of held-out texts (13 with the condition, 13 without)" in printed
    assert "40 with the condition, 40 without" in said

    assert main(["inspect", str(out)]) == 0
    assert (
        "\n  gate          kind similarity, measure cosine, scope token" in capfd.readouterr().out
    )
    assert main(["inspect", str(out), "--json"]) == 0
    (operator,) = json.loads(capfd.readouterr().out)["operators"]
    assert operator["gate"] == Intervention.load(out).gates[PLANTED_LAYER].parameters()
    assert main(["inspect", str(folder / "bare"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["operators"][0]["gate"] is None

    # Off the topic the gated operator leaves the text as it is; on it, it does what it did.
    (tmp_path / "off").write_text("\n".join(off_topic(3, 9)), encoding="utf-8")
    (tmp_path / "on").write_text("\n".join(on_topic(3, 9)), encoding="utf-8")
    found: dict[tuple[str, bool], Any] = {}
    for name in ("off", "on"):
        for file in (out, folder / "bare"):
            arguments = ["--model", str(folder / "model"), "--intervention", str(file)]
            arguments += ["--prompt-file", str(tmp_path / name), "--compare", "--json"]
            arguments += ["--max-tokens", "5", "--temperature", "0", "--device", "cpu"]
            assert infer.main([*arguments, "--threads", "1"]) == 0
            facts = json.loads(capfd.readouterr().out)
            found[name, file == out] = [
                [sample["ids"] for sample in facts[key]] for key in ("samples", "unsteered")
            ]
            assert bool(facts["gates"]) is (file == out)
            assert bool(facts["verification"]["gate_open"]) is (file == out)
    assert found["off", True][0] == found["off", True][1]
    assert found["off", False][0] != found["off", False][1]
    assert found["on", True][0] == found["on", False][0] != found["on", True][1]


def test_a_second_gate_replaces_the_first(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(flags(folder, first)) == 0
    said = capfd.readouterr().err
    assert "which is replaced" not in said
    assert "llamacpp     refuses files with gates; run this one with --backend transf" in said
    assert main([*flags(folder, second, intervention=str(first)), "--kind", "learned"]) == 0
    said = capfd.readouterr().err
    assert f"{first} has one at block {PLANTED_LAYER} already, which is replaced" in said
    assert Intervention.load(second).gates[PLANTED_LAYER].kind == "learned"


def test_conditions_that_do_not_differ(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gated"
    arguments = flags(folder, out, on=str(folder / "also_off"))
    assert main(arguments) == 2
    assert (
        capfd.readouterr()
        .err.splitlines()[-1]
        .startswith(
            "error: [gate] expected conditions that held-out texts tell apart, got an AUC of 0."
        )
    )
    assert not out.exists()
    assert main([*arguments, "--allow-chance"]) == 0
    assert "DOES NOT TELL THE CONDITIONS APART" in capfd.readouterr().out
    assert Intervention.load(out).gates


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({"on": "absent"}, [], "[on] expected a file, got absent, which does not exist"),
        ({"off": "empty"}, [], "[off] expected a text a line, got none in empty"),
        ({"off": "latin"}, [], "[off] expected UTF-8 text in latin"),
        ({"off": "short"}, [], "[gate] expected at least 8 texts of each condition, got 1 off"),
        ({"off": "long"}, [], "[gate] expected texts of 2 to 64 tokens (the context), got 101 in "),
        ({"out": "absent/out"}, [], "[out] expected an existing folder, got absent"),
        ({"intervention": "short"}, [], "[load] expected a whole safetensors file, got short"),
        ({"kind": "learned"}, ["--smooth"], "[smooth] expected --smooth with --kind similarity"),
        ({"kind": "learned", "measure": "cosine"}, [], "[measure] expected --measure with --kind "),
        ({"coordinates": "3"}, [], "[coordinates] expected --coordinates with --kind learned only"),
        ({"kind": "psychic"}, [], "Invalid value for '--kind'"),
        ({"held-out": "1.5"}, [], "[gate] expected a held-out share between 0 and 1, got 1.5"),
    ],
)
def test_wrong_use_is_one_line(
    folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    more: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n \n", encoding="utf-8")
    Path("latin").write_bytes(b"caf\xe9\n")
    Path("short").write_text("word1 word2\n", encoding="utf-8")
    Path("long").write_text("word1 " * 100 + "\n", encoding="utf-8")
    assert main([*flags(folder, tmp_path / "out", **changes), *more]) == 2
    printed, said = capfd.readouterr()
    assert not printed
    assert said.splitlines()[-1].startswith(f"error: {words}")
    assert not (tmp_path / "out").exists()
