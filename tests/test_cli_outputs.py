"""Where commands write: never over an input, over other files only with --force, and it is said
before a model is loaded.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cogit.cli.main import main
from cogit.cli.outputs import require_apart, require_writable

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Writer:
    """One writing flag of a command: the call but for it, a new name, and a file that it reads."""

    call: str
    flag: str
    new: str
    reads: str | None


# No file named here holds what the command wants, and no model is there: a check that came after
# any work would end in another message.
WRITERS = {
    "fit pairs": Writer("fit --pairs p.jsonl --layer 1 --model none", "out", "o", "p.jsonl"),
    "fit texts": Writer("fit --pairs a.txt,b.txt --layer 1 --model none", "out", "o", "b.txt"),
    "fit neutral": Writer("fit --pairs a --auto --neutral n.txt --model none", "out", "o", "n.txt"),
    "fit states": Writer("fit --activations a.st --layer 1", "out", "o", "a.st"),
    "fit subspace": Writer("fit --subspace s", "out", "o", "s"),
    "fit back": Writer(
        "fit --activations a.st --method born-adam --out o", "out-opposite", "back", "a.st"
    ),
    "fit plot": Writer("fit --pairs p.png --auto --out o --model none", "plot", "x.png", "p.png"),
    "subspace": Writer("subspace --activations a.st --layer 1", "out", "o", "a.st"),
    "subspace protect": Writer(
        "subspace --activations a.st --layer 1 --protect s:3", "out", "o", "s"
    ),
    "subspace plot": Writer("subspace --activations a.png --layer 1", "plot", "x.svg", "a.png"),
    "record": Writer(
        "record --pairs p.safetensors --model none", "out", "o.safetensors", "p.safetensors"
    ),
    "sweep": Writer("sweep --pairs p.png --model none", "plot", "x.pdf", "p.png"),
    "gate intervention": Writer("gate --intervention i --on n.txt --off b.txt", "out", "o", "i"),
    "gate texts": Writer("gate --intervention i --on n.txt --off b.txt", "out", "o", "b.txt"),
    "export": Writer("export i.gguf", "out", "o.gguf", "i.gguf"),
    "import": Writer("import i.gguf --model m", "out", "o", "i.gguf"),
    "import like": Writer("import i.gguf --like i", "out", "o", "i"),
    "demo": Writer("demo --quick --out run", "json", "o.json", None),
}
FILES = sorted({writer.reads for writer in WRITERS.values() if writer.reads} | {"a.txt"})


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        Path(name).write_text(f"precious {name}\n", encoding="utf-8")


def refused(writer: Writer, value: str, capfd: Capture, *more: str) -> str:
    """The one line of a refusal, which leaves every file as it is."""
    before = contents()
    assert main([*writer.call.split(), f"--{writer.flag}", value, *more]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert contents() == before
    return err.removeprefix("error: ").rstrip()


def contents() -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in Path().rglob("*")}


@pytest.mark.parametrize("name", [name for name, writer in WRITERS.items() if writer.reads])
@pytest.mark.parametrize("way", ["itself", "dotted", "linked", "hard"])
def test_no_input_is_overwritten(name: str, way: str, capfd: Capture) -> None:
    """--force or not, by whatever name."""
    writer = WRITERS[name]
    assert writer.reads is not None
    suffix = Path(writer.reads).suffix
    value = {"itself": writer.reads, "dotted": f"../{Path.cwd().name}/{writer.reads}"}.get(
        way, f"other{suffix}"
    )
    if way == "linked":
        Path(value).symlink_to(writer.reads)
    elif way == "hard":
        os.link(writer.reads, value)
    for more in ([], ["--force"]):
        line = refused(writer, value, capfd, *more)
        assert line.startswith(f"[{writer.flag}] expected a place of its own, got {Path(value)}, ")
        assert line.endswith(" too; choose another name")


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_exists_stays(name: str, capfd: Capture) -> None:
    writer = WRITERS[name]
    Path(writer.new).write_text("an hour's work", encoding="utf-8")
    line = refused(writer, writer.new, capfd)
    assert line == (
        f"[{writer.flag}] expected a new file, got {writer.new}, which exists; choose another name "
        f"or pass --force"
    )


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_is_no_file_to_write(name: str, capfd: Capture) -> None:
    writer = WRITERS[name]
    Path(writer.new).mkdir()
    line = refused(writer, writer.new, capfd, "--force")
    assert line == f"[{writer.flag}] expected a file, got the folder {writer.new}; name a file"


@pytest.mark.parametrize("name", WRITERS)
def test_the_folder_of_a_file_must_be_there(name: str, capfd: Capture) -> None:
    writer = WRITERS[name]
    line = refused(writer, f"absent/{writer.new}", capfd)
    assert line == f"[{writer.flag}] expected an existing folder, got absent; create it first"


@pytest.mark.parametrize("name", ["fit plot", "subspace plot", "sweep"])
@pytest.mark.parametrize("value", ["sub.safetensors", "plot", "plot.jpg.gz"])
def test_a_plot_has_the_name_of_an_image(name: str, value: str, capfd: Capture) -> None:
    line = refused(WRITERS[name], value, capfd)
    assert line == f"[plot] expected a name that ends in .png, .svg, .pdf, got {value}"


def test_two_outputs_are_two_files(capfd: Capture) -> None:
    line = refused(WRITERS["fit back"], "./o", capfd, "--force")
    assert line.startswith("[out-opposite] expected a place of its own, got o, which is --out too")
    both = Writer("subspace --activations a.st --layer 1 --out x.png", "plot", "x.png", None)
    assert "[plot] expected a place of its own" in refused(both, "x.png", capfd, "--force")


def test_nothing_is_written_into_a_store_that_is_read(capfd: Capture) -> None:
    Path("store").mkdir()
    Path("store/shard-00000.safetensors").write_bytes(b"rows")
    for call in ("subspace --activations store --layer 1", "fit --activations store --layer 1"):
        for value in ("store/shard-00000.safetensors", "store/new"):
            line = refused(Writer(call, "out", "", None), value, capfd, "--force")
            assert line.endswith("which lies in --activations store; choose another folder")
    writer = Writer("record --pairs p.jsonl --cache store --model none", "out", "", None)
    assert "lies in --cache store" in refused(writer, "store/states", capfd)
    assert "is --pairs too" in refused(writer, "p.jsonl", capfd)


def test_a_models_folder_takes_new_files_only() -> None:
    """People work in it; its own files are inputs."""
    Path("weights.safetensors").write_bytes(b"w")
    require_writable({"out": Path("new")}, {"model": "."}, force=False)
    with pytest.raises(ValueError, match="lies in --model"):
        require_writable({"out": Path("weights.safetensors")}, {"model": "."}, force=True)


def test_other_forms_of_input() -> None:
    """A data set's folder, a hub id, and a name that no file system takes."""
    Path("data").mkdir()
    with pytest.raises(ValueError, match="lies in --pairs data"):
        require_apart({"out": Path("data/rows")}, {"pairs": "dataset:data?split=train"})
    given = {"model": "org/name", "pairs": "x" * 5000, "neutral": None}
    require_writable({"out": Path("o"), "plot": None}, given, force=False)


