"""Row N10: ``cogit replay`` repeats a run and compares hashes; manifests may come from anybody."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

from cogit import Activations
from cogit.artefact import read, write
from cogit.cli import main as entry
from cogit.cli.main import main
from cogit.cli.replay_run import replayed_arguments
from cogit.errors import ArtefactError
from cogit.identity import ModelIdentity
from cogit.replay import RecordedRun

Capture = pytest.CaptureFixture[str]
COMMANDS: Any = get_command(entry.app)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recorded states, a subspace made of them, and its record."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    negative = rng.standard_normal((2, 12, 16)).astype(np.float32)
    positive = (negative + 2 * np.eye(16)[0] + 0.1 * rng.standard_normal(16)).astype(np.float32)
    identity = ModelIdentity("none", "llama", 3, 16, 32)
    Activations(positive, negative, (0, 1), 4, identity).save(folder / "states.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call = "subspace --activations states.safetensors --layer 1 --out s.st --plot p.svg"
        assert main(call.split()) == 0
        call = "sweep --activations states.safetensors --permutations 60 --out runs/one --seed 3"
        assert main(call.split()) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, to work in; its records still name the first one."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def replayed(capfd: Capture, *arguments: str) -> tuple[int, dict[str, Any]]:
    code = main(["replay", *arguments, "--json"])
    return code, json.loads(capfd.readouterr().out)


def refused(capfd: Capture, *arguments: str) -> str:
    assert main(["replay", *arguments]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip()


def test_a_file_is_made_again_bit_for_bit(
    here: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row N10. Settings of the environment at the time of the replay have no say."""
    monkeypatch.setenv("COGIT_SUBSPACE_K", "2")
    before = {path.name for path in here.iterdir()}
    code, found = replayed(capfd, "s.st")
    assert code == 0
    assert found["equal"]
    assert {one["name"]: one["verdict"] for one in found["outputs"]} == {
        "s.st": "equal",
        "p.svg": "equal",
    }
    assert {path.name for path in here.iterdir()} == before


def test_a_run_folder_is_made_again_where_it_was_moved(here: Path, capfd: Capture) -> None:
    """Rows N10 and Q45: in another folder, with inputs taken from there, into one that is kept."""
    code, found = replayed(capfd, "runs/one", "--from", str(here), "--out", "again")
    assert code == 0
    assert {one["name"] for one in found["outputs"]} == {"sweep.json", "sweep.md", "sweep.png"}
    assert Path("again/manifest.json").is_file()
    assert Path("again/sweep.json").read_bytes() == Path("runs/one/sweep.json").read_bytes()
    assert "expected an empty or new folder" in refused(capfd, "runs/one", "--out", "again")


