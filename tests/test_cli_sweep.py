"""cogit sweep: one model load and one pass for all blocks, files, and the next command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from _planted_layers import (
    N_LAYERS,
    N_PAIRS,
    layered_backend,
    layered_pairs,
    layered_states,
    planted_layer,
)
from cogit.activations import Activations
from cogit.backends import transformers as backend_module
from cogit.cli.main import main
from cogit.latest import resolve_latest
from cogit.sweep_result import CAUTION, Sweep

FILES = {"manifest.json", "sweep.json", "sweep.md", "sweep.png"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """States of a planted model."""
    folder = tmp_path_factory.mktemp("states")
    return layered_states(0, planted=True).save(folder / "a.safetensors")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same planted model as a folder, with its tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    backend = layered_backend(0, planted_layer(0))
    backend.model.save_pretrained(folder)
    backend.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    lines = (
        json.dumps({"positive": pair.positive, "negative": pair.negative})
        for pair in layered_pairs(0)
    )
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a model is loaded, and texts run through it."""
    counts = {"loads": 0, "texts": 0}
    kind = backend_module.TransformersBackend
    load, run, states = kind.load.__func__, kind._run, kind.states  # type: ignore[attr-defined]

    def counting_load(cls: Any, *args: Any, **options: Any) -> Any:
        counts["loads"] += 1
        return load(cls, *args, **options)

    def counting_run(self: Any, ids: Any, *args: Any, **options: Any) -> Any:
        counts["texts"] += len(ids)
        return run(self, ids, *args, **options)

    def counting_states(self: Any, sequences: Any, *args: Any, **options: Any) -> Any:
        counts["texts"] += len(sequences)
        return states(self, sequences, *args, **options)

    # The two ways through the model: recorded states, and everything that needs logits.
    monkeypatch.setattr(kind, "states", counting_states)
    monkeypatch.setattr(kind, "load", classmethod(counting_load))
    monkeypatch.setattr(kind, "_run", counting_run)
    return counts


def printed(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_recorded_states_as_json(recorded: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Row Q18: JSON with the best layer."""
    assert main(["sweep", "--activations", str(recorded), "--json"]) == 0
    facts = printed(capfd)
    assert facts["best_layer"] == planted_layer(0)
    assert facts["verdict"] == "effect"
    assert facts["p_value"] <= 0.05
    assert facts["caution"] == CAUTION
    assert [row["layer"] for row in facts["layers"]] == list(range(N_LAYERS))
    words = {"excellent", "good", "moderate", "poor"}
    assert {row["source_rating_of_gap"] for row in facts["layers"]} <= words
    assert {"gap", "gap_p_value", "biased_gap"} <= facts["layers"][0].keys()


def test_table_ends_with_the_verdict_and_what_it_does_not_say(
    recorded: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    plot = tmp_path / "a.png"
    arguments = ["--layers", "0-3", "--permutations", "100", "--plot", str(plot)]
    assert main(["sweep", "--activations", str(recorded), *arguments]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 + 3
    assert lines[-3] == "states at resid_post"
    assert lines[-2].startswith("no effect: no block differs")
    assert lines[-1] == CAUTION
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_one_load_and_one_pass_serve_all_layers(
    model_folder: Path,
    pairs_file: Path,
    tmp_path: Path,
    counted: dict[str, int],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Row Q18: one load counted, every text run once; the next command finds the states."""
    out = tmp_path / "runs" / "first"
    arguments = ["--model", str(model_folder), "--pairs", str(pairs_file), "--out", str(out)]
    assert main(["sweep", *arguments, "--device", "cpu", "--threads", "1", "--json"]) == 0
    assert counted == {"loads": 1, "texts": 2 * N_PAIRS}
    facts = printed(capfd)
    assert facts["best_layer"] == planted_layer(0)
    names = {path.name for path in out.iterdir()}
    assert names == {*FILES, "activations.safetensors"}
    latest = resolve_latest(tmp_path / "runs", "sweep")
    assert latest == out
    assert Sweep.load(tmp_path / "runs").best.layer == facts["best_layer"]
    again = Activations.load(latest / "activations.safetensors")
    assert again.layers == tuple(range(N_LAYERS))
    assert main(["sweep", "--activations", str(out / "activations.safetensors"), "--json"]) == 0
    assert printed(capfd)["layers"] == facts["layers"]


def test_states_of_others_are_not_copied(recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    short = ["--layers", "0-3", "--permutations", "100"]
    assert main(["sweep", "--activations", str(recorded), *short, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "either --activations or --pairs"),
        (["--activations", "{file}", "--pairs", "{file}"], "got both"),
        (["--activations", "{file}", "--model", "x"], "no --model beside --activations"),
        (["--activations", "{file}", "--layers", "9"], "record the others first"),
        (["--activations", "{file}", "--layers", "x"], "expected a block"),
        (["--activations", "{file}", "--permutations", "10"], "at least 160 permutations"),
        (["--activations", "{file}", "--folds", "1"], "2 <= folds"),
        (["--activations", "{file}", "--out", "{folder}"], "empty or new folder"),
        (["--activations", "{file}", "--plot", "{folder}/no/a.png"], "existing folder"),
        (["--activations", "nowhere"], "nowhere"),
        (["--pairs", "nowhere"], "nowhere"),
        (["--activations", "{file}", "--seed", "-1"], "seed"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], part: str, recorded: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    filled = [a.format(file=recorded, folder=recorded.parent) for a in arguments]
    assert main(["sweep", *filled]) == 2
    captured = capfd.readouterr()
    assert not captured.out
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert part in line
