"""Row D7: every run that writes says with what: arguments, inputs, versions, device, memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

from cogit import Activations
from cogit.cli import main as entry
from cogit.cli.command_values import HIDDEN, arguments_of, values_of
from cogit.cli.main import main
from cogit.cli.run_record import begin
from cogit.figures import image_bytes
from cogit.hashing import file_hash
from cogit.identity import ModelIdentity
from cogit.run_inputs import describe_inputs, require_unchanged

Capture = pytest.CaptureFixture[str]
CALLS = [
    "record --pairs=a.txt,b.txt --out=o --layers=1-3 --stats=variance --threads=2",
    "import --out=o --no-first-token --convention=block --strength=-1.5 -- -odd.gguf",
    "subspace --activations=a --layer=1 --protect=x:all --protect=y --weights=rank --strict",
    "fit --out=o --pairs=p --auto --lambda=-0.1 --kl-budget=inf --angle=0.1",
    "gate --intervention=i --on=a --off=b --out=o --held-out=0.3333333333333333 --smooth",
    "demo --quick --json=x.json",
]


def context_of(call: str) -> Any:
    group: Any = get_command(entry.app)
    name, *arguments = call.split()
    return group.commands[name].make_context(name, arguments)


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recorded states of a model that is nowhere, in the working folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    negative = rng.standard_normal((2, 12, 16)).astype(np.float32)
    positive = negative + np.eye(16, dtype=np.float32)[0] * 2 + rng.standard_normal(16) * 0.1
    identity = ModelIdentity("none", "llama", 3, 16, 32)
    return Activations(
        positive.astype(np.float32), negative, (0, 1), 4, identity
    ).save("states.safetensors")  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_arguments_give_the_same_values_again(call: str) -> None:
    """Row D7: the effective configuration, in a form that can be run."""
    context = context_of(call)
    arguments = arguments_of(context)
    again = context_of(" ".join(arguments))
    assert again.params == context.params
    assert set(call.split()) - {"--"} <= set(arguments)
    assert json.loads(json.dumps(values_of(context), allow_nan=False))


def test_secrets_are_not_recorded() -> None:
    call = "record --pairs=dataset:https://me:word@host/x?api_key=abc123&split=train --out=o"
    context = context_of(call)
    for text in (str(arguments_of(context)), json.dumps(values_of(context))):
        assert "word" not in text
        assert "abc123" not in text
        assert HIDDEN in text
        assert "split=train" in text


def test_a_single_file_has_its_record_beside_it(states: Path) -> None:
    """Row D7: effective settings, seeds, versions, device, dtype, memory."""
    arguments = ["subspace", "--activations", str(states), "--layer", "1", "--out", "s.st"]
    assert main([*arguments, "--plot", "p.svg"]) == 0
    found = json.loads(Path("s.st.run.json").read_text(encoding="utf-8"))
    assert found["command"] == found["arguments"][0] == "subspace"
    assert found["settings"]["alpha"] == 1.0
    assert found["settings"]["method"] == "contrastive_pca"
    assert found["outputs"] == {name: file_hash(Path(name)) for name in ("s.st", "p.svg")}
    assert found["places"] == {"out": "s.st", "plot": "p.svg"}
    file = found["inputs"]["activations"][0]
    assert file["files"] == {"": f"sha256:{file_hash(states)}"}
    assert found["peak_memory_mib"] > 1
    assert found["threads"]["cores"] >= 1
    assert len(found["builds"]["sources"]) == 64
    assert found["seconds"]["total"] > 0
    assert not Path("p.svg.run.json").exists()


def test_the_record_follows_force(states: Path, capfd: Capture) -> None:
    arguments = ["subspace", "--activations", str(states), "--layer", "1", "--out", "s.st"]
    Path("s.st.run.json").write_text("of another", encoding="utf-8")
    assert main(arguments) == 2
    assert "expected no record of a run beside s.st, got s.st.run.json" in capfd.readouterr().err
    assert not Path("s.st").exists()
    assert Path("s.st.run.json").read_text(encoding="utf-8") == "of another"
    assert main([*arguments, "--force"]) == 0
    Path("s.st.run.json").unlink()
    Path("s.st.run.json").mkdir()
    assert main([*arguments, "--force"]) == 2


def test_nothing_is_recorded_where_nothing_is_written(states: Path) -> None:
    assert main(["subspace", "--activations", str(states), "--layer", "1"]) == 0
    assert [path.name for path in Path().iterdir()] == [states.name]


def test_calls_from_python_write_no_record(tmp_path: Path) -> None:
    out = tmp_path / "o"
    out.write_text("x", encoding="utf-8")
    record = begin({"out": out}, {}, force=True)
    assert record.finish() is None
    record.finish_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_what_counts_as_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "model/w.safetensors", "model/.git/config"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name, encoding="utf-8")
    from cogit.demo.assets import demo_model

    found = describe_inputs(
        {
            "pairs": "a.txt,b.txt",
            "model": "model",
            "other": "org/name",
            "data": "dataset:a.txt?split=train",
            "none": None,
            "protect": ["a.txt:3", "a.txt"],
            "demo": demo_model("llamacpp"),
        }
    )
    assert [one["path"] for one in found["pairs"]] == ["a.txt", "b.txt"]
    assert list(found["model"][0]["files"]) == ["w.safetensors"]
    assert found["other"] == [{"kind": "name", "path": "org/name"}]
    assert [one["kind"] for one in found["data"]] == ["dataset", "file"]
    assert "none" not in found
    assert [one["kind"] for one in found["protect"]] == ["name", "file"]
    assert (found["demo"][0]["kind"], found["demo"][0]["path"]) == ("packaged", "demo-f32.gguf")


def test_inputs_that_changed_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m").mkdir()
    for name in ("m/a", "m/b"):
        Path(name).write_text(name, encoding="utf-8")
    described = describe_inputs({"model": "m"})["model"][0]
    Path("m/new").write_text("x", encoding="utf-8")
    assert list(require_unchanged("model", described, tmp_path)) == [
        (str(tmp_path / "m/new"), "new in a folder of input")
    ]
    Path("m/a").write_text("other", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected .*m/a, which the run has read as model, unch"):
        list(require_unchanged("model", described, tmp_path))
    Path("m/a").unlink()
    with pytest.raises(FileNotFoundError, match=r"m/a, .* got no file there; put it back"):
        list(require_unchanged("model", described, tmp_path))
    for bad in ("../m/b", "/etc/passwd"):
        with pytest.raises(ValueError, match="expected an input below its folder"):
            list(require_unchanged("x", {**described, "files": {bad: "sha256:0"}}, tmp_path))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_pictures_are_the_same_each_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two days apart, as a replay may be."""
    from matplotlib.figure import Figure

    def draw() -> bytes:
        figure = Figure()
        axes = figure.subplots()
        axes.plot([1, 2], [3, 4], label="x")
        axes.fill_between([1, 2], [3, 4])
        axes.legend()
        return image_bytes(figure, kind)

    first = draw()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert draw() == first
    assert b"atplotlib v" not in first
    assert os.environ["SOURCE_DATE_EPOCH"] == "86400"
