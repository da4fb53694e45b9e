"""The benches: their results page, targets and command lines. Speed is not tested here."""

from __future__ import annotations

import importlib
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import results, targets
from bench.rows import RESULTS, Report, Row, arguments, finish, number

ID = re.compile(r"[a-z]+(\.[a-z0-9_]+)+")
FOLDER = Path(results.__file__).parent
PRESENT = [name for name in targets.BENCHES if (FOLDER / f"{name}.py").is_file()]


def report(bench: str, *rows: Row, quick: bool = False) -> Report:
    return Report(bench, f"python -m bench.{bench}", "abc1234", "a machine", 2, quick, rows)


def test_the_page_is_what_the_files_say() -> None:
    assert results.PAGE.read_text(encoding="utf-8") == results.render(results.read_reports())


def test_rows_have_ids_of_their_own() -> None:
    ids = [row.id for one in results.read_reports().values() for row in one.rows]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not ID.fullmatch(name)] == []


def test_every_target_is_measured_or_marked() -> None:
    reports = results.read_reports()
    page = results.render(reports)
    for target in targets.TARGETS:
        assert target.bench in targets.BENCHES
        lines = [x for x in page.splitlines() if x.startswith(f"| `{target.pattern}` | ")]
        assert lines
        if target.bench in reports:
            assert target.worst(reports[target.bench].rows), f"{target.pattern} has no row"
        else:
            assert all(results.unmeasured(target.bench) in line for line in lines)


def test_targets_without_a_star_are_ids() -> None:
    names = [target.pattern for target in targets.TARGETS if not target.many]
    assert [name for name in names if not ID.fullmatch(name)] == []
    rules = [(target.pattern, target.rule) for target in targets.TARGETS]
    assert len(set(rules)) == len(rules)


def test_the_page_marks_what_is_met_and_missed() -> None:
    rows = (
        Row("affine.f32.d3584.r16.n1", 12.0, "us", 30.0, 2.5, 9.0, 0.75, "addmm"),
        Row("affine.f32.d896.r16.n1.naive", 9.0, "us", 8.0, 0.9),
    )
    page = results.render({"kernels": report("kernels", *rows)})
    expected = (
        "| `affine.f32.d3584.r16.n1` | ratio >= 2.3 | 2.5 | met |",
        "| `affine.f32.d3584.r16.n1` | value <= 10 | 12 | **missed** |",
        "| `affine.*` | ratio >= 0.95 | 0.9 (`affine.f32.d896.r16.n1.naive`) | **missed** |",
        "| `dispatch.tensors5` | value <= 1 |  | unmeasured: run bench.kernels |",
        "| `cuda.dense.c64.q9333.b1` | of limit >= 0.7 |  | unmeasured: no GPU at hand |",
        "| `affine.f32.d3584.r16.n1` | 12 us | 30 | 2.5 | 75 % | addmm |",
        "a machine; threads: 2; commit abc1234; `python -m bench.kernels`",
    )
    for line in expected:
        assert line in page
    assert page == results.render({"kernels": report("kernels", *rows)})


def test_reports_come_back_as_written(tmp_path: Path) -> None:
    written = report("fit", Row("fit.closed.q2666", 0.0123456789, "s").rounded())
    written.write(tmp_path / "results" / "fit.json")
    assert results.read_reports(tmp_path / "results") == {"fit": written}
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["fit.json"]
    data = json.loads((tmp_path / "results" / "fit.json").read_text(encoding="utf-8"))
    assert {"commit", "machine", "threads", "rows"} <= set(data)
    row = {"id", "value", "unit", "baseline", "ratio", "limit", "of_limit", "note"}
    assert set(data["rows"][0]) == row
    assert data["rows"][0]["value"] == 0.012346
    assert data["rows"][0]["limit"] is None


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("fit.json", report("fit", quick=True), "--quick"),
        ("other.json", report("fit"), "named after benches"),
        ("fit.json", {"rows": []}, "expected the keys"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, name: str, content: Report | dict[str, Any], words: str
) -> None:
    if isinstance(content, Report):
        content.write(tmp_path / name)
    else:
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        results.read_reports(tmp_path)


def test_nothing_is_written_for_a_number_that_is_none(tmp_path: Path) -> None:
    broken = replace(report("fit"), rows=(Row("fit.closed.q2666", float("nan"), "s"),))
    with pytest.raises(ValueError, match="JSON"):
        broken.write(tmp_path / "fit.json")
    assert list(tmp_path.iterdir()) == []


def test_an_id_must_not_repeat() -> None:
    rows = [Row("hook.clock", 1.0, "us")] * 2
    with pytest.raises(ValueError, match="every id once"):
        finish("inject", rows, arguments("", []), threads=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (12345.6, "12346"), (9.876, "9.88"), (2e-5, "2.00e-05")],
)
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("name", PRESENT)
def test_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"bench.{name}")
    monkeypatch.setattr(sys, "argv", [f"bench.{name}", "--help"])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    assert exit_.value.code == 0
    printed = capsys.readouterr().out
    assert "--json" in printed
    assert "--quick" in printed


def test_results_are_in_the_source_distribution() -> None:
    text = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert RESULTS.relative_to(FOLDER.parent).as_posix() not in text


def test_the_baseline_of_the_fit_is_one_computation_in_two_forms() -> None:
    from bench import fit

    fit.check_forms()


def test_closed_forms_turn_what_they_have_not_seen() -> None:
    from bench import fit

    trained, test = fit.make_pairs(300)
    flips = {}
    for name, pairs in (("closed", trained), ("shuffled", trained.shuffled())):
        fitted = fit.fit_closed(pairs, fit.procrustes)
        assert fitted.deviation() < 1e-10
        flips[name] = fit.held_out(fitted, trained, test)["flip"]
    assert flips["closed"] >= 0.8
    assert flips["shuffled"] <= 0.3


def test_the_plain_record_averages_the_last_tokens() -> None:
    """Against states written out by hand, padding and short texts included."""
    from bench import record

    import _models
    from cogit.pairs import ContrastPair

    model, tokenizer = _models.tiny_model(), _models.word_tokenizer()
    tokenizer.pad_token = "</s>"
    pair = ContrastPair("w3 w4 w5 w6 w7 w8", "w9 w10")
    found = record.plain_record(model, tokenizer, [pair, pair])
    backend = _models.tiny_backend()
    for row, text in enumerate((pair.positive, pair.negative)):
        ids = backend.tokenize(text)
        states = backend.residuals([ids], [0])[0][0]
        expected = states[max(1, len(ids) - record.TAIL) :].mean(axis=0)
        np.testing.assert_allclose(found[0, row], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found[0, row], found[0, row + 2])