def test_what_is_not_the_same_is_shown(here: Path, capfd: Capture) -> None:
    """A record that claims other outputs: the difference is named, and the exit code is 1."""
    manifest = json.loads(Path("s.st.run.json").read_text(encoding="utf-8"))
    tensors, metadata = read("s.st", "subspace")
    tensors["basis"] = tensors["basis"] + np.float32(0.5)
    write("s.st", "subspace", tensors, metadata)
    from cogit.hashing import file_hash

    Path("s.safetensors").write_bytes(Path("s.st").read_bytes())
    manifest["outputs"] = {"s.safetensors": file_hash(Path("s.st")), "gone.md": "0" * 64}
    manifest["places"] = {"out": "s.safetensors", "plot": None}
    manifest["versions"]["numpy"] = "1.0"
    manifest["threads"]["cores"] = 999
    Path("s.safetensors.run.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert main(["replay", "s.safetensors"]) == 1
    out, err = capfd.readouterr()
    assert "s.safetensors" in out
    assert "differs: tensors: basis by up to 0.5 in" in out
    assert "missing" in out
    assert "NOT THE SAME RUN: 0 of 2 outputs equal" in out
    assert "version of numpy: 1.0 then" in err
    assert "cores: 999 then" in err


def test_a_changed_or_missing_input_is_an_error_that_names_it(here: Path, capfd: Capture) -> None:
    """Row N10: before anything runs."""
    arguments = ("s.st", "--from", str(here))
    with Path("states.safetensors").open("ab") as stream:
        stream.write(b"x")
    line = refused(capfd, *arguments)
    assert "states.safetensors, which the run has read as activations, unchanged at sha256:" in line
    Path("states.safetensors").unlink()
    assert "got no file there; put it back, or name its folder" in refused(capfd, *arguments)
    assert "expected the folder" in refused(capfd, "s.st", "--from", str(here / "absent"))


def test_what_has_no_record(here: Path, capfd: Capture) -> None:
    assert "which has no record of a run" in refused(capfd, "states.safetensors")
    assert "which has no record of a run" in refused(capfd, "absent")
    Path("store").mkdir()
    Path("store/manifest.json").write_text('{"format": "cogit", "format_version": 1}')
    assert "'cogit' of version 1, not 'cogit run' of 2" in refused(capfd, "store")


Change = Callable[[dict[str, Any]], Any]
HOSTILE: dict[str, tuple[Change, str]] = {
    "a command of the system": (
        lambda m: m.update(command="bash", arguments=["bash", "-c", "touch pwned"]),
        "expected one of demo, ",
    ),
    "itself": (
        lambda m: m.update(command="replay", arguments=["replay", "s.st"]),
        "expected one of demo, ",
    ),
    "another command in the arguments": (
        lambda m: m["arguments"].__setitem__(0, "demo"),
        "no arguments of the command 'subspace' that it names",
    ),
    "arguments that it does not take": (
        lambda m: m["arguments"].append("--exec=touch pwned"),
        "expected arguments that cogit subspace takes, got: No such option",
    ),
    "help": (lambda m: m["arguments"].append("--help"), "expected arguments that cogit subspace"),
    "an output above": (
        lambda m: m["outputs"].update({"../../x": "0" * 64}),
        "an output that is not below its folder, '../../x'",
    ),
    "an absolute place": (
        lambda m: m["places"].update(out="/etc/passwd"),
        "an output that is not below its folder, '/etc/passwd'",
    ),
    "a place that is no output": (
        lambda m: m["places"].update(activations="s.st"),
        "expected an output of cogit subspace, got 'activations'",
    ),
    "no place": (lambda m: m["places"].clear(), "expected an output of cogit subspace to compare"),
    "a hash that is none": (lambda m: m["outputs"].update({"s.st": "zz"}), "no SHA-256 of 's.st'"),
    "no outputs": (lambda m: m["outputs"].clear(), "no outputs to compare"),
    "numbers as arguments": (lambda m: m["arguments"].append(3), "arguments that are no list of"),
    "many arguments": (
        lambda m: m["arguments"].extend(["--strict"] * 2000),
        "arguments that are no list of at most 1000",
    ),
    "a list as outputs": (lambda m: m.update(outputs=[]), "expected outputs of type dict"),
    "an input that is a text": (
        lambda m: m["inputs"].update(x=["etc"]),
        "an input 'x' that is not described",
    ),
    "an input without a kind": (
        lambda m: m["inputs"].update(x=[{}]),
        "expected a described input x",
    ),
    "a relative working folder": (
        lambda m: m.update(working_folder="."),
        "no absolute working folder, '.'",
    ),
    "a version to come": (lambda m: m.update(format_version=3), "of version 3, not"),
    "no arguments": (lambda m: m.update(arguments=[]), "no arguments of the command"),
    "a secret": (
        lambda m: m["arguments"].append("--protect=[not recorded]"),
        "expected arguments that were recorded whole",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_manifests_are_one_line(name: str, here: Path, capfd: Capture) -> None:
    change, words = HOSTILE[name]
    path = here / "s.st.run.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert words in refused(capfd, "s.st")
    assert not Path("pwned").exists()


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "null", '{"format": 3}', "{}", "\xff"])
def test_files_that_are_no_manifest(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.run.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ArtefactError, match=r"^\[replay\] expected "):
        RecordedRun.load(path)


def test_a_huge_manifest_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.run.json"
    with path.open("wb") as stream:
        stream.truncate(17 * 2**20)
    with pytest.raises(ArtefactError, match="larger than 16 MiB"):
        RecordedRun.load(path)


def test_no_argument_of_a_manifest_says_where_something_is_written(
    here: Path, tmp_path: Path
) -> None:
    """A forged path of every kind of output is replaced or left out, and --force with it."""
    path = here / "s.st.run.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["command"] = "fit"
    manifest["arguments"] = [
        *("fit", "--out=/victim/a", "--out-opposite=/victim/b", "--plot=/victim/c.png"),
        *("--checkpoint=/victim/d", "--activations=states.safetensors", "--force", "--resume"),
    ]
    manifest["places"] = {"out": "s.st"}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    run = RecordedRun.load(path)
    arguments = replayed_arguments(run, tmp_path / "fresh", COMMANDS.commands)
    assert f"--out={tmp_path / 'fresh' / 's.st'}" in arguments
    assert "victim" not in " ".join(arguments)
    assert not {"--force", "--resume"} & set(arguments)


def test_no_variable_is_sent_where_a_manifest_says(here: Path, tmp_path: Path) -> None:
    """A forged judge would name both a secret of this environment and who gets it."""
    path = here / "s.st.run.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    judge = "api:https://example.org/v1?model=m&key%5Fenv=HOME"
    manifest["command"], manifest["places"] = "pipeline", {"out": "."}
    manifest["arguments"] = ["pipeline", "--out=run", f"--judge={judge}"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ValueError, match="expected a judge without a key"):
        replayed_arguments(RecordedRun.load(path), tmp_path / "fresh", COMMANDS.commands)


def test_modules_of_the_working_folder_are_not_run(here: Path, capfd: Capture) -> None:
    """It is named by the manifest, and Python looks there first unless told not to."""
    for name in ("numpy", "cogit", "typer", "sitecustomize"):
        Path(f"{name}.py").write_text("open('pwned', 'w').close()\n", encoding="utf-8")
    code, found = replayed(capfd, "s.st", "--from", str(here))
    assert (code, found["equal"]) == (0, True)
    assert not Path("pwned").exists()


def test_a_path_of_which_nothing_is_known_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new flag with a path is said to be read or left out, before a manifest may give it."""
    from cogit.cli import replay_run

    monkeypatch.setattr(replay_run, "_READS", frozenset())
    run = RecordedRun.load(here / "s.st")
    with pytest.raises(ValueError, match="got activations, of which that is not known"):
        replayed_arguments(run, here / "fresh", COMMANDS.commands)


def test_every_path_of_a_command_that_writes_is_known() -> None:
    from cogit.cli import replay_run

    for name, command in COMMANDS.commands.items():
        if command.callback is None:
            continue  # a group of commands
        found = replay_run._path_parameters(command.callback)
        if "out" in found and name != "replay":
            assert found <= replay_run._READS | replay_run._LEFT_OUT, name


@pytest.mark.llamacpp
def test_a_recording_with_a_model_is_made_again(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows N10 and D7: a folder of shards, made by the demo model that no flag names."""
    monkeypatch.chdir(tmp_path)
    rows = [{"positive": f"the room was good {i}", "negative": f"it was bad {i}"} for i in range(4)]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    call = "record --pairs p.jsonl --backend llamacpp --layers 2-4 --out deep/states --threads 1"
    assert main(call.split()) == 0
    manifest = json.loads(Path("deep/states.run.json").read_text(encoding="utf-8"))
    assert manifest["inputs"]["model"][0]["kind"] == "packaged"
    assert manifest["models"]["llamacpp"]["n_layers"] == 6
    assert (manifest["device"], manifest["dtype"]) == ("cpu", "F32")
    assert manifest["threads"]["given"] == 1
    capfd.readouterr()
    monkeypatch.setenv("COGIT_MODEL", "nowhere")
    code, found = replayed(capfd, "deep/states")
    assert code == 0
    assert {one["name"] for one in found["outputs"]} == {
        "states/manifest.json",
        "states/shard-00000.safetensors",
    }


@pytest.mark.slow
@pytest.mark.llamacpp
@pytest.mark.timeout(1800)
def test_the_demo_is_made_again(tmp_path: Path, capfd: Capture) -> None:
    """Row N10: everything on both backends, training and pictures among it."""
    assert main(["demo", "--quick", "--threads", "1", "--out", str(tmp_path / "run")]) == 0
    capfd.readouterr()
    code, found = replayed(capfd, str(tmp_path / "run"))
    assert code == 0
    assert found["equal"]
    assert {"report.json", "effect_versus_kl.png", "unitary.safetensors"} <= {
        one["name"] for one in found["outputs"]
    }


@pytest.mark.slow
def test_a_fit_is_made_again(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row N10: pairs, model, choice, refinement by gradient and its picture."""
    from cogit.demo import grammar

    monkeypatch.chdir(tmp_path)
    pairs = grammar.contrast_pairs(24, 0, "train")
    rows = [{"positive": pair.positive, "negative": pair.negative} for pair in pairs]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    call = "fit --pairs p.jsonl --layer 3 --refine 2 --plot c.png --out f.safetensors --threads 1"
    assert main([*call.split(), "--kl-budget", "1", "--nll-budget", "1"]) == 0
    capfd.readouterr()
    code, found = replayed(capfd, "f.safetensors")
    assert code == 0
    assert [one["verdict"] for one in found["outputs"]] == ["equal", "equal"]