def test_force_replaces_plain_files_only() -> None:
    require_writable({"out": Path("a.st")}, {}, force=True)
    Path("dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="which exists"):
        require_writable({"out": Path("dangling")}, {}, force=False)
    os.mkfifo("pipe")
    with pytest.raises(ValueError, match="expected a plain file"):
        require_writable({"out": Path("pipe")}, {}, force=True)


def test_a_folder_that_takes_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="expected a folder that takes files"):
        require_writable({"out": Path("o")}, {}, force=False)


def test_force_is_what_replaces(tiny_intervention: Path, capfd: Capture) -> None:
    shutil.copy(tiny_intervention, "made")
    call = ["export", "made", "--out", "v.gguf", "--every-token"]
    assert main(call) == 0
    first = Path("v.gguf").read_bytes()
    Path("v.gguf").write_bytes(b"old")
    assert main(call) == 2
    assert Path("v.gguf").read_bytes() == b"old"
    assert main([*call, "--force"]) == 0
    assert Path("v.gguf").read_bytes() == first


@pytest.fixture
def tiny_intervention(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    from cogit import Additive, Intervention
    from cogit.identity import ModelIdentity

    identity = ModelIdentity("tiny", "llama", 2, 8, 8)
    vector = np.eye(8)[0]
    made = Intervention({1: Additive(vector)}, identity)
    return made.save(tmp_path_factory.mktemp("made") / "made")


# ---- text files that are read ----

READERS = {
    "pairs": "fit --layer 1 --out o --pairs",
    "neutral": "fit --pairs good.jsonl --auto --out o --neutral",
    "prompts": "reverse --intervention {made} --prompts",
    "on": "gate --intervention {made} --off a.txt --out o --on",
    "off": "gate --intervention {made} --on a.txt --out o --off",
    "prompt-file": "--prompt-file",
}


@pytest.mark.parametrize("where", READERS)
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("nope.txt", "expected a file, got nope.txt, which does not exist"),
        ("latin.txt", "expected UTF-8 text in latin.txt, got invalid continuation byte"),
        ("folder", "expected a file, got the folder folder"),
        ("n" * 300, "expected a file that can be read, got nnn"),
    ],
)
def test_text_files_that_cannot_be_read(
    where: str, file: str, words: str, tiny_intervention: Path, capfd: Capture
) -> None:
    from cogit.cli import infer

    Path("latin.txt").write_bytes(b"caf\xe9 au lait\n")
    Path("folder").mkdir()
    rows = '{{"positive": "good {0}", "negative": "bad {0}"}}\n'
    text = "".join(rows.format(number) for number in range(12))
    Path("good.jsonl").write_text(text, encoding="utf-8")
    arguments = [part.format(made=tiny_intervention) for part in READERS[where].split()]
    run = infer.main if where == "prompt-file" else main
    assert run([*arguments, file]) == 2
    out, err = capfd.readouterr()
    assert not out
    assert err.splitlines()[-1].startswith(f"error: [{where}] {words}")
    assert not Path("o").exists()


def test_a_byte_order_mark_is_no_part_of_a_prompt() -> None:
    from cogit.text_files import read_lines

    Path("bom.txt").write_bytes("\ufeffone\r\n\r\ntwo\n".encode())
    assert read_lines(Path("bom.txt"), "on", "a text") == ["one", "two"]
    Path("blank.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^\[on\] expected a text a line, got none in blank"):
        read_lines(Path("blank.txt"), "on", "a text")
