"""``cogit report``: the same files again, several side by side, nothing replaced unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from _report_example import example
from cogit.cli.main import main
from cogit.reporting import write_report

ONE = {"report.md", "report.html", "dose_response.png", "effect_versus_kl.png"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for name, lift in (("a", 45.8), ("b", 6.3)):
        (root / name).mkdir()
        write_report(root / name, example(lift=lift, backend=name))
    return root


def test_one_report_gives_the_same_files_again(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = runs / "a" / "report.json"
    assert main(["report", str(source), "--out", str(tmp_path / "new" / "deep")]) == 0
    assert f"{source}: effect" in capsys.readouterr().out
    made = {path.name: path.read_bytes() for path in (tmp_path / "new" / "deep").iterdir()}
    assert made == {name: (runs / "a" / name).read_bytes() for name in ONE}


def test_several_reports_are_put_side_by_side(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = [str(runs / name / "report.json") for name in ("a", "b")]
    assert main(["report", *sources, "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["verdicts"].values()) == ["effect", "no effect"]
    assert {Path(path).name for path in found["files"]} == {"comparison.md", "comparison.html"}
    assert {path.name for path in tmp_path.iterdir()} == {"comparison.md", "comparison.html"}


def test_nothing_is_replaced_without_force(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(runs / "a" / "report.json")
    (tmp_path / "report.md").write_text("mine")
    assert main(["report", source, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: [out] expected a new file")
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "mine"
    assert main(["report", source, "--out", str(tmp_path), "--force"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == ONE


def test_the_source_is_never_replaced(runs: Path, tmp_path: Path) -> None:
    source = tmp_path / "report.md"
    source.write_bytes((runs / "a" / "report.json").read_bytes())
    assert main(["report", str(source), "--out", str(tmp_path), "--force"]) == 2
    assert source.read_bytes() == (runs / "a" / "report.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["absent.json", "--out", "new"], "which does not exist"),
        (["{a}", "{a}", "--out", "new"], "one of them twice"),
        (["{a}", "--out", "{a}"], "expected a folder, got the file"),
        (["{bad}", "--out", "new"], "expected the format 'cogit evaluation'"),
        (["{a}"], "Missing option '--out'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("{}")
    paths = {"a": runs / "a" / "report.json", "bad": tmp_path / "bad.json"}
    assert main(["report", *(argument.format(**paths) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert part in error
    assert not (tmp_path / "new").exists()
